"""Guards against winning by blandness: a grey, still video repeats itself perfectly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import torch

from ff_bench.metrics.base import (
    WINDOW_SECONDS,
    Measure,
    Value,
    Video,
    last_frames,
    scored_from,
    undefined,
    whole,
)
from ff_bench.metrics.geometry import truth_of
from ff_bench.metrics.levels import motion
from ff_bench.metrics.repetition import STILL
from ff_bench.models.mini.recipe import is_mini

BLAND = 0.8
"""A video is bland when its gradient energy or contrast falls below this share of what it should be."""
BLACK = 0.02
"""Mean of pixels and channels below which a frame is black."""
LEVEL = {"gradient": "gradient_energy", "contrast": "contrast", "saturation": "saturation"}
"""The level behind each ratio of last to first."""
_SHOWING_BLANDNESS = ("gradient", "contrast")
_NO_SIGNAL = "the frames that it is compared with are flat"


class Guards:
    """Detail, contrast, saturation and motion at the end, against the start, the full cache or the truth."""

    name: ClassVar[str] = "guards"
    version: ClassVar[int] = 2  # 2: a full cache that is bland itself is no measure of blandness
    needs_reference: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ()
    signals: ClassVar[tuple[str, ...]] = ("frames/levels", "frames/difference")
    extras: ClassVar[tuple[str, ...]] = ()
    weights: ClassVar[tuple[str, ...]] = ()
    standing: ClassVar[str] = ""
    measures: ClassVar[Mapping[str, Measure]] = {
        "guards.gradient_ratio": Measure(
            "1", None, "Gradient energy, last 5 s over the first part.", "gradient"
        ),
        "guards.contrast_ratio": Measure("1", None, "Contrast, last 5 s over the first part.", "contrast"),
        "guards.saturation_ratio": Measure(
            "1", None, "Saturation, last 5 s over the first part.", "saturation"
        ),
        "guards.motion_ratio": Measure("1", None, "Frame difference over that of the true render.", "motion"),
        "guards.black": Measure("1", False, "Share of frames that are nearly black.", "black"),
        "guards.still": Measure("1", False, "Share of frames that repeat the one before.", "still"),
        "guards.bland": Measure(
            "1", False, "1 if gradient energy or contrast fell below 0.8 of what it should be.", "bland"
        ),
    }

    def compute(self, video: Video, reference: Video | None) -> Iterator[Value]:
        """Yield every measure; `bland` compares with a sound full cache if there, else the start."""
        last = last_frames(video, WINDOW_SECONDS)
        first = scored_from(video)
        if not is_mini(video.model):  # a start of one picture is too little to compare with
            first = max(first, round(WINDOW_SECONDS * video.fps))
        levels = video.signal("frames/levels")
        ratios = _ratios(video, first, last)
        for short, ratio in ratios.items():
            name = f"guards.{short}_ratio"
            if last < first:
                yield undefined(name, video, "the first part and the last 5 s overlap")
            else:
                yield whole(name, video, ratio, _NO_SIGNAL)
        yield _motion(video)
        yield whole("guards.black", video, float((levels["brightness"] < BLACK).mean()))
        still = video.signal("frames/difference")["change"][1:] < STILL
        share = float(still.mean()) if still.size else None
        yield whole("guards.still", video, share, "a single frame cannot stand still")
        yield _bland(video, reference, ratios, first=first, last=last)


def _motion(video: Video) -> Value:
    name = "guards.motion_ratio"
    if not is_mini(video.model):
        return undefined(name, video, f"needs the true render, which model '{video.model}' does not have")
    start = max(1, scored_from(video))  # the first frame has no change
    truth = motion(torch.from_numpy(truth_of(video)).permute(0, 3, 1, 2)).numpy()
    ratio = _ratio(video.signal("frames/difference")["change"][start:], truth[start - 1 :])
    return whole(name, video, ratio, _NO_SIGNAL)


def _bland(
    video: Video, reference: Video | None, own: Mapping[str, float | None], *, first: int, last: int
) -> Value:
    ratios = _showing(own) if last >= first else []
    if reference is not None and reference.count == video.count:
        usual = _showing(_ratios(reference, first, last)) if last >= first else []
        if min(usual, default=1.0) >= BLAND:  # else it has faded itself
            levels, whole_levels = (shown.signal("frames/levels") for shown in (video, reference))
            ratios = _showing(
                {short: _ratio(levels[level][last:], whole_levels[level][last:])
                 for short, level in LEVEL.items()}
            )  # fmt: skip
    flag = float(min(ratios) < BLAND) if ratios else None
    return whole("guards.bland", video, flag, "no full-cache video, and too short to compare with its start")


def _showing(ratios: Mapping[str, float | None]) -> list[float]:
    """Return those ratios that show blandness, as far as they are known."""
    return [ratio for short in _SHOWING_BLANDNESS if (ratio := ratios[short]) is not None]


def _ratios(video: Video, first: int, last: int) -> dict[str, float | None]:
    levels = video.signal("frames/levels")
    return {short: _ratio(levels[level][last:], levels[level][:first]) for short, level in LEVEL.items()}


def _ratio(part: np.ndarray, base: np.ndarray) -> float | None:
    """Return the ratio of two means, or None without frames or signal."""
    if not part.size or not base.size or base.mean() < 1e-6:
        return None
    return float(part.mean() / base.mean())
