"""What a table of the report consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from ff_bench.metrics.base import Measure
from ff_bench.report.contrast import Contrast
from ff_bench.report.statistics import Interval, Pair

MAIN = "main"
"""Panel of the first table of a group of videos."""


@dataclass(frozen=True)
class Column:
    """One metric of a table."""

    metric: str
    measure: Measure


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        mean: The policy's own mean; None when no video has a value.
        paired: Difference to the baseline; None for the baseline itself and where nothing pairs.
        pairs: Number of (prompt, seed) pairs behind the mean.
        is_best: Best of the policies under the same budget.
        is_second: Second of them, where there is a third.
        is_baseline: What the others are compared with.
        has_baseline: Whether there is anything to compare with.
        reason: Why there is no mean.
        contrast: What the difference says; None where there is none, and for costs.
    """

    mean: Interval | None
    paired: Interval | None = None
    pairs: int = 0
    is_best: bool = False
    is_baseline: bool = False
    has_baseline: bool = False
    reason: str = ""
    is_second: bool = False
    contrast: Contrast | None = None


@dataclass(frozen=True)
class Line:
    """One policy under one budget."""

    policy: str
    fields: str
    label: str
    budget_tokens: int | None
    budget: str
    is_pinned: bool
    is_bland: bool
    prompts: int
    pairs: int
    cells: Mapping[str, Cell]
    values: Mapping[str, Mapping[Pair, float]] = field(repr=False, default_factory=dict)
    is_foreign: bool = False


@dataclass(frozen=True)
class Table:
    """What may be compared: one model, protocol, prompt list, length and kind of device."""

    title: str
    key: Mapping[str, object]
    baseline: str
    columns: Sequence[Column]
    lines: Sequence[Line]
    notes: Sequence[str]
    rows: pd.DataFrame = field(repr=False)
    panel: str = MAIN

    @property
    def is_main(self) -> bool:
        """Whether it is the first table of its videos, which brings figures and the videos themselves."""
        return self.panel == MAIN


def name_text(line: Line) -> str:
    """Return a line's label with its marks."""
    marks = (("†", line.is_pinned), ("‡", line.is_bland), ("§", line.is_foreign))
    return line.label + "".join(mark for mark, is_meant in marks if is_meant)
