"""Figures over the time of the video: memory window by window, and drift."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ff_bench.report.comparison import Line, Table
from ff_bench.report.selection import (
    axis_label,
    budget_title,
    budgets_of,
    by_pair,
    legend_inches,
    lines_at,
    look_of,
    names_of,
    numbers_of,
    rows_of,
    values_of,
)
from ff_bench.report.statistics import intervals
from ff_bench.report.style import GREY, legend_above, new_figure

OVER_TIME = ("world.revisit_psnr", "world.sprite_psnr", "fidelity.psnr")
"""Metrics drawn over time, where they have windows."""
DRIFT = (
    "drift.imaging_quality_level", "drift.aesthetic_quality_level", "drift.saturation_level",
    "drift.contrast_level", "drift.gradient_energy_level",
)  # fmt: skip
"""Curves of the figures of drift, where they have windows."""
_RESAMPLES = 2000
_Drawn = dict[str, object]


def over_time(table: Table, metric: str) -> Figure | None:
    """Draw a metric per window with its 95 % band, a panel per budget; None when there are no windows."""
    rows = numbers_of(table, metric, is_whole=False)
    budgets = budgets_of(table) or [None]
    if rows.empty:
        return None
    figure = new_figure(0.3 + 1.35 * len(budgets) + legend_inches(table))
    panels = figure.subplots(len(budgets), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    drawn: _Drawn = {}
    for panel, budget in zip(panels, budgets, strict=True):
        _frame(panel, table, drawn)
        _chance(panel, table, metric, drawn)
        for line in lines_at(table, budget):
            _band(panel, table, line, rows, drawn)
        if budget is not None:
            panel.set_title(f"budget {budget_title(table, budget)}")
        panel.set_ylabel(axis_label(metric))
    panels[-1].set_xlabel("time in the video (s)")
    legend_above(figure, list(drawn.values()), list(drawn))
    return figure


def drift_over_time(table: Table, budget: int | None) -> Figure | None:
    """Draw how each curve of drift changes since the video's first window, a panel per curve.

    The change of every video is taken before the mean: scenes differ more from each other than they drift.
    """
    rows = {metric: numbers_of(table, metric, is_whole=False) for metric in DRIFT}
    shown = [metric for metric in DRIFT if len(rows[metric])]
    if not shown:
        return None
    figure = new_figure(0.45 + 0.95 * len(shown) + legend_inches(table))
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    drawn: _Drawn = {}
    for panel, metric in zip(panels, shown, strict=True):
        _frame(panel, table, drawn)
        panel.axhline(0, color=GREY, linewidth=0.6)
        changes = since_start(rows[metric])
        for line in lines_at(table, budget):
            _band(panel, table, line, changes, drawn)
        panel.set_ylabel(axis_label(metric, change=True))
    figure.align_ylabels(list(panels))
    if budget is not None:
        panels[0].set_title(f"budget {budget_title(table, budget)}")
    panels[-1].set_xlabel("time in the video (s)")
    legend_above(figure, list(drawn.values()), list(drawn))
    return figure


def since_start(rows: pd.DataFrame) -> pd.DataFrame:
    """Subtract from the windows of each video the number of its first one."""
    video = ["policy", "policy_fields", "budget_tokens", "prompt_id", "seed"]
    ordered = rows.sort_values("clip", kind="stable")
    first = ordered.groupby(video, dropna=False)["value"].transform("first")
    return ordered.assign(value=ordered["value"] - first)


def _frame(panel: Axes, table: Table, drawn: _Drawn) -> None:
    """Set the axis of time and shade the part before the budget applies.

    Dark where all videos are in it, light where some are.
    """
    panel.set_xlim(0, float(table.rows["t1"].max()))
    values = values_of(table, "cost.prefix_seconds")
    ends = [
        end for i, of in values.items() if table.lines[i].budget_tokens is not None for end in of.values()
    ]
    if not ends or max(ends) <= 0:
        return
    handle = panel.axvspan(0, min(ends), color="#efefef", linewidth=0, zorder=0)
    panel.axvspan(min(ends), max(ends), color="#f6f6f6", linewidth=0, zorder=0)
    panel.axvline(max(ends), color=GREY, linewidth=0.7, linestyle=":")
    drawn["prefix"] = handle


def _chance(panel: Axes, table: Table, metric: str, drawn: _Drawn) -> None:
    if metric != "world.revisit_psnr":
        return
    values = numbers_of(table, "world.chance_psnr", is_whole=True)["value"]
    if len(values):
        drawn["chance"] = panel.axhline(values.mean(), color=GREY, linewidth=0.9, linestyle=(0, (1, 1.5)))


def _band(panel: Axes, table: Table, line: Line, rows: pd.DataFrame, drawn: _Drawn) -> None:
    """Draw one line's mean per window and its interval."""
    parts: Sequence[pd.DataFrame] = [part for _, part in rows_of(rows, line).groupby("clip")]
    if not parts:
        return
    found = intervals([by_pair(part) for part in parts], resamples=_RESAMPLES)
    known = [one for one in found if one is not None]
    assert len(known) == len(parts), line.label
    times = [float((part["t0"].mean() + part["t1"].mean()) / 2) for part in parts]
    lows = [one.mean if one.low is None else one.low for one in known]
    highs = [one.mean if one.high is None else one.high for one in known]
    shown = look_of(table, line)
    (handle,) = panel.plot(times, [one.mean for one in known], **shown)
    panel.fill_between(times, lows, highs, color=shown["color"], alpha=0.18, linewidth=0)
    drawn[names_of(table)[line.label]] = handle
