"""The metrics, found by name in one table, then among installed entry points (group ``ff_bench.metrics``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from ff_bench.metrics.base import Measure, Metric, Value, Video

METRICS: Mapping[str, str] = {
    "world": "ff_bench.metrics.world:World",
    "guards": "ff_bench.metrics.guards:Guards",
    "flicker": "ff_bench.metrics.flicker:Flicker",
    "drift": "ff_bench.metrics.drift:Drift",
    "fidelity": "ff_bench.metrics.fidelity:Fidelity",
    "vbench_long": "ff_bench.metrics.vbench_long:VBenchLong",
    "vbench_reference": "ff_bench.metrics.reference:VBenchReference",
    "cost": "ff_bench.metrics.cost:Cost",
}

__all__ = ["METRICS", "Measure", "Metric", "Value", "Video", "load", "measure", "names", "prepare"]


def names() -> tuple[str, ...]:
    """Return the families in table order, installed ones after ours."""
    installed = sorted(
        point.name for point in entry_points(group="ff_bench.metrics") if point.name not in METRICS
    )
    return (*METRICS, *installed)


def load(name: str, settings: Mapping[str, Any] | None = None) -> Metric:
    """Import and make one metric family.

    Args:
        name: Of the family.
        settings: Its fields; what is not named has its default.

    Raises:
        ValueError: When no family has this name, or it refuses a setting.
    """
    metric: Metric = _kind(name)(**(settings or {}))
    return metric


@lru_cache(maxsize=64)
def _kind(name: str) -> Any:
    target = METRICS.get(name)
    if target is None:
        points = [point for point in entry_points(group="ff_bench.metrics") if point.name == name]
        if not points:
            near = get_close_matches(name, names(), n=1)
            hint = f"; nearest is '{near[0]}'" if near else ""
            raise ValueError(f"metrics='{name}' is not one of {', '.join(names())}{hint}")
        target = points[0].value
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def measure(name: str) -> Measure | None:
    """Return the description of ``family.measure``, or None when nobody here knows it."""
    family = name.partition(".")[0]
    is_known = family in METRICS or family in names()  # the table first: looking for entry points takes time
    return _kind(family).measures.get(name) if is_known else None


def prepare(video: Video, chosen: Sequence[Metric], *, device: str = "cpu") -> None:
    """Measure the signals that metrics read and the shelf of the video lacks, in one pass over its frames.

    Raises:
        ValueError: Where the frames are not what they should be.
    """
    wanted = dict.fromkeys(key for metric in chosen for key in metric.signals)
    missing = [key for key in wanted if not video.shelf.has(key)]
    if missing:
        from ff_bench.metrics import passes

        passes.measure(video.footage, missing, video.shelf, fps=video.fps, device=device)
