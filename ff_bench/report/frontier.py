"""Figures of quality against what it costs: the budget, the memory held, the speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ff_bench import metrics
from ff_bench.report.comparison import Line, Table
from ff_bench.report.selection import (
    axis_label,
    budgets_of,
    frames_in,
    legend_inches,
    look_of,
    names_of,
    quality_of,
    share_text,
    values_of,
)
from ff_bench.report.statistics import Interval, intervals
from ff_bench.report.style import legend_above, new_figure
from ff_bench.report.tables import MIB

HELD = ("cost.kv_bytes", "cost.state_bytes", "cost.transient_bytes")
"""What a policy holds beside the model: their sum is the memory of a point."""
_RESAMPLES = 2000
_Drawn = dict[str, object]
_Means = Mapping[int, Interval]


def _means(table: Table, metric: str) -> _Means:
    """Return mean and interval by the place of the line."""
    values = values_of(table, metric)
    found = intervals(list(values.values()), resamples=_RESAMPLES)
    return {place: one for place, one in zip(values, found, strict=True) if one is not None}


def against_budget(table: Table) -> Figure | None:
    """Draw quality, speed and memory against the budget; None with fewer than two budgets."""
    budgets = [budget for budget in budgets_of(table) if budget is not None]
    quality = quality_of(table)
    if len(budgets) < 2 or quality is None:
        return None
    means = {metric: _means(table, metric) for metric in (quality, "cost.fps", "cost.kv_bytes")}
    shown = [metric for metric, found in means.items() if found]
    figure = new_figure(0.75 + 0.85 * len(shown) + legend_inches(table))
    heights = [1.7, 1.0, 1.0][: len(shown)]
    panels = figure.subplots(
        len(shown), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    drawn: _Drawn = {}
    for panel, metric in zip(panels, shown, strict=True):
        for places in _by_policy(table.lines).values():
            _budget_line(panel, table, places, means[metric], metric=metric, drawn=drawn)
        panel.set_ylabel(axis_label(metric))
        if metric.startswith("cost."):
            panel.set_ylim(bottom=0)
    _budget_axis(panels[-1], table, budgets)
    legend_above(figure, list(drawn.values()), list(drawn))
    return figure


def _by_policy(lines: Sequence[Line]) -> Mapping[tuple[str, str], list[int]]:
    found: dict[tuple[str, str], list[int]] = {}
    for place, line in enumerate(lines):
        found.setdefault((line.policy, line.label), []).append(place)
    return found


def _budget_line(
    panel: Axes, table: Table, places: Sequence[int], means: _Means, *, metric: str, drawn: _Drawn
) -> None:
    scale = MIB if metric.endswith("_bytes") else 1
    points = [(table.lines[place], means[place]) for place in places if place in means]
    if not points:
        return
    first = points[0][0]
    shown, name = look_of(table, first), names_of(table)[first.label]
    if first.budget_tokens is None:
        drawn[name] = panel.axhline(points[0][1].mean / scale, color=shown["color"], linestyle="--")
        return
    frames = [frames_in(table, line.budget_tokens) for line, _ in points]
    middles = np.array([one.mean for _, one in points]) / scale
    gaps = np.stack([_gaps(one) for _, one in points], axis=1) / scale
    drawn[name] = panel.errorbar(
        frames, middles, yerr=gaps, capsize=1.5, elinewidth=0.7, capthick=0.7, **shown
    )


def _gaps(one: Interval) -> np.ndarray:
    """Return how far the ends of an interval are below and above its mean, (2,)."""
    low = one.mean if one.low is None else one.low
    high = one.mean if one.high is None else one.high
    return np.array([abs(one.mean - low), abs(high - one.mean)])


def _budget_axis(panel: Axes, table: Table, budgets: Sequence[int]) -> None:
    panel.set_xscale("log", base=2)
    frames = [frames_in(table, budget) for budget in budgets]
    panel.xaxis.set_major_locator(FixedLocator(frames))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xticks(frames, [f"{frame:g}\n{share_text(table, frame)}" for frame in frames])
    panel.set_xlim(frames[0] / 1.2, frames[-1] * 1.2)
    is_known = bool(share_text(table, 1))
    panel.set_xlabel("budget (latent frames; share of the video)" if is_known else "budget (tokens)")


def pareto(table: Table) -> Figure | None:
    """Draw quality against memory and against speed, a point per policy and budget, with the front of each.

    None where there is no quality with a direction, or no cost.
    """
    quality = quality_of(table)
    measure = metrics.measure(quality) if quality else None
    if quality is None or measure is None or measure.higher_is_better is None:
        return None
    heights = _means(table, quality)
    costs = {"memory held (MiB)": (memory_of(table), False), "frames per second": (_speeds(table), True)}
    shown = {words: (found, up) for words, (found, up) in costs.items() if len(found.keys() & heights) > 1}
    if not shown:
        return None
    figure = new_figure(2.0 + legend_inches(table))
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    drawn: _Drawn = {}
    for panel, (words, (widths, is_more_better)) in zip(panels, shown.items(), strict=True):
        points = {place: (widths[place], heights[place]) for place in heights if place in widths}
        _points(panel, table, points, drawn)
        best = front(
            {place: (cost, height.mean) for place, (cost, height) in points.items()},
            is_more_better=(is_more_better, measure.higher_is_better),
        )
        ends = [points[place] for place in best]
        (drawn["front"],) = panel.plot(
            [cost for cost, _ in ends],
            [height.mean for _, height in ends],
            color="#c4c4c4",
            linewidth=3.2,
            zorder=0,
            solid_capstyle="round",
        )
        panel.set_xlabel(words)
        _cost_axis(panel, [cost for cost, _ in points.values()])
    panels[0].set_ylabel(axis_label(quality))
    legend_above(figure, list(drawn.values()), list(drawn))
    return figure


def memory_of(table: Table) -> dict[int, float]:
    """Return what each line holds beside the model, in MiB: the mean over its videos."""
    parts = [values_of(table, metric) for metric in HELD]
    return {
        place: sum(float(np.mean([*part[place].values()])) for part in parts if place in part) / MIB
        for place in parts[0]
    }


def _speeds(table: Table) -> dict[int, float]:
    return {place: float(np.mean([*of.values()])) for place, of in values_of(table, "cost.fps").items()}


def front(points: Mapping[int, tuple[float, float]], *, is_more_better: tuple[bool, bool]) -> list[int]:
    """Return the points that no other one matches in both numbers and beats in one, from left to right."""
    signs = [1 if is_more else -1 for is_more in is_more_better]
    scaled = {place: (signs[0] * x, signs[1] * y) for place, (x, y) in points.items()}
    kept = [
        place
        for place, (x, y) in scaled.items()
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in scaled.values())
    ]
    return sorted(kept, key=lambda place: points[place])


def _points(panel: Axes, table: Table, points: Mapping[int, tuple[float, Interval]], drawn: _Drawn) -> None:
    """Draw one marker per line with the interval of its quality, one policy's joined by a thin line."""
    names = names_of(table)
    for group in _by_policy(table.lines).values():
        places = [place for place in group if place in points]
        if not places:
            continue
        line = table.lines[places[0]]
        shown = look_of(table, line)
        shown["marker"] = shown["marker"] or ("*" if line.policy == "full" else "+")
        size = 6 if shown["marker"] in "*+" else 3.6
        gaps = np.stack([_gaps(points[place][1]) for place in places], axis=1)
        drawn[names[line.label]] = panel.errorbar(
            [points[place][0] for place in places], [points[place][1].mean for place in places], yerr=gaps,
            markersize=size, linewidth=0.5, elinewidth=0.7, **shown,
        )  # fmt: skip


def _cost_axis(panel: Axes, costs: Sequence[float]) -> None:
    """Use a logarithmic axis, with plain numbers, where costs span more than a factor of three."""
    if min(costs) <= 0 or max(costs) < 3 * min(costs):
        panel.xaxis.set_major_locator(MaxNLocator(4))
        return
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
