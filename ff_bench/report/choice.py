"""Which prompts to look at first: where the headline metric is worst, middling and best, and spreads most."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ff_bench import traits
from ff_bench.report.comparison import Column, Line, Table
from ff_bench.report.selection import budgets_of, lines_at
from ff_bench.report.statistics import Pair
from ff_bench.report.videos import Shown, of_line


@dataclass(frozen=True)
class Group:
    """The videos of one prompt and seed under one budget, to be seen side by side.

    Attributes:
        budget: In tokens; None where no policy has one.
        told: The budget in words, empty without.
        pair: Prompt and seed.
        videos: One per policy.
    """

    budget: int | None
    told: str
    pair: Pair
    videos: Sequence[tuple[Line, Shown]]

    @property
    def name(self) -> str:
        """Prompt and seed."""
        return f"{self.pair[0]}, seed {self.pair[1]}"


def groups(table: Table, shown: Mapping[str, Shown]) -> list[Group]:
    """Collect what can be seen side by side: a group per budget, prompt and seed, where a file is there."""
    found = []
    for budget in budgets_of(table) or [None]:
        lines = lines_at(table, budget)
        told = next((line.budget for line in lines if budget and line.budget_tokens == budget), "")
        videos = [(line, of_line(table, line, shown)) for line in lines]
        for pair in sorted({pair for _, own in videos for pair in own}):
            chosen = [(line, own[pair]) for line, own in videos if pair in own]
            chosen = [(line, video) for line, video in chosen if video.is_foreign or video.viewing]
            if chosen:
                found.append(Group(budget, told, pair, chosen))
    return found


def headline(table: Table) -> Column | None:
    """Return the first column that says what is better and is no cost; None where there is none."""
    return next(
        (
            column
            for column in table.columns
            if column.measure.higher_is_better is not None and not column.metric.startswith("cost.")
        ),
        None,
    )


def standing(group: Group, column: Column) -> tuple[float, float] | None:
    """Return the mean over policies and the spread between them; None where no policy has a value.

    The full cache counts only where it is alone: it is what the others are measured by.
    """
    there = [
        (line, value)
        for line, _ in group.videos
        if (value := line.values[column.metric].get(group.pair)) is not None
    ]
    own = [value for line, value in there if line.policy not in traits.FULL] or [value for _, value in there]
    return (statistics.fmean(own), max(own) - min(own)) if own else None


def picks(found: Sequence[Group], column: Column | None) -> dict[str, dict[str, int]]:
    """Name the places in `found` of the prompts to look at first, by the budget in words.

    Returns:
        Of every budget: `worst`, `median` and `best` by the mean over policies, and `widest`, where policies
        differ most. Without a headline metric nothing.
    """
    if column is None:
        return {}
    chosen: dict[str, dict[str, int]] = {}
    for told in dict.fromkeys(group.told for group in found):
        numbers = {
            place: number
            for place, group in enumerate(found)
            if group.told == told and (number := standing(group, column)) is not None
        }
        if numbers:
            sign = 1 if column.measure.higher_is_better else -1
            order = sorted(numbers, key=lambda place: (sign * numbers[place][0], place))
            widest = max(numbers, key=lambda place: (numbers[place][1], -place))
            middle = order[(len(order) - 1) // 2]
            chosen[told] = {"worst": order[0], "median": middle, "best": order[-1], "widest": widest}
    return chosen
