"""Drift: how every number of a frame changes over the video, and what goes wrong only over time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from ff_bench.errors import Unavailable
from ff_bench.metrics import likeness, repetition
from ff_bench.metrics.base import (
    WINDOW_SECONDS,
    Measure,
    Series,
    Value,
    Video,
    curve,
    last_frames,
    scored_from,
    unavailable,
    undefined,
    whole,
)
from ff_bench.metrics.curves import CURVES, EXTRAS, Curve, dino
from ff_bench.metrics.geometry import geometry_of
from ff_bench.metrics.world import revisit_series
from ff_bench.models.mini.recipe import is_mini

ENDS = 0.15
"""Share of the frames that make start and end of the contrast."""
QUALITIES = ("imaging_quality", "aesthetic_quality")
"""Curves whose change is also given without its sign."""
LEAST_LOOP = 0.3
"""Strength below which no period is told: 5 of 400 smooth pans that never repeat reach it, none 0.5."""
VISIBLE = 192 * (4 / 255) ** 2
"""Squared distance of thumbnails that differ by 4 grey levels everywhere."""
ALIKE = 2 * (1 - 0.99)
"""Squared distance of DINO features with a cosine of 0.99, as those of frames next to each other have."""
_TOO_SHORT = "the video is shorter than twice 5 s"
_NO_ENDS = "the first or the last 5 s hold no value"


def _of_curve(shown: Curve) -> Iterator[tuple[str, Measure]]:
    name, unit, digits = f"drift.{shown.name}", shown.unit, shown.digits
    yield name, Measure(unit, None, f"Change of the {shown.noun}.", f"Δ {shown.label}", digits)
    if shown.level:
        doc = f"{shown.noun[0].upper()}{shown.noun[1:]} over time."
        yield shown.level, Measure(unit, None, doc, shown.label, digits)
    doc = f"Distance of the {shown.noun} at start and end, 15 % each."
    yield f"{name}_contrast", Measure(unit, False, doc, f"|Δ| {shown.label}", digits)
    if shown.name in QUALITIES:
        doc = f"Change of the {shown.noun} without its sign."
        yield f"{name}_abs", Measure(unit, False, doc, f"|Δ 5 s| {shown.label}", digits)


class Drift:
    """Last minus first 5 s, start-end contrast and windows of every curve; stillness, loops, seams.

    Source: Δ of quality as in Rolling Forcing (arXiv:2509.25161) and Deep Forcing (arXiv:2512.05081);
    start-end contrast as in FramePack; coherence as in Vchitect/VBench#206; loops after VQeval's
    `loop_quality` and RIFLEx's NoRepeat score.
    Deviates: Δ is kept per video and with its sign; loops are found by another formula,
    `repetition.find_loop`.
    """

    name: ClassVar[str] = "drift"
    version: ClassVar[int] = 2
    needs_reference: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    signals: ClassVar[tuple[str, ...]] = ("frames/levels", "frames/difference", "frames/thumbnails")
    extras: ClassVar[tuple[str, ...]] = EXTRAS
    weights: ClassVar[tuple[str, ...]] = ()
    standing: ClassVar[str] = ""
    measures: ClassVar[Mapping[str, Measure]] = {
        **{name: measure for shown in CURVES for name, measure in _of_curve(shown)},
        "drift.motion_share": Measure("1", None, "Motion over the shorter side of the frame.", "motion", 4),
        "drift.revisit_psnr": Measure("dB", True, "Change of the revisit PSNR (mini only).", "Δ revisit"),
        "drift.frozen": Measure("1", False, "Share of frames that repeat the one before.", "frozen", 3),
        "drift.frozen_seconds": Measure("s", False, "Longest time without a change.", "longest freeze s", 2),
        "drift.loop": Measure("1", None, "How much thumbnails come back after a period.", "loop", 3),
        "drift.loop_seconds": Measure("s", None, "That period.", "loop s", 2),
        "drift.loop_dino": Measure(
            "1", None, "How much DINO features come back after a period.", "loop (DINO)", 3
        ),
        "drift.loop_seconds_dino": Measure("s", None, "That period.", "loop s (DINO)", 2),
        "drift.boundary_ratio": Measure(
            "1", None, "Frame difference where a chunk begins over that elsewhere.", "seams", 3
        ),
        "drift.coherence": Measure(
            "1", None, "Cosine (DINO) of frames 0.5 to 50 s apart, mean over gaps.", "coherence", 4
        ),
        "drift.coherence_longest": Measure("1", None, "The same at the longest gap.", "long coherence", 4),
    }

    def compute(self, video: Video, reference: Video | None) -> Iterator[Value]:
        """Yield every measure; see `measures` and docs/metrics.md."""
        del reference
        for shown in CURVES:
            yield from _curve(video, shown)
        yield _revisits(video)
        yield from _stillness(video)
        yield from _loops(video)
        yield _seams(video)
        yield from _coherence(video)


def _curve(video: Video, shown: Curve) -> Iterator[Value]:
    try:
        series = shown.read(video)
    except Unavailable as error:
        for name, _ in _of_curve(shown):
            yield unavailable(name, video, str(error))
        if shown.name == "flow":
            yield unavailable("drift.motion_share", video, str(error))
        return
    if shown.level:
        yield whole(shown.level, video, series.mean(), f"no frame has a {shown.noun}")
        yield from curve(shown.level, video, series)
    change, reason = _change(video, series)
    yield whole(f"drift.{shown.name}", video, change, reason)
    if shown.name in QUALITIES:
        yield whole(f"drift.{shown.name}_abs", video, None if change is None else abs(change), reason)
    yield _contrast(f"drift.{shown.name}_contrast", video, series)
    if shown.name == "flow":
        mean = series.mean()
        share = None if mean is None else mean / min(video.footage.size)
        yield whole("drift.motion_share", video, share, "no pair of frames has a flow")


def _change(video: Video, series: Series, *, start: int = 0) -> tuple[float | None, str]:
    """Return the last minus the first 5 s from `start` on, or why there is no such number."""
    stop, last = start + round(WINDOW_SECONDS * video.fps), last_frames(video, WINDOW_SECONDS)
    if last < stop:
        return None, _TOO_SHORT
    first_mean, last_mean = series.mean(start, stop), series.mean(last)
    if first_mean is None or last_mean is None:
        return None, _NO_ENDS
    return last_mean - first_mean, ""


def _contrast(name: str, video: Video, series: Series) -> Value:
    """Compare the first and the last 15 % of the frames."""
    frames = max(1, round(ENDS * video.count))
    ends = series.mean(0, frames), series.mean(video.count - frames)
    if video.count < 2 or ends[0] is None or ends[1] is None:
        return undefined(name, video, "the first or the last 15 % of the frames hold no value")
    return whole(name, video, abs(ends[1] - ends[0]))


def _revisits(video: Video) -> Value:
    name = "drift.revisit_psnr"
    if not is_mini(video.model):
        reason = f"needs exact geometry, which model '{video.model}' does not have"
        return undefined(name, video, reason)
    revisits = revisit_series(video, geometry_of(video))
    return whole(name, video, *_change(video, revisits, start=scored_from(video)))


def _stillness(video: Video) -> Iterator[Value]:
    still = video.signal("frames/difference")["change"][1:] < repetition.STILL
    alone = "a single frame cannot stand still"
    share = float(still.mean()) if still.size else None
    seconds = repetition.longest_run(still) / video.fps if still.size else None
    yield whole("drift.frozen", video, share, alone)
    yield whole("drift.frozen_seconds", video, seconds, alone)


def _loops(video: Video) -> Iterator[Value]:
    yield from _loop(video, video.signal("frames/thumbnails")["colours"], "", VISIBLE)
    try:
        features = likeness.unit(dino(video))
    except Unavailable as error:
        for name in ("drift.loop_dino", "drift.loop_seconds_dino"):
            yield unavailable(name, video, str(error))
        return
    yield from _loop(video, features, "_dino", ALIKE)


def _loop(video: Video, features: np.ndarray, suffix: str, floor: float) -> Iterator[Value]:
    """Yield strength and period of the clearest repetition."""
    strength, seconds = f"drift.loop{suffix}", f"drift.loop_seconds{suffix}"
    least = max(2, round(repetition.LEAST_SECONDS * video.fps))
    if video.count // 2 < least:
        for name in (strength, seconds):
            yield undefined(name, video, f"the video is shorter than twice {repetition.LEAST_SECONDS:g} s")
        return
    found = repetition.find_loop(features, least=least, floor=floor)
    yield whole(strength, video, found.strength)
    period = found.period / video.fps if found.strength >= LEAST_LOOP else None
    yield whole(seconds, video, period, f"nothing comes back: the strength is below {LEAST_LOOP:g}")


def _seams(video: Video) -> Value:
    """Compare the change of frames that begin a chunk with that of all others, over the scored frames."""
    name = "drift.boundary_ratio"
    if not video.boundaries:
        return undefined(name, video, "it is not known where the chunks of this video begin")
    changes = video.signal("frames/difference")["change"]
    begins = np.isin(np.arange(len(changes)), video.boundaries)
    counts = np.arange(len(changes)) >= max(1, scored_from(video))  # the first frame has no change
    at_seams, elsewhere = changes[counts & begins], changes[counts & ~begins]
    if not at_seams.size or not elsewhere.size:
        return undefined(name, video, "no chunk begins within the scored frames, or every frame begins one")
    if elsewhere.mean() < 1e-6:
        return undefined(name, video, "nothing changes within chunks")
    return whole(name, video, float(at_seams.mean() / elsewhere.mean()))


def _coherence(video: Video) -> Iterator[Value]:
    """Yield the mean cosine over all pairs of frames at each gap; the gap is t1, its number the clip."""
    name, longest = "drift.coherence", "drift.coherence_longest"
    try:
        features = likeness.unit(dino(video))
    except Unavailable as error:
        yield unavailable(name, video, str(error))
        yield unavailable(longest, video, str(error))
        return
    frames = {gap: max(1, round(gap * video.fps)) for gap in likeness.GAPS}
    found = [
        Value(name, likeness.coherence(features, apart), number, 0.0, gap)
        for number, (gap, apart) in enumerate(frames.items())
        if apart < video.count
    ]
    cosines = [value.value for value in found if value.value is not None]
    reason = f"the video is not longer than the shortest gap, {likeness.GAPS[0]:g} s"
    yield whole(name, video, float(np.mean(cosines)) if cosines else None, reason)
    yield whole(longest, video, cosines[-1] if cosines else None, reason)
    yield from found
