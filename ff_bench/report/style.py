"""How figures look: column width, one colour and marker per policy, files that are equal byte for byte."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ff_bench import files

WIDTH = 3.3
"""Inches: one column of a two-column paper."""
GREY = "#8a8a8a"
# Okabe and Ito's colours, told apart with any common colour blindness.
COLOURS = {
    "full": "#000000",
    "full_eps": "#56B4E9",
    "random": GREY,
    "sliding_window": "#D55E00",
    "attention_sink": "#E69F00",
    "streaming_llm": "#CC79A7",
    "h2o": "#0072B2",
    "future_forcing": "#009E73",
}
MARKERS = {
    "full": "", "full_eps": "", "random": "x", "sliding_window": "v", "attention_sink": "^",
    "streaming_llm": "D", "h2o": "o", "future_forcing": "s",
}  # fmt: skip
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1, 1, 1)), (0, (1, 1)), (0, (6, 1.5)))
_OTHERS = ("#882255", "#44AA99", "#999933", "#332288", "#AA4499", "#661100")
_OTHER_MARKERS = ("P", "*", "X", "<", ">", "h")
_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "text.parse_math": False,  # names of others may hold any sign
    "axes.labelsize": 7,
    "axes.titlesize": 7,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.2,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 0.8,
    "legend.labelspacing": 0.3,
    "pdf.fonttype": 42,
    "svg.hashsalt": "ff-bench",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Apply the settings of all figures within a block."""
    with matplotlib.rc_context(_SETTINGS):
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Make a figure that no window manager knows, sizes in inches; use inside `paper_style`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def colour(policy: str, among: Sequence[str] = ()) -> str:
    """Return a policy's colour: fixed for ours, by rank among the unknown ones of a figure else."""
    return COLOURS.get(policy) or _OTHERS[_rank(policy, among) % len(_OTHERS)]


def marker(policy: str, among: Sequence[str] = ()) -> str:
    """Return a policy's marker, chosen like its colour."""
    found = MARKERS.get(policy)
    return _OTHER_MARKERS[_rank(policy, among) % len(_OTHER_MARKERS)] if found is None else found


def look(
    policy: str, among: Sequence[str] = (), *, variant: int = 0, is_bound: bool = True
) -> dict[str, Any]:
    """Return how a line is drawn: colour, marker, dashes; variants of one policy have hollow markers.

    Args:
        policy: Its name.
        among: Policies of the figure.
        variant: Number of the line among those of one policy that differ in fields.
        is_bound: Whether a budget applies; what has none is dashed.
    """
    shade = colour(policy, among)
    return {
        "color": shade,
        "marker": marker(policy, among),
        "linestyle": _DASHES[variant % len(_DASHES)] if is_bound else "--",
        "markerfacecolor": "white" if variant else shade,
        "markeredgewidth": 0.8,
    }


def _rank(policy: str, among: Sequence[str]) -> int:
    unknown = sorted({name for name in among if name not in COLOURS} | {policy})
    return unknown.index(policy)


def legend_above(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Put one legend above all panels, in as many columns, up to three, as fit the figure."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg), type(canvas)
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    for columns in (3, 2, 1):
        legend = figure.legend(
            handles, labels, loc="outside upper left", ncols=columns, borderpad=0.1, borderaxespad=0.2
        )
        if columns == 1 or legend.get_window_extent(renderer).width <= figure.bbox.width:
            return
        legend.remove()


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG (300 dpi) and vector PDF, without dates, under temporary names first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    undated: dict[str, dict[str, Any]] = {
        ".png": {"Software": None},
        ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    }
    written = []
    for ending, metadata in undated.items():
        target = path.with_name(path.name + ending)
        with files.temporary(target) as part, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box stands for it
            figure.savefig(part, dpi=300, metadata=metadata)
        figure.set_layout_engine("none")  # both files show one layout, which is found once
        written.append(target)
    return written
