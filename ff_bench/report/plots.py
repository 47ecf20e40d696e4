"""Figures of a comparison: drift over time, quality against budget, cost. All from the rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from ff_bench import metrics, traits
from ff_bench.metrics.base import WHOLE
from ff_bench.models.facts import find
from ff_bench.report.comparison import Line, Table, name_text
from ff_bench.report.statistics import Pair, bootstrap
from ff_bench.report.style import GREY, colour, legend_above, marker, new_figure
from ff_bench.report.tables import MIB

OVER_TIME = ("world.revisit_psnr", "world.sprite_psnr", "fidelity.psnr", "drift.gradient_energy_level")
"""Metrics drawn over time, where they have windows."""
AGAINST_BUDGET = ("world.memory", "world.revisit_psnr", "fidelity.psnr", "flicker.temporal_flickering")
"""The first of these that a table has is its quality against budget."""
_RESAMPLES = 2000
_PARTS = {"model": "#0072B2", "policy": "#D55E00", "decode": "#F0E442"}
_HELD = {"kv": "#0072B2", "state": "#D55E00", "transient": "#F0E442"}


def over_time(table: Table, metric: str) -> Figure | None:
    """Draw a metric per window with its 95 % band, a panel per budget; None when there are no windows."""
    rows = table.rows[
        (table.rows["metric"] == metric) & (table.rows["clip"] != WHOLE) & (table.rows["status"] == "ok")
    ]
    budgets = budgets_of(table) or [None]
    if rows.empty:
        return None
    figure = new_figure(0.5 + 1.35 * len(budgets))
    panels = figure.subplots(len(budgets), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    drawn: dict[str, object] = {}
    for panel, budget in zip(panels, budgets, strict=True):
        _shade_prefix(panel, table, drawn)
        _chance(panel, table, metric, drawn)
        for line in lines_at(table, budget):
            _band(panel, table, line, rows, drawn)
        if budget is not None:
            panel.set_title(f"budget {_frames_text(table, budget)}")
        panel.set_ylabel(_axis_label(metric))
        panel.set_xlim(0, float(table.rows["t1"].max()))
    panels[-1].set_xlabel("time in the video (s)")
    legend_above(figure, list(drawn.values()), list(drawn))
    return figure


def budgets_of(table: Table) -> list[int | None]:
    """Return the budgets of a table in ascending order, without the full cache.

    That of a released context rule counts only where no policy was given a budget.
    """
    bound = [line for line in table.lines if line.budget_tokens is not None]
    asked = [line for line in bound if line.policy != traits.NATIVE] or bound
    return [*sorted({line.budget_tokens for line in asked if line.budget_tokens is not None})]


def lines_at(table: Table, budget: int | None) -> list[Line]:
    """Return the lines under one budget, with those of the full cache and of the released context rule."""
    return [
        line
        for line in table.lines
        if line.budget_tokens in (None, budget) or line.policy == traits.NATIVE
    ]


def rows_of(rows: pd.DataFrame, line: Line) -> pd.DataFrame:
    """Return a line's rows."""
    tokens = rows["budget_tokens"]
    same = tokens.isna() if line.budget_tokens is None else tokens == line.budget_tokens
    return rows[(rows["policy"] == line.policy) & (rows["policy_fields"] == line.fields) & same]


def _band(panel: Axes, table: Table, line: Line, rows: pd.DataFrame, drawn: dict[str, object]) -> None:
    """Draw one line's mean per window and its interval."""
    times, means, lows, highs = [], [], [], []
    for _, part in rows_of(rows, line).groupby("clip"):
        interval = bootstrap(_by_pair(part), resamples=_RESAMPLES)
        assert interval is not None, line.label
        times.append(float((part["t0"].mean() + part["t1"].mean()) / 2))
        means.append(interval.mean)
        lows.append(interval.mean if interval.low is None else interval.low)
        highs.append(interval.mean if interval.high is None else interval.high)
    if not times:
        return
    policies = [other.policy for other in table.lines]
    shade = colour(line.policy, policies)
    style = "--" if line.budget_tokens is None else "-"
    (handle,) = panel.plot(
        times, means, style, color=shade, marker=marker(line.policy, policies), label=line.label
    )
    panel.fill_between(times, lows, highs, color=shade, alpha=0.18, linewidth=0)
    drawn[name_text(line)] = handle


