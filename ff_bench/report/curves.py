"""Scores over time of one video, small enough to stand below it; all videos of a group share one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ff_bench import metrics
from ff_bench.metrics.base import WHOLE, Measure
from ff_bench.report.comparison import Line, Table
from ff_bench.report.selection import rows_of
from ff_bench.report.statistics import Pair

CURVES = (
    ("world.revisit_psnr", "world.sprite_psnr", "world.truth_psnr"),
    ("fidelity.psnr",),
    (
        "vbench_long.strict.imaging_quality",
        "vbench_long.compat.imaging_quality",
        "drift.imaging_quality_level",
    ),
    ("drift.gradient_energy_level",),
)
"""Of each group, the first metric that the videos have over time."""
MOST = 3
"""Curves below one video."""
WIDTH, HEIGHT = 240, 36
"""Of the drawing, in its own units; it is stretched to the width of the video."""
_MARGIN = 0.06  # of the height, free above and below
_FLAT = 1e-9

Step = tuple[float, float, float]
"""Start and end in seconds, and the value between them."""


@dataclass(frozen=True)
class Curve:
    """One score of one video over time.

    Attributes:
        label: What it is, with its unit.
        path: Steps as an SVG path; the value holds over its window. Empty where there is none, as the full
            cache has no distance to itself.
        steps: The same as numbers.
        low: Value at the bottom.
        high: Value at the top.
        digits: Decimals worth showing.
    """

    label: str
    path: str
    steps: Sequence[Step]
    low: float
    high: float
    digits: int

    @property
    def scale(self) -> str:
        """The ends of the scale."""
        return f"{self.low:.{self.digits}f} to {self.high:.{self.digits}f}"


def curves(table: Table, lines: Sequence[Line], pair: Pair) -> list[list[Curve]]:
    """Return the curves of the videos of one prompt and seed, in the order of their lines.

    Args:
        table: The comparison.
        lines: Policies whose videos are seen side by side.
        pair: Prompt and seed.
    """
    rows = table.rows
    here = (rows["prompt_id"].astype(str) == pair[0]) & (rows["seed"] == pair[1])
    rows = rows[here & (rows["clip"] != WHOLE) & (rows["status"] == "ok")]
    there = set(rows["metric"])
    chosen = [next((name for name in names if name in there), None) for names in CURVES]
    found: list[list[Curve]] = [[] for _ in lines]
    seconds = float(str(table.key["frames"])) / float(str(table.key["fps"]))
    for metric in [name for name in chosen if name][:MOST]:
        own = rows[rows["metric"] == metric]
        steps = [_steps(rows_of(own, line)) for line in lines]
        if not any(steps):
            continue
        measure = metrics.measure(metric)
        for own_curves, curve in zip(found, _on_one_scale(steps, measure, metric, seconds), strict=True):
            own_curves.append(curve)
    return found


def _steps(rows: pd.DataFrame) -> list[Step]:
    """Return windows in order; where two overlap, the later one begins at the end of the earlier."""
    rows = rows.sort_values(["t0", "clip"])
    steps: list[Step] = []
    for start, end, value in zip(rows["t0"], rows["t1"], rows["value"], strict=True):
        begin = max(float(start), steps[-1][1]) if steps else float(start)
        if end > begin:
            steps.append((round(begin, 3), round(float(end), 3), float(f"{float(value):.6g}")))
    return steps


def _on_one_scale(
    steps: Sequence[Sequence[Step]], measure: Measure | None, metric: str, seconds: float
) -> list[Curve]:
    values = [value for own in steps for _, _, value in own]
    low, high = min(values), max(values)
    label = (measure.label or metric) if measure else metric
    label += "" if measure is None or measure.unit == "1" else f" ({measure.unit})"
    digits = _digits(high - low, measure.digits if measure else 2)
    return [Curve(label, _path(own, low, high, seconds), own, low, high, digits) for own in steps]


def _digits(width: float, least: int) -> int:
    """Return how many decimals tell the ends of a scale apart."""
    return next((digits for digits in range(least, 6) if width >= 10.0 ** (1 - digits)), 6)


def _path(steps: Sequence[Step], low: float, high: float, seconds: float) -> str:
    """Draw steps; a gap between two windows stays a gap."""
    parts = []
    last = None
    for start, end, value in steps:
        share = 0.5 if high - low < _FLAT else (value - low) / (high - low)
        y = HEIGHT * (1 - _MARGIN - (1 - 2 * _MARGIN) * share)
        touches = last is not None and start - last < 0.01 * seconds
        first = f"{'L' if touches else 'M'}{WIDTH * min(1, start / seconds):.1f} {y:.1f}"
        parts += [first, f"L{WIDTH * min(1, end / seconds):.1f} {y:.1f}"]
        last = end
    return "".join(parts)
