"""Lines of a table against the baseline and against each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ff_bench import traits
from ff_bench.report.comparison import Cell, Column, Line
from ff_bench.report.contrast import Contrast, contrasts, judged
from ff_bench.report.margins import margin_of
from ff_bench.report.statistics import Pair, differences, intervals

FLOOR_SHARE = 0.95
"""Quantile over pairs of the distance between `full_eps` and `full` that counts as their spread."""
NOT_TESTED = ("full_eps",)
"""Policies that are a scale for the others, not a claim: no family counts them."""
_Place = tuple[int, str]


def find_baseline(lines: Sequence[Line], line: Line, baseline: str) -> Line | None:
    """Return the baseline's line at the same budget, else without a budget, else None."""
    same = [other for other in lines if other.policy == baseline]
    for tokens in (line.budget_tokens, None):
        for other in same:
            if other.budget_tokens == tokens:
                return other
    return None


def with_pairs(
    lines: Sequence[Line], columns: Sequence[Column], baseline: str, margins: Mapping[str, float]
) -> list[Line]:
    """Fill in the difference of every cell to the baseline, with what it says.

    A cell whose metric the baseline does not have, such as the PSNR to the full cache of the full cache, has
    no difference and keeps the interval of its own mean.

    Args:
        lines: of one table.
        columns: of the table.
        baseline: policy that differences are taken to.
        margins: the user's, by name, as in `ff_bench.report.margins`.
    """
    bases = [find_baseline(lines, line, baseline) for line in lines]
    gaps: dict[_Place, dict[Pair, float]] = {}
    compared: set[_Place] = set()
    for row, (line, base) in enumerate(zip(lines, bases, strict=True)):
        for column in columns if base is not None else ():
            assert base is not None, line.label
            name, is_own = column.metric, base is line
            if not is_own and base.values[name]:
                gaps[row, name] = differences(line.values[name], base.values[name])
            compared |= {(row, name)} if is_own or base.values[name] else set()
    paired = dict(zip(gaps, intervals(list(gaps.values())), strict=True))
    found = _contrasts(lines, columns, gaps, margins)
    made = []
    for row, line in enumerate(lines):
        cells: dict[str, Cell] = {}
        for name, cell in line.cells.items():
            place = (row, name)
            cells[name] = replace(
                cell,
                paired=paired.get(place),
                contrast=found.get(place),
                is_baseline=bases[row] is line,
                has_baseline=place in compared,
            )
        made.append(replace(line, cells=cells))
    return made


def _contrasts(
    lines: Sequence[Line],
    columns: Sequence[Column],
    gaps: Mapping[_Place, Mapping[Pair, float]],
    own: Mapping[str, float],
) -> dict[_Place, Contrast]:
    """Test every difference; a family is one metric under one budget."""
    margins = {column.metric: margin_of(column.metric, column.measure, own) for column in columns}
    ways = {column.metric: _direction(column) for column in columns}
    floors = {column.metric: floor_of(lines, column.metric) for column in columns}
    tested = [place for place in gaps if not place[1].startswith("cost.")]
    names = [name for _, name in tested]
    made = contrasts(
        [gaps[place] for place in tested],
        [margins[name] for name in names],
        [ways[name] for name in names],
    )
    families: dict[tuple[str, object], list[tuple[_Place, Contrast]]] = {}
    for (row, name), one in zip(tested, made, strict=True):
        if one is None:
            continue
        line = lines[row]
        key = (name, line.policy if line.policy in NOT_TESTED else line.budget_tokens)
        families.setdefault(key, []).append(((row, name), replace(one, floor=floors[name])))
    return {
        place: one
        for family in families.values()
        for (place, _), one in zip(family, judged([member for _, member in family]), strict=True)
    }


def _direction(column: Column) -> int:
    return {True: 1, False: -1, None: 0}[column.measure.higher_is_better]


def floor_of(lines: Sequence[Line], metric: str) -> float:
    """Return how far apart `full_eps` and `full` are in one metric; NaN where one of them is missing."""
    found = {line.policy: line.values[metric] for line in lines if line.policy in traits.FULL}
    gaps = differences(found.get("full_eps", {}), found.get("full", {}))
    return float(np.quantile(np.abs([*gaps.values()]), FLOOR_SHARE)) if gaps else math.nan


def with_ranks(lines: Sequence[Line], columns: Sequence[Column]) -> list[Line]:
    """Mark best and second of each budget; the full cache and bland lines do not compete."""
    ranks: dict[_Place, int] = {}
    for tokens in {line.budget_tokens for line in lines if line.budget_tokens is not None}:
        rivals = [i for i, line in enumerate(lines) if line.budget_tokens == tokens and not line.is_bland]
        for column in columns:
            ranks |= {(i, column.metric): rank for i, rank in _ranks(lines, rivals, column).items()}
    return [
        replace(
            line,
            cells={
                name: replace(cell, is_best=ranks.get((i, name)) == 0, is_second=ranks.get((i, name)) == 1)
                for name, cell in line.cells.items()
            },
        )
        for i, line in enumerate(lines)
    ]


def _ranks(lines: Sequence[Line], rivals: Sequence[int], column: Column) -> dict[int, int]:
    """Return who is best (0) and second (1) in one column, among those with the most videos.

    Nobody is best without a rival and nobody second without a third. Costs are not ranked: without an
    interval a winner would be noise.
    """
    means = {i: cell.mean for i in rivals if (cell := lines[i].cells[column.metric]).mean is not None}
    most = max((mean.pairs for mean in means.values() if mean), default=0)
    equal = {i: mean.mean for i, mean in means.items() if mean and mean.pairs == most}
    unranked = column.measure.higher_is_better is None or column.metric.startswith("cost.")
    if len(equal) < 2 or unranked:
        return {}
    order = sorted(set(equal.values()), reverse=bool(column.measure.higher_is_better))
    shown = 2 if len(equal) > 2 and len(order) > 2 else 1
    return {i: order.index(mean) for i, mean in equal.items() if mean in order[:shown]}
