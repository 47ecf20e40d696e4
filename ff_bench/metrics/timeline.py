"""The timeline: which frame of the video each number of a clip belongs to."""

from __future__ import annotations

import numpy as np

from ff_bench.metrics import clips
from ff_bench.metrics.base import Series, Video


def places(
    video: Video, counts: np.ndarray, *, first: int = 0, step: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Find the frames of numbers measured clip by clip; where clips overlap, the earlier one speaks.

    Args:
        video: Whose clips they are.
        counts: How many numbers each clip gave, in order.
        first: Frame of a clip that its first number belongs to.
        step: Frames from one number to the next.

    Returns:
        Which of all numbers to use, and their frames, both (N,) int64 and rising.

    Raises:
        ValueError: Where these are not the clips of the video.
    """
    starts = clips.starts(video.count, video.fps)
    if len(starts) != len(counts):
        raise ValueError(f"{len(counts)} clips were measured of a video that has {len(starts)}")
    frames = [start + first + step * np.arange(count) for start, count in zip(starts, counts, strict=True)]
    ends = [0, *(start + clips.clip_frames(video.fps) for start in starts[:-1])]
    fresh = [own >= end for own, end in zip(frames, ends, strict=True)]
    if any(own.size and own[-1] >= video.count for own in frames):
        raise ValueError(f"more numbers were measured than fit {video.count} frames")
    return np.flatnonzero(np.concatenate(fresh)), np.concatenate(frames)[np.concatenate(fresh)]


def series(video: Video, values: np.ndarray, counts: np.ndarray, *, first: int = 0, step: int = 1) -> Series:
    """Lay one number per place on the frames; frames between places are absent. Arguments as of `places`."""
    chosen, frames = places(video, counts, first=first, step=step)
    laid, valid = np.zeros(video.count), np.zeros(video.count, bool)
    laid[frames], valid[frames] = values[chosen], True
    return Series(laid, valid)


def rows(video: Video, features: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the features of each frame, (T, D), of features measured clip by clip, (N, D).

    Raises:
        ValueError: Where a frame has none.
    """
    chosen, frames = places(video, counts)
    if len(frames) != video.count:
        raise ValueError(f"{len(frames)} frames of {video.count} have features")
    found: np.ndarray = features[chosen]
    return found
