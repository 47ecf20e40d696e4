"""Numbers of single frames of images in [0, 1]: detail, contrast, saturation, brightness, motion."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np


def gradient_energy(frames: np.ndarray) -> np.ndarray:
    """Return the mean absolute difference of horizontal plus that of vertical neighbours, per frame.

    Args:
        frames: RGB, (T, H, W, 3) uint8.
    """
    across, down = _gap(frames[:, :, 1:], frames[:, :, :-1]), _gap(frames[:, 1:], frames[:, :-1])
    energy: np.ndarray = across + down
    return energy


def contrast(frames: np.ndarray) -> np.ndarray:
    """Return the standard deviation over pixels, mean over channels, per frame."""
    pixels = frames.shape[1] * frames.shape[2]
    sums = np.einsum("thwc->tc", frames, dtype=np.int64) / pixels
    squares = np.einsum("thwc,thwc->tc", frames, frames, dtype=np.int64) / pixels
    level: np.ndarray = np.sqrt(np.maximum(squares - sums**2, 0)).mean(-1) / 255
    return level


def saturation(frames: np.ndarray) -> np.ndarray:
    """Return the mean over pixels of the largest minus the smallest channel, per frame."""
    red, green, blue = (frames[..., channel] for channel in range(3))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    level: np.ndarray = np.einsum("thw->t", spread, dtype=np.int64) / (255.0 * spread[0].size)
    return level


def brightness(frames: np.ndarray) -> np.ndarray:
    """Return the mean over pixels and channels, per frame."""
    level: np.ndarray = np.einsum("thwc->t", frames, dtype=np.int64) / (255.0 * frames[0].size)
    return level


def motion(frames: np.ndarray) -> np.ndarray:
    """Return the mean absolute difference of consecutive frames, (T - 1,)."""
    return _gap(frames[1:], frames[:-1])


def _gap(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mean absolute difference of two stacks of 8-bit images, per image, in [0, 1]."""
    difference = np.maximum(images, others) - np.minimum(images, others)
    total = np.einsum("thwc->t", difference, dtype=np.int64)
    gaps: np.ndarray = total / (255.0 * max(1, difference[:1].size))
    return gaps


LEVELS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "gradient_energy": gradient_energy,
    "contrast": contrast,
    "saturation": saturation,
    "brightness": brightness,
}
