"""Write a complete set of files of a member of the Wan family with random weights, in their true layouts.

For rehearsals of everything but quality, without the released weights:

    python scripts/synthesise_wan.py self_forcing rehearsal/ --tiny
    ff-bench $(python scripts/synthesise_wan.py self_forcing rehearsal/ --tiny) length=9f device=cpu

The last line of the output is the words that point a command to the files. At true sizes the files of a 1.3B
member take 17 GB, 11 of them the text encoder; those of a 14B member 40 GB.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ff_bench.compose import compose
from ff_bench.errors import UsageError
from ff_bench.models.wan import synthesis
from ff_bench.models.wan.member import Member


def main() -> int:
    """Write the files and print the words."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a member, as on the command line of ff-bench")
    parser.add_argument("folder", type=Path, help="where to")
    parser.add_argument("--tiny", action="store_true", help="a few MB instead of the true sizes")
    parser.add_argument("--diffusers", action="store_true", help="folders in the way of diffusers")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    asked = parser.parse_args()
    try:
        member = compose([f"model={asked.model}"]).config.model.fields
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not isinstance(member, Member):
        print(f"error: model={asked.model} is no member of the Wan family", file=sys.stderr)
        return 2
    sizes = synthesis.TINY if asked.tiny else synthesis.true_sizes(member)
    words = synthesis.write(asked.folder.resolve(), member, sizes, diffusers=asked.diffusers, seed=asked.seed)
    print(" ".join(words))
    return 0


if __name__ == "__main__":
    sys.exit(main())
