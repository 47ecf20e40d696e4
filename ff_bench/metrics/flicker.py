"""Temporal flickering, by VBench's formula on our decoded frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from ff_bench.metrics.base import Measure, Series, Value, Video, curve, whole
from ff_bench.metrics.levels import motion


class Flicker:
    """VBench's formula, without its filter for static videos: camera motion counts as flicker."""

    name: ClassVar[str] = "flicker"
    version: ClassVar[int] = 1
    needs_reference: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    measures: ClassVar[Mapping[str, Measure]] = {
        "flicker.temporal_flickering": Measure(
            "1", True, "(255 - mean absolute difference of consecutive frames) / 255.", "flicker", 4
        ),
    }

    def compute(self, video: Video, reference: Video | None) -> Iterator[Value]:
        """Yield the score of the whole video and of each window (a pair of frames counts where it ends)."""
        del reference
        name = "flicker.temporal_flickering"
        scores = np.concatenate([[0.0], 1 - motion(video.frames)])
        series = Series.of(scores, np.arange(len(scores)) > 0)
        yield whole(name, video, series.mean(), "a single frame cannot flicker")
        yield from curve(name, video, series)
