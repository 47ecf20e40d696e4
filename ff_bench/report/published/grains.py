"""What dynamic degrees tell of the number of prompts: each is a number of clips over all clips."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ff_bench.report.published import WHOLE_VIDEO, Row

_CLIP_SECONDS = 2.0
_LISTS = (20, 128, 200, 946, 1003)  # sizes of the prompt lists of this field
_CHANCE = 1e-3


@dataclass(frozen=True)
class Grain:
    """How many dynamic degrees of a table are multiples of one clip of `prompts` videos.

    Attributes:
        chance: That as many would be by chance.
    """

    paper: str
    table: str
    seconds: float
    prompts: int
    clips: int
    fits: int
    cells: int
    chance: float


def clip_count(row: Row) -> int:
    """Return how many clips of 2 s VBench-Long cuts from a video; 1 where VBench takes it whole."""
    if row.metric.startswith(f"{WHOLE_VIDEO}."):
        return 1
    return max(1, math.floor((row.seconds or 0.0) / _CLIP_SECONDS))


def grains(rows: Iterable[Row]) -> list[Grain]:
    """Find, per table and length, the number of prompts whose clips the dynamic degrees are multiples of."""
    groups: dict[tuple[str, str, float], list[Row]] = {}
    for row in rows:
        if row.metric.endswith(".dynamic_degree") and row.seconds is not None:
            groups.setdefault((row.paper, row.table, row.seconds), []).append(row)
    found = []
    for (paper, table, seconds), cells in groups.items():
        clips = clip_count(cells[0])
        counts = (1,) if clips == 1 else (clips, clips + 1)  # a rest of a clip is made a whole one
        printed = {row.printed for row in cells}
        tried = [
            Grain(paper, table, seconds, prompts, clips, fits, len(printed), chance)
            for prompts in _LISTS
            for clips in counts
            for fits, chance in [multiples(printed, prompts * clips)]
        ]
        best = min(tried, key=lambda grain: grain.chance)
        if best.chance < _CHANCE:
            found.append(best)
    return found


def multiples(printed: Iterable[str], clips: int) -> tuple[int, float]:
    """Count the percentages, printed with two decimals, that are a number of clips over all of them.

    Returns:
        The count, and the chance of at least that many among random percentages.
    """
    values = [float(text) for text in printed]
    fits = sum(abs(100 * round(value * clips / 100) / clips - value) < 0.0051 for value in values)
    odds = min(1.0, clips / 10_000)
    tail = sum(
        math.comb(len(values), k) * odds**k * (1 - odds) ** (len(values) - k)
        for k in range(fits, len(values) + 1)
    )
    return fits, tail
