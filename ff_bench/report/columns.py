"""Which metrics a user wants as columns of the tables."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import pandas as pd

from ff_bench import metrics
from ff_bench.errors import UsageError, nearest
from ff_bench.metrics.base import WHOLE


def columns_of(rows: pd.DataFrame, asked: Sequence[str]) -> list[str]:
    """Return the metrics of whole videos that fit names or patterns, in the order asked.

    Args:
        rows: Of the report.
        asked: Names such as `world.memory`, patterns such as `vbench_long.compat.*`.

    Raises:
        UsageError: Where one fits no metric that the rows have.
    """
    has_value = (rows["clip"] == WHOLE) & (rows["metric"] != "error")
    known = [name for name in sorted(rows.loc[has_value, "metric"].unique()) if metrics.measure(name)]
    found: dict[str, None] = {}
    for word in asked:
        fitting = [name for name in known if fnmatchcase(name, word)]
        if not fitting:
            families = sorted({name.partition(".")[0] for name in known})
            near = nearest(word, known)
            hint = f"; did you mean '{near}'?" if near else ""
            raise UsageError(
                f"metrics={word} is not known: the rows have names or patterns of {', '.join(families)}{hint}"
            )
        found |= dict.fromkeys(fitting)
    return list(found)
