"""The trials of a blind comparison: two videos of one prompt, seed and budget, on sides drawn by lot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, zip_longest
from pathlib import Path

import numpy as np

from ff_bench import files
from ff_bench.report import choice
from ff_bench.report.comparison import Table
from ff_bench.report.videos import Shown

FORMAT, VERSION = "ff-bench blind key", 1
SEED = 0
"""Of the lots; equal videos give equal trials."""
LEFT, RIGHT, TIE = "left", "right", "tie"

_Meeting = tuple[str, str, int | None]


@dataclass(frozen=True)
class Trial:
    """Two videos to be compared.

    Attributes:
        trial: Its name, which tells nothing.
        left: Video id on the left.
        right: Video id on the right.
        budget: In tokens, of the comparison; None where no policy has one.
    """

    trial: str
    left: str
    right: str
    budget: int | None


@dataclass(frozen=True)
class Key:
    """The stored assignment, which the page does not hold: which video stands where in which trial."""

    trials: Sequence[Trial]

    @property
    def text(self) -> str:
        """The content of its file."""
        content = {"format": FORMAT, "version": VERSION, "trials": [asdict(trial) for trial in self.trials]}
        return files.canonical(content)

    @property
    def digest(self) -> str:
        """Sha256 (hex) of the file, by which pages and votes name it."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def file_name(self) -> str:
        """Name of the file."""
        return key_name(self.digest)


def key_name(digest: str) -> str:
    """Return the name of the file of an assignment."""
    return f"blind-key-{digest[:16]}.json"


def read_key(path: Path) -> Key | None:
    """Read an assignment; None where the file holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Key(tuple(Trial(**trial) for trial in content["trials"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def draw(tables: Iterable[Table], shown: Mapping[str, Shown], *, most: int) -> Key:
    """Draw the trials of all tables: which, in what order, and who stands on the left.

    Where there are more than `most`, every two policies keep about the same number. The same two videos
    meet once, whatever the number of budgets.

    Args:
        tables: The comparisons.
        shown: Finished videos by id.
        most: Trials at most.
    """
    rivals: dict[tuple[int, int | None, str, str], list[_Meeting]] = {}
    seen: set[tuple[str, str]] = set()
    for place, table in enumerate(table for table in tables if table.is_main):
        for meeting, names in _meetings(table, shown):
            if meeting[:2] not in seen:
                seen.add(meeting[:2])
                rivals.setdefault((place, meeting[2], *names), []).append(meeting)
    generator = np.random.default_rng([SEED, *hashlib.sha256(repr(sorted(seen)).encode()).digest()])
    shuffled = [[own[i] for i in generator.permutation(len(own))] for own in rivals.values()]
    rounds = [meeting for turn in zip_longest(*shuffled) for meeting in turn if meeting is not None][:most]
    order = generator.permutation(len(rounds))
    sides = generator.integers(2, size=len(rounds))
    digits = len(str(len(rounds)))
    trials = []
    for number, (place, side) in enumerate(zip(order, sides, strict=True), 1):
        *both, budget = rounds[place]
        left, right = both if side else both[::-1]
        trials.append(Trial(f"t{number:0{digits}d}", str(left), str(right), budget))
    return Key(tuple(trials))


def _meetings(table: Table, shown: Mapping[str, Shown]) -> Iterator[tuple[_Meeting, tuple[str, str]]]:
    """Yield every two videos that can be seen side by side and played, with the names of their lines."""
    for group in choice.groups(table, shown):
        playable = [
            (f"{line.label} {line.budget}", video.manifest.video_id)
            for line, video in group.videos
            if video.viewing and not video.obstacle
        ]
        for (first, one), (second, other) in combinations(sorted(playable), 2):
            yield (one, other, group.budget), (first, second)
