"""Fuzz everything that reads what others wrote, and count what must not happen.

Every input has a seed of its own and can be run again alone. Nothing may end otherwise than well or with one
sentence, and nothing may be written outside the folder that an input is given. The last line is JSON.

    python scripts/fuzz.py --inputs 10000 --seed 0
    python scripts/fuzz.py --again 'rows/0/17'      # one input, by the name that the table gave
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from fuzzing import commands, films, hooks, readers, weights
from fuzzing.judge import CACHE, Tally, Target, apart, judge, listing

TARGETS = (
    *readers.TARGETS, *weights.TARGETS, *films.TARGETS, *hooks.TARGETS, *commands.TARGETS,
)  # fmt: skip


def campaign(inputs: int, seed: int, root: Path, targets: Sequence[Target] = TARGETS) -> dict[str, Tally]:
    """Give every target its share of the inputs.

    Args:
        inputs: in all, at least.
        seed: of the campaign; an input is drawn from `target/seed/number`.
        root: empty folder, where everything happens.
        targets: what is fuzzed.
    """
    tallies = {target.name: Tally() for target in targets}
    whole = sum(target.share for target in targets)
    with apart(root) as work:
        for target in targets:
            folder = work / "inputs"
            folder.mkdir(exist_ok=True)
            before = listing([root])
            for number in range(-int(-inputs * target.share // whole)):
                judge(target, f"{target.name}/{seed}/{number}", folder, tallies[target.name])
            for path in sorted(set(listing([root])) - set(before)):
                if not any(Path(path).is_relative_to(place) for place in (folder, root / CACHE)):
                    tallies[target.name].wrong.append((f"{target.name}/{seed}", f"wrote {path}"))
    return tallies


def main(words: Sequence[str] | None = None) -> int:
    """Run a campaign and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", default="", help="name of one input, as the table gave it")
    asked = parser.parse_args(words)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as root:
        if asked.again:
            tallies = _again(asked.again, Path(root))
        else:
            tallies = campaign(asked.inputs, asked.seed, Path(root))
    print(f"{'target':18} {'inputs':>7} {'refused':>8} {'wrong':>6}")
    for name, tally in tallies.items():
        print(f"{name:18} {tally.inputs:7} {tally.refused:8} {len(tally.wrong):6}")
    wrong = [(seed, told) for tally in tallies.values() for seed, told in tally.wrong]
    for seed, told in wrong:
        print(f"wrong: {seed}: {told}")
    total = sum(tally.inputs for tally in tallies.values())
    print(json.dumps({"seed": asked.seed, "inputs": total, "wrong": len(wrong)}))
    return 1 if wrong else 0


def _again(name: str, root: Path) -> dict[str, Tally]:
    target = next(target for target in TARGETS if target.name == name.split("/")[0])
    tally = Tally()
    with apart(root) as work:
        judge(target, name, work, tally)
    return {target.name: tally}


if __name__ == "__main__":
    sys.exit(main())
