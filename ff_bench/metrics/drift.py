"""Drift: the last 5 s minus the first 5 s of every per-frame number, signed, and its curve over time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from ff_bench.metrics.base import (
    WINDOW_SECONDS,
    Measure,
    Series,
    Value,
    Video,
    curve,
    last_frames,
    scored_from,
    undefined,
    whole,
)
from ff_bench.metrics.geometry import geometry_of
from ff_bench.metrics.levels import LEVELS, motion
from ff_bench.metrics.world import revisit_series

_TOO_SHORT = "the video is shorter than twice 5 s"


class Drift:
    """Last minus first 5 s; for revisits the first 5 s after the prefix."""

    name: ClassVar[str] = "drift"
    version: ClassVar[int] = 1
    needs_reference: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    measures: ClassVar[Mapping[str, Measure]] = {
        "drift.gradient_energy": Measure("1", None, "Change of the gradient energy.", "Δ gradient", 4),
        "drift.contrast": Measure("1", None, "Change of the contrast.", "Δ contrast", 4),
        "drift.saturation": Measure("1", None, "Change of the saturation.", "Δ saturation", 4),
        "drift.brightness": Measure("1", None, "Change of the brightness.", "Δ brightness", 4),
        "drift.temporal_flickering": Measure(
            "1", None, "Change of the temporal flickering score.", "Δ flicker", 4
        ),
        "drift.revisit_psnr": Measure("dB", True, "Change of the revisit PSNR (mini only).", "Δ revisit"),
        "drift.gradient_energy_level": Measure("1", None, "Gradient energy over time.", "gradient energy", 4),
        "drift.contrast_level": Measure("1", None, "Contrast over time.", "contrast", 4),
        "drift.saturation_level": Measure("1", None, "Saturation over time.", "saturation", 4),
        "drift.brightness_level": Measure("1", None, "Brightness over time.", "brightness", 4),
    }

    def compute(self, video: Video, reference: Video | None) -> Iterator[Value]:
        """Yield the change of each series and the curves of the levels."""
        del reference
        step = round(WINDOW_SECONDS * video.fps)
        for level, measure in LEVELS.items():
            series = Series.of(measure(video.frames))
            yield whole(f"drift.{level}_level", video, series.mean())
            yield from curve(f"drift.{level}_level", video, series)
            yield _change(f"drift.{level}", video, series, step)
        flicker = np.concatenate([[0.0], 1 - motion(video.frames)])
        yield _change(
            "drift.temporal_flickering", video, Series.of(flicker, np.arange(len(flicker)) > 0), step
        )
        if video.model != "mini":
            reason = f"needs exact geometry, which model '{video.model}' does not have"
            yield undefined("drift.revisit_psnr", video, reason)
            return
        revisits = revisit_series(video, geometry_of(video))
        start = scored_from(video)
        yield _change("drift.revisit_psnr", video, revisits, start + step, start=start)


def _change(name: str, video: Video, series: Series, stop: int, *, start: int = 0) -> Value:
    last = last_frames(video, WINDOW_SECONDS)
    if last < stop:
        return undefined(name, video, _TOO_SHORT)
    first_mean, last_mean = series.mean(start, stop), series.mean(last)
    if first_mean is None or last_mean is None:
        return undefined(name, video, "the first or the last 5 s hold no value")
    return whole(name, video, last_mean - first_mean)
