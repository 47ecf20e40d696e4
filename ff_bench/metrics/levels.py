"""Numbers of single frames of images in [0, 1]: detail, contrast, colour, brightness, exposure, change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from ff_bench.metrics.signals import FRAMES

DARK, BRIGHT = 5, 250
"""Values of 255 up to which, and from which, a colour channel is clipped."""
_PIECE = 1 << 20
"""Values looked at in one go, which bounds the memory of large frames."""


class Levels:
    """Levels of each frame; sums are of whole numbers, so that the device makes no difference."""

    name: ClassVar[str] = "levels"
    version: ClassVar[int] = 1
    weights: ClassVar[tuple[str, ...]] = ()
    libraries: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[str] = FRAMES
    reads_prompt: ClassVar[bool] = False

    def __init__(self, device: torch.device) -> None:
        """Load nothing."""

    def measure(self, frames: Tensor, *, fps: float, prompt: str, lead: int = 0) -> dict[str, Tensor]:
        """Return every level of `LEVELS`, each (T - lead,) float64.

        Args:
            frames: RGB, (T, 3, H, W) uint8.
            fps: Not used.
            prompt: Not used.
            lead: Frames at the start that were measured before.
        """
        pieces = _pieces(frames[lead:])
        return {name: torch.cat([level(piece) for piece in pieces]) for name, level in LEVELS.items()}


class Difference:
    """Mean absolute difference of each frame to the one before."""

    name: ClassVar[str] = "difference"
    version: ClassVar[int] = 1
    weights: ClassVar[tuple[str, ...]] = ()
    libraries: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[str] = FRAMES
    reads_prompt: ClassVar[bool] = False

    def __init__(self, device: torch.device) -> None:
        """Load nothing."""

    def measure(self, frames: Tensor, *, fps: float, prompt: str, lead: int = 0) -> dict[str, Tensor]:
        """Return {"change": (T - lead,) float64} in [0, 1]; a first frame without one before it has 0.

        Args:
            frames: RGB, (T, 3, H, W) uint8.
            fps: Not used.
            prompt: Not used.
            lead: Frames at the start that were measured before.
        """
        return {"change": motion(frames)[max(0, lead - 1) :] if lead else _after_nothing(motion(frames))}


def _after_nothing(changes: Tensor) -> Tensor:
    return torch.cat([changes.new_zeros(1), changes])


def gradient_energy(frames: Tensor) -> Tensor:
    """Return the mean absolute difference of horizontal plus that of vertical neighbours, per frame.

    Args:
        frames: RGB, (T, 3, H, W) uint8.
    """
    return _gap(frames[..., 1:], frames[..., :-1]) + _gap(frames[..., 1:, :], frames[..., :-1, :])


def contrast(frames: Tensor) -> Tensor:
    """Return the standard deviation over pixels, mean over channels, per frame."""
    pixels = frames.shape[-2] * frames.shape[-1]
    wide = frames.contiguous().int()
    means = wide.sum((-2, -1)).double() / pixels
    squares = (wide * wide).sum((-2, -1)).double() / pixels
    return (squares - means**2).clamp(min=0).sqrt().mean(-1) / 255


def saturation(frames: Tensor) -> Tensor:
    """Return the mean over pixels of the largest minus the smallest channel, per frame."""
    return _mean(frames.amax(1) - frames.amin(1))


def brightness(frames: Tensor) -> Tensor:
    """Return the mean over pixels and channels, per frame."""
    return _mean(frames)


def underexposed(frames: Tensor) -> Tensor:
    """Return the share of values at or below `DARK`, per frame."""
    return 255 * _mean(frames <= DARK)


def overexposed(frames: Tensor) -> Tensor:
    """Return the share of values at or above `BRIGHT`, per frame."""
    return 255 * _mean(frames >= BRIGHT)


def motion(frames: Tensor) -> Tensor:
    """Return the mean absolute difference of consecutive frames, (T - 1,) float64 in [0, 1]."""
    if len(frames) < 2:
        return torch.zeros(0, dtype=torch.float64, device=frames.device)
    pieces = _pieces(frames, overlap=1)
    return torch.cat([_gap(piece[1:], piece[:-1]) for piece in pieces])


def _gap(images: Tensor, others: Tensor) -> Tensor:
    """Mean absolute difference of two stacks of 8-bit images, per image, in [0, 1]; 0 without pixels."""
    return _mean(torch.maximum(images, others) - torch.minimum(images, others))


def _mean(values: Tensor) -> Tensor:
    """Mean over everything but the first axis, as a share of 255, (T,) float64."""
    flat = values.flatten(1)
    return flat.sum(1, dtype=torch.int64).double() / (255.0 * max(1, flat.shape[1]))


def _pieces(frames: Tensor, *, overlap: int = 0) -> list[Tensor]:
    """Cut frames so that no piece has many values; neighbours share `overlap` frames."""
    step = max(1, _PIECE // max(1, frames[:1].numel()))
    last = max(1, len(frames) - overlap)
    return [frames[start : start + step + overlap] for start in range(0, last, step)]


LEVELS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gradient_energy": gradient_energy,
    "contrast": contrast,
    "saturation": saturation,
    "brightness": brightness,
    "underexposed": underexposed,
    "overexposed": overexposed,
}
