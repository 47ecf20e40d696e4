"""Small videos for tests of metrics, and how to score them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from ff_bench.footage import Held
from ff_bench.metrics import Video, load, prepare
from ff_bench.metrics.base import WHOLE, Value
from ff_bench.metrics.shelf import Shelf


def video_of(frames: np.ndarray, *, name: str = "h2o", video_id: str = "a", **fields: Any) -> Video:
    """Return a video of 16 frames per second of a model without geometry."""
    manifest = {"identity": {"policy": {"name": name}}}
    return replace(Video(video_id, "a prompt", 0, 16, 12, 0, Held(frames), [], manifest, "wan"), **fields)


def with_frames(video: Video, frames: np.ndarray) -> Video:
    """Return the same video with other frames and nothing measured on them."""
    return replace(video, footage=Held(frames), shelf=Shelf(None, ""))


def random_frames(count: int, *, seed: int = 0, side: int = 24) -> np.ndarray:
    """Return frames that have nothing to do with each other, each of them smooth."""
    generator = np.random.default_rng(seed)
    smooth = gaussian_filter(generator.normal(size=(count, side, side, 3)), (1, 2, 2, 0))
    return np.clip(128 + 300 * smooth, 0, 255).round().astype(np.uint8)


def values_of(name: str, video: Video, reference: Video | None = None) -> list[Value]:
    """Measure what a family needs, then compute it."""
    metric = load(name)
    for shown in (video, reference):
        if shown is not None:
            prepare(shown, [metric])
    return list(metric.compute(video, reference))


def whole_values(name: str, video: Video, reference: Video | None = None) -> dict[str, Value]:
    """Return the values of a family that cover the whole video, by name."""
    return {value.name: value for value in values_of(name, video, reference) if value.clip == WHOLE}
