"""The win-rate matrix: how often each policy is better than each other one, video by video."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ff_bench import metrics
from ff_bench.report.comparison import Table, name_text
from ff_bench.report.effect import win_rate
from ff_bench.report.selection import axis_label, budget_title, lines_at, quality_of, values_of
from ff_bench.report.statistics import blocks, differences
from ff_bench.report.style import new_figure

_REST, _CELL = 0.95, 0.24  # inches


def win_rates(table: Table, budget: int | None, metric: str) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Compare every two lines under a budget in one metric.

    Args:
        table: The comparison.
        budget: In tokens; lines of the full cache stand beside every budget.
        metric: One that has a better direction.

    Returns:
        Places of the lines; how often each (row) beats each other one (column) over the pairs that both have,
        ties half, every prompt with equal weight, (lines, lines), NaN where nothing pairs; the pairs.
    """
    measure = metrics.measure(metric)
    assert measure is not None and measure.higher_is_better is not None, metric
    way = np.array([1 if measure.higher_is_better else -1])
    values, under = values_of(table, metric), lines_at(table, budget)
    places = [place for place in values if table.lines[place] in under]
    rates = np.full((len(places), len(places)), np.nan)
    counts = np.zeros(rates.shape, int)
    for row, first in enumerate(places):
        for column, second in enumerate(places):
            gap = differences(values[first], values[second])
            for block in blocks([gap]) if row != column else ():
                rates[row, column] = win_rate(block.values, block.counts, way)[0]
                counts[row, column] = len(gap)
    return places, rates, counts


def win_matrix(table: Table, budget: int | None) -> Figure | None:
    """Draw the win rates of a table's quality; None with fewer than three policies or two pairs."""
    metric = quality_of(table)
    measure = metrics.measure(metric) if metric else None
    if metric is None or measure is None or measure.higher_is_better is None:
        return None
    places, rates, counts = win_rates(table, budget, metric)
    if len(places) < 3 or counts.max() < 2:
        return None
    figure = new_figure(_CELL * len(places) + _REST)
    panel = figure.subplots()
    image = panel.imshow(rates, cmap="PuOr", vmin=0, vmax=1, aspect="auto")
    names = [f"{name_text(table.lines[place])}  {number}" for number, place in enumerate(places, 1)]
    panel.set_xticks(range(len(names)), [str(number) for number in range(1, len(names) + 1)])
    panel.set_yticks(range(len(names)), names)
    panel.tick_params(length=0)
    panel.set_facecolor("#e8e8e8")  # a policy against itself
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    for (row, column), rate in np.ndenumerate(rates):
        shown = "" if np.isnan(rate) else f"{100 * rate:.0f}"
        ink = "white" if abs(rate - 0.5) > 0.32 else "black"
        panel.text(column, row, shown, ha="center", va="center", fontsize=6.5, color=ink)
    pairs = sorted({int(counts[row, column]) for row, column in np.ndindex(rates.shape) if row != column})
    told = "–".join(str(end) for end in sorted({pairs[0], pairs[-1]}))
    heads = [f"{axis_label(metric)}, n = {told} videos"]
    heads += [f"budget {budget_title(table, budget)}"] if budget is not None else []
    figure.suptitle("\n".join(heads), x=0.02, ha="left", fontsize=7)
    bar = figure.colorbar(image, ax=panel, location="bottom", aspect=40, shrink=0.7, pad=0.02)
    bar.set_label("row better than column (% of videos)", fontsize=6.5)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "25", "50", "75", "100"])
    bar.outline.set_linewidth(0.4)
    return figure
