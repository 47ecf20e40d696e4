"""Small videos with exact pixels, made from whole numbers only, on which both codes are compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ff_bench.footage import Held

SEED = 0
"""Of textures here, and of random weights."""


@dataclass(frozen=True)
class Sample:
    """One video: a window that moves over a texture, and a square that crosses it.

    Attributes:
        name: What shows.
        frames: How many.
        step: Pixels per frame that the window moves down and right; the square moves as far the other way.
        prompt: Text of the video.
    """

    name: str
    frames: int
    step: int
    prompt: str


@dataclass(frozen=True)
class Group:
    """Videos of one size and rate, which VBench-Long scores together.

    Attributes:
        name: Of the group.
        size: Height and width in pixels.
        fps: Frames per second.
        samples: The videos.
        dimensions: What is compared on them.
    """

    name: str
    size: tuple[int, int]
    fps: float
    samples: tuple[Sample, ...]
    dimensions: tuple[str, ...]

    def footage(self, number: int) -> Held:
        """Make the frames of one of the videos."""
        return Held(frames(self.samples[number], self.size, seed=SEED + number))


_LONG = (
    "a slow tracking shot along a wall of painted tiles, each with its own pattern, seen in soft evening "
    "light, while a square of glass slides past, and then a long way further on a second one"
)
STILL = Sample("still, shorter than a clip", 6, 0, "nothing moves")
GROUPS = (
    Group(
        "wide", (240, 288), 5.5,
        (Sample("three clips, the last reaches back", 22, 3, _LONG), STILL),
        (
            "subject_consistency", "background_consistency", "temporal_flickering", "aesthetic_quality",
            "overall_consistency",
        ),
    ),
    Group(
        "long", (272, 520), 5.5,
        (Sample("two clips", 11, 7, "two boats, one red (the other blue), cross a lake"),),
        ("imaging_quality",),
    ),
    Group(
        "small", (132, 164), 16.0,
        (
            Sample("two clips, fast", 40, 5, "a texture that runs away"),
            Sample("still, shorter than a clip", 20, 0, "nothing moves"),
        ),
        ("temporal_flickering", "motion_smoothness", "dynamic_degree"),
    ),
)  # fmt: skip
"""Both rules for the end of a video, a rate that is no whole number, sides that must be padded or shrunk."""


def frames(sample: Sample, size: tuple[int, int], *, seed: int) -> np.ndarray:
    """Draw a video.

    Returns:
        RGB, (T, *size, 3) uint8; the same bytes on every machine.
    """
    height, width = size
    reach = sample.frames * sample.step
    ground = texture((height + reach, width + reach), seed=seed)
    side = height // 4
    square = texture((side, side), seed=seed + 1000)[::-1]
    video = np.empty((sample.frames, height, width, 3), np.uint8)
    for number in range(sample.frames):
        at = number * sample.step
        video[number] = ground[at : at + height, at : at + width]
        top, left = (height - side) // 2, (width - side - at) % (width - side)
        video[number, top : top + side, left : left + side] = square
    return video


def texture(size: tuple[int, int], *, seed: int) -> np.ndarray:
    """Draw a smooth colour texture with full contrast, (*size, 3) uint8."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[0] + 64, size[1] + 64, 3), dtype=np.int64)
    for width in (9, 17, 25):
        for axis in (0, 1):
            noise = _box(noise, width, axis)
    image = noise[: size[0], : size[1]]
    least, most = image.min(), image.max()
    scaled: np.ndarray = (image - least) * 255 // (most - least)
    return scaled.astype(np.uint8)


def _box(values: np.ndarray, width: int, axis: int) -> np.ndarray:
    """Sum over windows, in whole numbers."""
    total = np.cumsum(np.moveaxis(values, axis, 0), axis=0)
    summed: np.ndarray = np.moveaxis(total[width:] - total[:-width], 0, axis)
    return summed
