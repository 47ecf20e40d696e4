"""Kept-token age maps: which chunks of the past a policy still holds, from the traces."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ff_bench.report.comparison import Line, Table, name_text
from ff_bench.report.plots import budgets_of
from ff_bench.report.style import new_figure
from ff_bench.report.videos import Shown, common_pair, of_line

_LOOK: dict[str, Any] = {
    "origin": "lower",
    "cmap": "viridis",
    "interpolation": "nearest",
    "aspect": "auto",
}


def age_map(table: Table, shown: Mapping[str, Shown]) -> Figure | None:
    """Draw, for one video per policy at the smallest budget, the share kept of each past chunk.

    Args:
        table: The comparison.
        shown: Finished videos by id.

    Returns:
        The figure, or None when no trace holds shares.
    """
    budgets = budgets_of(table)
    if not budgets:
        return None
    lines = [line for line in table.lines if line.budget_tokens == budgets[0]]
    found = {line.label: of_line(table, line, shown) for line in lines}
    pair = common_pair(found.values())
    maps: list[tuple[Line, np.ndarray, int]] = []
    for line in lines:
        video = found[line.label].get(pair) if pair else None
        trace = video.trace() if video else []
        kept = kept_shares(trace)
        if kept is not None:
            maps.append((line, kept, sum(1 for chunk in trace if chunk.get("prefix"))))
    return _draw(maps) if maps else None


def kept_shares(trace: list[dict[str, Any]]) -> np.ndarray | None:
    """Return the share held after each chunk (row) of each source chunk (column); NaN above the diagonal."""
    kept = [chunk.get("kept") for chunk in trace]
    if not kept or any(not isinstance(held, dict | list) for held in kept):
        return None
    shares = np.full((len(kept), len(kept)), np.nan, dtype=np.float32)  # an hour of video: 80 MB
    for chunk, (row, held) in enumerate(zip(shares, kept, strict=True)):
        if isinstance(held, list):  # traces of earlier versions: a number for every chunk so far
            row[: len(held)] = held[: len(row)]
            continue
        assert isinstance(held, dict), held
        row[: chunk + 1] = 0
        for source, share in held.items():
            row[int(source)] = share
    return shares


def _draw(maps: list[tuple[Line, np.ndarray, int]]) -> Figure:
    columns = min(len(maps), 2 if len(maps) in (2, 4) else 3)
    rows = math.ceil(len(maps) / columns)
    figure = new_figure(0.75 + 1.05 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    image = None
    for panel, (line, kept, prefix) in zip(panels.flat, maps, strict=False):
        # What is held after chunk c is what chunk c + 1 attends to.
        extent = (0.5, len(kept) + 0.5, -0.5, len(kept) - 0.5)
        image = panel.imshow(kept.T, extent=extent, vmin=0, vmax=1, **_LOOK)
        panel.set_title(name_text(line).replace(" (", "\n("), fontsize=6.5)
        panel.grid(visible=False)
        if prefix:
            panel.axvline(prefix - 0.5, color="#D55E00", linewidth=0.7, linestyle=":")
    for panel in list(panels.flat)[len(maps) :]:
        panel.set_visible(False)
    for panel in panels.flat[max(0, len(maps) - columns) : len(maps)]:
        panel.tick_params(labelbottom=True)
    _label(panels)
    assert image is not None, "no maps"
    bar = figure.colorbar(image, ax=panels, location="top", shrink=0.75, aspect=32, pad=0.02)
    bar.set_label("share of the chunk's tokens still held", fontsize=6.5)
    bar.outline.set_linewidth(0.4)
    return figure


def _label(panels: np.ndarray) -> None:
    figure: Figure = panels.flat[0].figure
    figure.supxlabel("chunk being generated", fontsize=7)
    figure.supylabel("source chunk", fontsize=7)
    for panel in panels.flat:
        assert isinstance(panel, Axes), type(panel)
        panel.locator_params(nbins=4, integer=True)
