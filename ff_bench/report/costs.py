"""The figure of cost: wall seconds by part, and memory held."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from ff_bench.report.comparison import Table, name_text
from ff_bench.report.selection import short_budget, values_of
from ff_bench.report.style import new_figure
from ff_bench.report.tables import MIB

_PARTS = {"model": "#0072B2", "policy": "#D55E00", "decode": "#F0E442"}
_HELD = {"kv": "#0072B2", "state": "#D55E00", "transient": "#F0E442"}


def cost_bars(table: Table) -> Figure | None:
    """Draw wall seconds per second of video by part, and bytes held, as bars; None without cost rows."""
    spent, speed = _means(table, "cost.seconds"), _means(table, "cost.fps")
    lines = [place for place in range(len(table.lines)) if spent.get(place) and speed.get(place)]
    if not lines:
        return None
    figure = new_figure(1.1 + 0.27 * len(lines))
    upper, lower = figure.subplots(2, 1, sharey=True)
    places = np.arange(len(lines))[::-1]
    made = np.array([spent[place] * speed[place] for place in lines]) / float(str(table.key["fps"]))
    seconds = {part: _column(table, f"cost.{part}_seconds", lines) / made for part in _PARTS}
    held = {part: _column(table, f"cost.{part}_bytes", lines) / MIB for part in _HELD}
    drawn = (_stack(upper, places, seconds, _PARTS), _stack(lower, places, held, _HELD))
    shown = [table.lines[place] for place in lines]
    upper.set_yticks(places, [f"{name_text(line)} {short_budget(table, line)}" for line in shown])
    upper.set_xlabel("wall seconds per video second")
    lower.set_xlabel("most memory held (MiB)")
    for panel, bars, words in (
        (upper, drawn[0], list(_PARTS)),
        (lower, drawn[1], ["K and V", "state", "transient"]),
    ):
        panel.grid(axis="y", visible=False)
        panel.tick_params(axis="y", length=0)
        panel.legend(
            bars, words, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, handlelength=0.8, borderpad=0.1
        )
    return figure


def _stack(
    panel: Axes, places: np.ndarray, parts: Mapping[str, np.ndarray], colours: Mapping[str, str]
) -> list[BarContainer]:
    start = np.zeros(len(places))
    bars = []
    for name, widths in parts.items():
        bars.append(panel.barh(places, widths, left=start, height=0.68, color=colours[name], linewidth=0))
        start = start + widths
    return bars


def _means(table: Table, metric: str) -> dict[int, float]:
    """Return the plain mean of a metric over the videos of each line that has it."""
    return {place: float(np.mean([*of.values()])) for place, of in values_of(table, metric).items()}


def _column(table: Table, metric: str, lines: list[int]) -> np.ndarray:
    """Return the means of some lines; 0 where one has none."""
    means = _means(table, metric)
    return np.array([means.get(place, 0.0) for place in lines])
