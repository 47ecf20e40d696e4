"""The figure of the statistics of queries: over lags, over passes, by layer and by channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ff_bench.analysis.drift_text import PUBLISHED, curve
from ff_bench.analysis.stationarity import AFTER, BEFORE, FRECHET, LAG, PASS, W1
from ff_bench.report.style import GREY, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHADES = {BEFORE: "#009E73", AFTER: "#D55E00"}
_WIDTH, _HEIGHT = 6.8, 4.2


def draw(rows: pd.DataFrame, *, unit: str) -> Figure:
    """Draw the four panels; use inside `paper_style`.

    Args:
        rows: tidy rows.
        unit: of the lags.
    """
    figure = new_figure(_HEIGHT, _WIDTH)
    panels = figure.subplots(2, 2)
    _by_lag(panels[0, 0], rows, W1, unit)
    panels[0, 0].set_title("Wasserstein-1 of a channel, in its σ")
    for value, words in ((PUBLISHED[0][1][0], "paper, before"), (PUBLISHED[0][2][0], "paper, after")):
        panels[0, 0].axhline(value, color=GREY, linestyle=":", linewidth=0.9)
        panels[0, 0].annotate(
            words, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=5.5,
            color=GREY,
        )  # fmt: skip
    panels[0, 0].set_ylim(0, max(1.3, panels[0, 0].get_ylim()[1]))
    _by_lag(panels[0, 1], rows, FRECHET, unit)
    panels[0, 1].set_title("Fréchet distance over E‖q‖²")
    _by_pass(panels[1, 0], rows)
    _by_channel(panels[1, 1], rows)
    panels[0, 0].legend(loc="center right", bbox_to_anchor=(1, 0.7))
    return figure


def _by_lag(panel: Axes, rows: pd.DataFrame, quantity: str, unit: str) -> None:
    """Draw the mean over everything and, as a band, the least and the largest layer."""
    some = rows[(rows["quantity"] == quantity) & (rows["versus"] == LAG)]
    for rotation, shade in SHADES.items():
        own = some[some["rotation"] == rotation]
        if own.empty:
            continue
        layers = own.pivot_table(index="distance", columns="layer", values="value", aggfunc="mean")
        panel.fill_between(
            layers.index, layers.min(axis=1), layers.max(axis=1), color=shade, alpha=0.15, lw=0
        )
        means = own.groupby("distance")["value"].mean()
        panel.plot(means.index, means, color=shade, marker=".", label=f"{rotation} rotation")
    panel.set_xlabel(f"lag in {unit}s; band: least and largest layer")
    panel.set_ylim(bottom=0)


def _by_pass(panel: Axes, rows: pd.DataFrame) -> None:
    found = curve(rows, W1, PASS)
    panel.set_title("clean pass against a noisy pass of the same chunk, W1")
    panel.set_xlabel("noise level of the other pass")
    panel.set_ylim(bottom=0)
    for rotation, shade in SHADES.items():
        if rotation in found:
            own = found[rotation]
            top = max(panel.get_ylim()[1], 1.1 * float(own.max()))
            panel.plot(own.index, own, color=shade, marker=".", linestyle="-" if rotation == BEFORE else "--")
            panel.set_ylim(0, top)


def _by_channel(panel: Axes, rows: pd.DataFrame) -> None:
    """Draw every channel at the first lag, mean over layers and heads, in the order of the head."""
    some = rows[(rows["quantity"] == W1) & (rows["versus"] == LAG)]
    some = some[some["distance"] == some["distance"].min()]
    for rotation, shade in SHADES.items():
        own = some[some["rotation"] == rotation].groupby(["channel", "axis"])["value"].mean().reset_index()
        for axis, marker in (("time", "o"), ("row", "^"), ("column", "s")):
            part = own[own["axis"] == axis]
            panel.plot(
                part["channel"], part["value"], color=shade, marker=marker, markersize=2.2, linestyle=""
            )
    handles = [
        panel.plot(
            [], [], color=GREY, marker=marker, markersize=2.2, linestyle="", label=f"turned by {axis}"
        )[0]
        for axis, marker in (("time", "o"), ("row", "^"), ("column", "s"))
    ]
    panel.legend(handles=handles, loc="upper right")
    panel.set_title(f"W1 by channel at lag {some['distance'].min():g}")
    panel.set_xlabel("channel of a head")
    panel.set_ylim(bottom=0)
