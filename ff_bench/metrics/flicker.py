"""Temporal flickering, by VBench's formula on our decoded frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from ff_bench.metrics.base import Measure, Series, Value, Video, curve, whole


class Flicker:
    """VBench's formula, without its filter for static videos: camera motion counts as flicker."""

    name: ClassVar[str] = "flicker"
    version: ClassVar[int] = 1
    needs_reference: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    signals: ClassVar[tuple[str, ...]] = ("frames/difference",)
    extras: ClassVar[tuple[str, ...]] = ()
    weights: ClassVar[tuple[str, ...]] = ()
    standing: ClassVar[str] = ""
    measures: ClassVar[Mapping[str, Measure]] = {
        "flicker.temporal_flickering": Measure(
            "1", True, "(255 - mean absolute difference of consecutive frames) / 255.", "flicker", 4
        ),
    }

    def compute(self, video: Video, reference: Video | None) -> Iterator[Value]:
        """Yield the score of the whole video and of each window (a pair of frames counts where it ends)."""
        del reference
        name = "flicker.temporal_flickering"
        series = steadiness(video)
        yield whole(name, video, series.mean(), "a single frame cannot flicker")
        yield from curve(name, video, series)


def steadiness(video: Video) -> Series:
    """Return 1 - mean absolute difference of each frame to the one before; the first frame has none."""
    changes = video.signal("frames/difference")["change"]
    return Series.of(1 - changes, np.arange(len(changes)) > 0)
