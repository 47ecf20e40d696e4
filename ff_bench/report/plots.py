"""Every figure of a comparison, all from the rows alone."""

from __future__ import annotations

from matplotlib.figure import Figure

from ff_bench.report.comparison import Table
from ff_bench.report.costs import cost_bars
from ff_bench.report.frontier import against_budget, pareto
from ff_bench.report.matrix import win_matrix
from ff_bench.report.selection import budgets_of, lines_at, rows_of
from ff_bench.report.timeplots import OVER_TIME, drift_over_time, over_time

__all__ = [
    "against_budget", "budgets_of", "cost_bars", "drift_over_time", "figures", "lines_at", "over_time",
    "pareto", "rows_of", "win_matrix",
]  # fmt: skip


def figures(table: Table) -> dict[str, Figure]:
    """Draw every figure that the rows of a table allow, by name."""
    made = {f"time-{metric.replace('.', '-')}": over_time(table, metric) for metric in OVER_TIME}
    for budget in budgets_of(table) or [None]:
        ending = "" if budget is None else f"-b{budget}"
        made[f"drift{ending}"] = drift_over_time(table, budget)
        made[f"wins{ending}"] = win_matrix(table, budget)
    made |= {"budget": against_budget(table), "pareto": pareto(table), "cost": cost_bars(table)}
    return {name: figure for name, figure in made.items() if figure is not None}
