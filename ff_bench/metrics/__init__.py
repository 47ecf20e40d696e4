"""The metrics, found by name in one table, then among installed entry points (group ``ff_bench.metrics``)."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points

from ff_bench.metrics.base import Measure, Metric, Value, Video

METRICS: Mapping[str, str] = {
    "world": "ff_bench.metrics.world:World",
    "guards": "ff_bench.metrics.guards:Guards",
    "flicker": "ff_bench.metrics.flicker:Flicker",
    "drift": "ff_bench.metrics.drift:Drift",
    "fidelity": "ff_bench.metrics.fidelity:Fidelity",
    "cost": "ff_bench.metrics.cost:Cost",
}

__all__ = ["METRICS", "Measure", "Metric", "Value", "Video", "load", "measure", "names"]


def names() -> tuple[str, ...]:
    """Return the families in table order, installed ones after ours."""
    installed = sorted(
        point.name for point in entry_points(group="ff_bench.metrics") if point.name not in METRICS
    )
    return (*METRICS, *installed)


def load(name: str) -> Metric:
    """Import and make one metric family.

    Raises:
        ValueError: When no family has this name.
    """
    target = METRICS.get(name)
    if target is None:
        points = [point for point in entry_points(group="ff_bench.metrics") if point.name == name]
        if not points:
            near = get_close_matches(name, names(), n=1)
            hint = f"; nearest is '{near[0]}'" if near else ""
            raise ValueError(f"metrics='{name}' is not one of {', '.join(names())}{hint}")
        target = points[0].value
    module, _, attribute = target.partition(":")
    metric: Metric = getattr(import_module(module), attribute)()
    return metric


def measure(name: str) -> Measure | None:
    """Return the description of ``family.measure``, or None when nobody here knows it."""
    family = name.partition(".")[0]
    return load(family).measures.get(name) if family in names() else None
