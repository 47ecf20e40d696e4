"""`python -m ff_bench` is the console script."""

from __future__ import annotations

from ff_bench.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