def _by_pair(rows: pd.DataFrame) -> dict[Pair, float]:
    keys = zip(rows["prompt_id"].astype(str), rows["seed"].astype(int), strict=True)
    return dict(zip(keys, rows["value"].astype(float), strict=True))


def _shade_prefix(panel: Axes, table: Table, drawn: dict[str, object]) -> None:
    """Shade the part before the budget applies: dark where all videos are in it, light where some are."""
    chosen = table.rows[(table.rows["metric"] == "cost.prefix_seconds") & table.rows["budget_tokens"].notna()]
    ends = chosen["value"].astype(float)
    if ends.empty or ends.max() <= 0:
        return
    handle = panel.axvspan(0, ends.min(), color="#efefef", linewidth=0, zorder=0)
    panel.axvspan(ends.min(), ends.max(), color="#f6f6f6", linewidth=0, zorder=0)
    panel.axvline(ends.max(), color=GREY, linewidth=0.7, linestyle=":")
    drawn["prefix"] = handle


def _chance(panel: Axes, table: Table, metric: str, drawn: dict[str, object]) -> None:
    if metric != "world.revisit_psnr":
        return
    chosen = table.rows[(table.rows["metric"] == "world.chance_psnr") & (table.rows["clip"] == WHOLE)]
    values = chosen.loc[chosen["status"] == "ok", "value"].astype(float)
    if len(values):
        drawn["chance"] = panel.axhline(values.mean(), color=GREY, linewidth=0.9, linestyle=(0, (1, 1.5)))


