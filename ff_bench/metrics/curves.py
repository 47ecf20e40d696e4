"""Curves over time: a number per frame from each signal that is there, for drift and its windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ff_bench.errors import Unavailable
from ff_bench.metrics import likeness, timeline
from ff_bench.metrics.base import Series, Video
from ff_bench.metrics.flicker import steadiness
from ff_bench.metrics.levels import LEVELS
from ff_bench.metrics.shelf import COMPAT, STRICT, Arrays, key
from ff_bench.metrics.vbench_long import similarities

FLOWS_A_SECOND = 8
"""Pairs of frames per second between which flow is measured, and the unit of time of `motion`."""
_BY_VBENCH = "signal {} was not measured; metrics=vbench_long measures it"
_BY_FULL_FLOW = (
    "the flow of all pairs was not measured, as the dynamic degree stops early; "
    "metrics=vbench_long with flow=all measures it"
)


@dataclass(frozen=True)
class Curve:
    """One number per frame.

    Attributes:
        name: Of its change, as in `drift.name`.
        label: Short title.
        noun: What it is, in a sentence.
        read: Returns the number at each frame; raises Unavailable where its signal is not there.
        level: Measure that has its mean and its windows; empty where another family has them.
        unit: As of `Measure`.
        digits: Decimals worth showing.
    """

    name: str
    label: str
    noun: str
    read: Callable[[Video], Series]
    level: str
    unit: str = "1"
    digits: int = 4


def seen(video: Video, name: str) -> Arrays:
    """Return a signal of clips as it is on the shelf: `strict` where that is there, else `compat`.

    Raises:
        Unavailable: Where it is in neither view, with the reason.
    """
    names = [key(view, name) for view in (STRICT, COMPAT)]
    for known in names:
        if video.shelf.has(known):
            return video.signal(known)
    obstacles = [video.shelf.obstacles[known] for known in names if known in video.shelf.obstacles]
    usual = _BY_FULL_FLOW if name == "flow" else _BY_VBENCH.format(name)
    raise Unavailable(obstacles[0] if obstacles else usual)


def dino(video: Video) -> np.ndarray:
    """Return the DINO features of every frame, (T, D).

    Raises:
        Unavailable: Where they were not measured.
    """
    found = seen(video, "dino")
    return timeline.rows(video, found["features"], found["features_counts"])


def _level(name: str) -> Callable[[Video], Series]:
    return lambda video: Series.of(video.signal("frames/levels")[name])


def _scores(name: str, scale: float) -> Callable[[Video], Series]:
    def read(video: Video) -> Series:
        found = seen(video, name)
        return timeline.series(video, found["scores"] / np.float64(scale), found["scores_counts"])

    return read


def _likeness(name: str) -> Callable[[Video], Series]:
    def read(video: Video) -> Series:
        found = seen(video, name)
        features = timeline.rows(video, found["features"], found["features_counts"])
        return Series.of(similarities(likeness.unit(features)), np.arange(video.count) > 0)

    return read


def _interpolation(video: Video) -> Series:
    """The error of each odd frame of a clip, as a share of 255."""
    found = seen(video, "interpolation")
    return timeline.series(video, found["errors"] / np.float64(255), found["errors_counts"], first=1, step=2)


def motion(video: Video) -> Series:
    """Return the mean of the largest 5 % of flow in px per 1/8 s, at the later frame of each pair."""
    found = seen(video, "flow")
    step = max(1, round(int(video.fps) / FLOWS_A_SECOND))
    scaled = found["motion"].astype(np.float64) * video.fps / (FLOWS_A_SECOND * step)
    flows = timeline.series(video, scaled, found["motion_counts"], first=step, step=step)
    known = timeline.series(video, found["known"], found["known_counts"], first=step, step=step)
    return flows.only(known.values > 0)


_LEVELS = {
    "gradient_energy": ("gradient", "gradient energy"),
    "contrast": ("contrast", "contrast"),
    "saturation": ("saturation", "saturation"),
    "brightness": ("brightness", "brightness"),
    "underexposed": ("dark", "share of values at or below 5 of 255"),
    "overexposed": ("bright", "share of values at or above 250 of 255"),
}
CURVES = (
    *(Curve(name, *_LEVELS.get(name, (name, name)), _level(name), f"drift.{name}_level") for name in LEVELS),
    Curve("temporal_flickering", "flicker", "temporal flickering score", steadiness, ""),
    Curve(
        "imaging_quality", "imaging", "imaging quality", _scores("musiq", 100), "drift.imaging_quality_level"
    ),
    Curve(
        "aesthetic_quality",
        "aesthetic",
        "aesthetic quality",
        _scores("aesthetic", 1),
        "drift.aesthetic_quality_level",
    ),
    Curve(
        "subject_similarity",
        "subject",
        "likeness to the frame before and the first frame (DINO)",
        _likeness("dino"),
        "drift.subject_similarity_level",
    ),
    Curve(
        "background_similarity",
        "background",
        "likeness to the frame before and the first frame (CLIP)",
        _likeness("clip_b32"),
        "drift.background_similarity_level",
    ),
    Curve(
        "interpolation_error",
        "interpolation",
        "error of frames interpolated from their neighbours",
        _interpolation,
        "drift.interpolation_error_level",
    ),
    Curve("flow", "flow", "mean of the largest 5 % of flow per 1/8 s", motion, "drift.motion", "px", 2),
)
"""Every curve of `drift`."""
EXTRAS = tuple(
    key(view, name)
    for name in ("musiq", "aesthetic", "dino", "clip_b32", "interpolation", "flow")
    for view in (STRICT, COMPAT)
)
"""Signals of networks that curves read where they are there."""
