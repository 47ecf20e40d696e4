"""Clips of 2 s, as VBench-Long cuts them, and the codec step that its clips go through."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

SECONDS = 2
"""Length of a clip (Source: Vchitect/VBench@45e79ec, `long_custom_input`)."""


def clip_frames(fps: float) -> int:
    """Return the frames of a clip: whole frames per second, rounded down, times 2.

    Raises:
        ValueError: Below one frame per second, where there are no clips.
    """
    if int(fps) < 1:
        raise ValueError(f"fps={fps:g} is below 1: there are no clips of 2 s")
    return int(fps) * SECONDS


def starts(count: int, fps: float) -> list[int]:
    """Return the first frame of each clip of a video of `count` frames.

    A rest shorter than a clip becomes a whole clip that reaches back into the one before; a video shorter
    than a clip is one clip.
    """
    length = clip_frames(fps)
    whole = [*range(0, count - length + 1, length)]
    if not whole:
        return [0]
    return [*whole, count - length] if count % length else whole


def cut(blocks: Iterator[np.ndarray], fps: float) -> Iterator[np.ndarray]:
    """Cut consecutive frames into the clips that `starts` names.

    Args:
        blocks: (n, H, W, 3) uint8, in order.
        fps: Frames per second.

    Yields:
        (clip frames, H, W, 3) uint8; at most two clips are held.
    """
    from ff_bench.footage import regroup

    length = clip_frames(fps)
    before: np.ndarray | None = None
    for clip in regroup(blocks, length):
        if len(clip) < length and before is not None:
            yield np.concatenate([before[len(clip) :], clip])
            return
        yield clip
        before = clip
