"""Margins: the smallest difference of each metric that is worth a claim."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase

from ff_bench.errors import UsageError, out_of_range
from ff_bench.metrics.base import Measure

MARGINS: Mapping[str, float] = {
    "cost.*": math.nan,  # varies with the machine, not with prompts
    "world.memory": 0.03,  # about 0.5 dB between chance and the full cache
    "vbench_*.dynamic_degree": 0.05,
    "vbench_*.quality": 0.003,  # what two honest evaluations of the same videos differ by
    "vbench_*.semantic": 0.003,
    "vbench_*.total": 0.003,
    "vbench_*": 0.005,
    "flicker.*": 0.005,
    "drift.gradient_energy*": 0.002,
    "drift.temporal_flickering*": 0.005,
    "drift.imaging_quality*": 0.005,
    "drift.aesthetic_quality*": 0.005,
    "drift.loop*": 0.05,
    "drift.boundary_ratio": 0.05,
    "guards.*": 0.05,
}
"""By pattern of the metric's name, the first that fits counts; NaN: no statistics at all."""
UNITS: Mapping[str, float] = {"dB": 0.5, "1": 0.01, "s": 0.5, "px": 0.5}
"""By unit, where no pattern fits; a unit that is not here has none."""


def margin_of(metric: str, measure: Measure, own: Mapping[str, float] | None = None) -> float:
    """Return the margin of a metric in its unit; NaN where it has none.

    Args:
        metric: Full name.
        measure: What it means.
        own: The user's, by metric, pattern, unit or ``*``; they go first, and closest names first among them.
    """
    given = own or {}
    for name in sorted(given, key=lambda name: ("*" in name, -len(name))):
        fits = fnmatchcase(metric, name) and (name != "*" or not metric.startswith("cost."))
        if fits or (name == measure.unit and name != "1"):
            return given[name]
    for pattern, margin in MARGINS.items():
        if fnmatchcase(metric, pattern):
            return margin
    return UNITS.get(measure.unit, math.nan)


def parse(text: str) -> dict[str, float]:
    """Read margins as a user writes them: ``0.3``, or ``dB:0.3,vbench_long.compat.quality:0.002``.

    Raises:
        UsageError: Where a margin is no number above 0 or its name is empty.
    """
    found: dict[str, float] = {}
    for word in text.split(","):
        name, separator, number = word.strip().rpartition(":")
        if separator and not name:
            raise UsageError(f"margin={text} is not allowed: a name stands before each ':', as in dB:0.3")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise out_of_range("margin", text, "numbers above 0, such as 0.3 or dB:0.3,world.memory:0.02")
        found[name or "*"] = value
    return found
