"""The console script `ff-bench`: finds the command, prints errors as one line, returns the exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ff_bench.errors import UsageError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: words after the program's name; None takes those of the process.

    Returns:
        0 done · 1 some videos failed · 2 the command line is wrong · 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        from ff_bench import commands

        return commands.dispatch(words)
    except UsageError as error:
        print(f"ff-bench: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # the reader, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        print(
            f"ff-bench: interrupted; what is finished is safe, go on with the same command: {_again(words)}",
            file=sys.stderr,
        )
        return INTERRUPTED


def _again(words: Sequence[str]) -> str:
    import shlex

    return shlex.join(["ff-bench", *words])


if __name__ == "__main__":
    raise SystemExit(main())