def against_budget(table: Table) -> Figure | None:
    """Draw quality, speed and memory against the budget; None with fewer than two budgets."""
    budgets = budgets_of(table)
    present = set(table.rows.loc[(table.rows["clip"] == WHOLE) & (table.rows["status"] == "ok"), "metric"])
    quality = next((name for name in AGAINST_BUDGET if name in present), None)
    if len(budgets) < 2 or quality is None:
        return None
    shown = [quality, *(name for name in ("cost.fps", "cost.kv_bytes") if name in present)]
    figure = new_figure(1.1 + 0.85 * len(shown))
    heights = [1.7, 1.0, 1.0][: len(shown)]
    panels = figure.subplots(
        len(shown), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    drawn: dict[str, object] = {}
    for panel, metric in zip(panels, shown, strict=True):
        for group in _by_policy(table.lines).values():
            _budget_line(panel, table, group, metric, drawn)
        panel.set_ylabel(_axis_label(metric))
        if metric.startswith("cost."):
            panel.set_ylim(bottom=0)
    _budget_axis(panels[-1], table, [budget for budget in budgets if budget is not None])
    legend_above(figure, list(drawn.values()), list(drawn))
    return figure


def _by_policy(lines: Sequence[Line]) -> Mapping[tuple[str, str], list[Line]]:
    found: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        found.setdefault((line.policy, line.label), []).append(line)
    return found


def _budget_line(
    panel: Axes, table: Table, group: Sequence[Line], metric: str, drawn: dict[str, object]
) -> None:
    scale = MIB if metric.endswith("_bytes") else 1
    points = []
    for line in group:
        part = rows_of(table.rows, line)
        part = part[(part["metric"] == metric) & (part["clip"] == WHOLE) & (part["status"] == "ok")]
        interval = bootstrap(_by_pair(part), resamples=_RESAMPLES)
        if interval is not None:
            points.append((line.budget_tokens, interval))
    if not points:
        return
    policies = [other.policy for other in table.lines]
    shade = colour(group[0].policy, policies)
    if points[0][0] is None:
        drawn[name_text(group[0])] = panel.axhline(points[0][1].mean / scale, color=shade, linestyle="--")
        return
    frames = [_frames(table, tokens) for tokens, _ in points]
    means = np.array([interval.mean for _, interval in points]) / scale
    ends = [
        [interval.mean if end is None else end for end in (interval.low, interval.high)]
        for _, interval in points
    ]
    gaps = np.abs(np.array(ends).T / scale - means)
    look = marker(group[0].policy, policies)
    drawn[name_text(group[0])] = panel.errorbar(
        frames, means, yerr=gaps, color=shade, marker=look, capsize=1.5, elinewidth=0.7, capthick=0.7
    )


def _budget_axis(panel: Axes, table: Table, budgets: Sequence[int]) -> None:
    panel.set_xscale("log", base=2)
    frames = [_frames(table, budget) for budget in budgets]
    panel.xaxis.set_major_locator(FixedLocator(frames))
    panel.xaxis.set_minor_locator(NullLocator())
    labels = [f"{frame:g}\n{_share(table, frame)}" for frame in frames]
    panel.set_xticks(frames, labels)
    panel.set_xlim(frames[0] / 1.2, frames[-1] * 1.2)
    panel.set_xlabel("budget (latent frames; share of the video)" if _share(table, 1) else "budget (tokens)")


def cost_bars(table: Table) -> Figure | None:
    """Draw wall seconds per second of video by part, and bytes held, as bars; None without cost rows."""
    lines = [
        line for line in table.lines if _mean(table, line, "cost.seconds") and _mean(table, line, "cost.fps")
    ]
    if not lines:
        return None
    figure = new_figure(1.1 + 0.27 * len(lines))
    upper, lower = figure.subplots(2, 1, sharey=True)
    places = np.arange(len(lines))[::-1]
    made = [
        _mean(table, line, "cost.seconds") * _mean(table, line, "cost.fps") / float(str(table.key["fps"]))
        for line in lines
    ]
    seconds = {part: [_mean(table, line, f"cost.{part}_seconds") for line in lines] for part in _PARTS}
    spent = _stack(upper, places, {part: np.array(values) / made for part, values in seconds.items()}, _PARTS)
    held = {
        part: np.array([_mean(table, line, f"cost.{part}_bytes") / MIB for line in lines]) for part in _HELD
    }
    kept = _stack(lower, places, held, _HELD)
    upper.set_yticks(places, [f"{name_text(line)} {_short(table, line)}" for line in lines])
    upper.set_xlabel("wall seconds per video second")
    lower.set_xlabel("most memory held (MiB)")
    for panel, bars, words in (
        (upper, spent, list(_PARTS)),
        (lower, kept, ["K and V", "state", "transient"]),
    ):
        panel.grid(axis="y", visible=False)
        panel.tick_params(axis="y", length=0)
        panel.legend(
            bars, words, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, handlelength=0.8, borderpad=0.1
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


def _mean(table: Table, line: Line, metric: str) -> float:
    """Return the plain mean of a metric over a line's videos, 0 when none has it."""
    part = rows_of(table.rows, line)
    values = part.loc[
        (part["metric"] == metric) & (part["status"] == "ok") & (part["clip"] == WHOLE), "value"
    ]
    return float(values.mean()) if len(values) else 0.0


def _axis_label(metric: str) -> str:
    measure = metrics.measure(metric)
    assert measure is not None, metric
    unit = {"1": "", "bytes": "MiB", "fps": ""}.get(measure.unit, measure.unit)
    return f"{measure.label} ({unit})" if unit else measure.label


def _frames(table: Table, tokens: int | None) -> float:
    facts = find(str(table.key["model"]))
    return (tokens or 0) / (facts.frame_tokens if facts else 1)


def _share(table: Table, frames: float) -> str:
    facts = find(str(table.key["model"]))
    total = facts.whole_chunks(facts.needed_latents(int(str(table.key["frames"])))) if facts else 0
    return f"{100 * frames / total:.0f} %" if total else ""


def _frames_text(table: Table, tokens: int) -> str:
    frames = _frames(table, tokens)
    share = _share(table, frames)
    return f"{tokens} tokens = {frames:g} frames, {share} of video" if share else f"{tokens} tokens"


def _short(table: Table, line: Line) -> str:
    return "" if line.budget_tokens is None else f"{_frames(table, line.budget_tokens):g}f"


def figures(table: Table) -> dict[str, Figure]:
    """Draw every figure that the rows of a table allow, by name."""
    made = {f"time-{metric.replace('.', '-')}": over_time(table, metric) for metric in OVER_TIME}
    made |= {"budget": against_budget(table), "cost": cost_bars(table)}
    return {name: figure for name, figure in made.items() if figure is not None}
