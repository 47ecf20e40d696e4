"""The numbers of tables, one line per policy, budget and metric, at full precision."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

from ff_bench.report.comparison import Column, Line, Table
from ff_bench.report.contrast import Contrast
from ff_bench.report.statistics import Interval

_CONTRAST = (
    "p", "p_holm", "effect", "win_rate", "verdict", "margin", "p_equivalent", "p_noninferior", "n_needed",
    "resolvable", "floor",
)  # fmt: skip


def to_frame(tables: Iterable[Table]) -> pd.DataFrame:
    """Return what summary.csv holds."""
    return pd.DataFrame(
        [_record(table, line, column) for table in tables for line in table.lines for column in table.columns]
    )


def _record(table: Table, line: Line, column: Column) -> dict[str, object]:
    cell = line.cells[column.metric]
    return {
        **table.key,
        "policy": line.policy,
        "label": line.label,
        "budget_tokens": line.budget_tokens,
        "metric": column.metric,
        "unit": column.measure.unit,
        "higher_is_better": column.measure.higher_is_better,
        **_ends("mean", cell.mean),
        "baseline": table.baseline,
        **_ends("difference", cell.paired),
        **_claims(cell.contrast),
        "pairs": cell.pairs,
        "paired": cell.paired.pairs if cell.paired else 0,
        "prompts": line.prompts,
        "best": cell.is_best,
        "second": cell.is_second,
        "bland": line.is_bland,
        "pinned": line.is_pinned,
        "reason": cell.reason,
    }


def _ends(name: str, interval: Interval | None) -> dict[str, float | None]:
    values = (None, None, None) if interval is None else (interval.mean, interval.low, interval.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _claims(contrast: Contrast | None) -> dict[str, object]:
    """Return the fields of a contrast; what does not exist is empty."""
    found = {name: None if contrast is None else getattr(contrast, name) for name in _CONTRAST}
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in found.items()
    }
