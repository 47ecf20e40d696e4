"""Pixels as networks want them: resized, cropped, normalised by the rules of torchvision's tensor transforms.

They are written out here because scores rest on three of their details: whether a resize sees 8-bit or float
pixels, whether it filters before it shrinks (`antialias`), and how sizes are rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Mean and standard deviation per channel of images in [0, 1]."""

BATCH = 32
"""Frames in one pass of a network: bounds memory whatever the length of a video."""


def shorter_side(images: Tensor, side: int) -> tuple[int, int]:
    """Return the height and width at which the shorter side is `side`; the longer is cut to whole pixels."""
    height, width = images.shape[-2:]
    if width <= height:
        return int(side * height / width), side
    return side, int(side * width / height)


def resize(images: Tensor, size: tuple[int, int], *, mode: str, antialias: bool) -> Tensor:
    """Resize as torchvision's `resize` does on tensors.

    Args:
        images: (T, C, H, W) uint8 or floating. 8-bit images come out clamped and rounded to the nearest (half
            to even); floating ones keep what a bicubic kernel puts outside their range.
        size: Height and width; images of this size are returned as they are.
        mode: `bilinear` or `bicubic`.
        antialias: Whether to filter while shrinking.

    Returns:
        (T, C, *size) of the same type.
    """
    if tuple(images.shape[-2:]) == size:
        return images
    scaled = images if images.dtype == torch.float32 else images.to(torch.float32)
    scaled = functional.interpolate(scaled, size=size, mode=mode, align_corners=False, antialias=antialias)
    if images.is_floating_point():
        return scaled.to(images.dtype)
    return scaled.clamp(0, 255).round().to(images.dtype)


def crop(images: Tensor, side: int) -> Tensor:
    """Cut the square in the middle; an odd rest is halved to the even neighbour, as Python rounds.

    Args:
        images: (T, C, H, W), both sides at least `side`.
        side: Pixels.
    """
    height, width = images.shape[-2:]
    top, left = round((height - side) / 2.0), round((width - side) / 2.0)
    return images[..., top : top + side, left : left + side]


def normalise(images: Tensor, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    """Scale images of the range 0 to 255 to [0, 1], subtract the mean, divide by the deviation; float32."""
    mean, deviation = (torch.tensor(values, device=images.device)[:, None, None] for values in statistics)
    return (images.to(torch.float32).div(255.0) - mean) / deviation


def batched(network: Callable[[Tensor], Tensor], frames: Tensor, size: int = BATCH) -> Tensor:
    """Apply a network that maps frames to rows, a few frames at a time.

    Args:
        network: Maps (B, C, H, W) to (B, ...).
        frames: (T, C, H, W).
        size: Frames in one pass.
    """
    return torch.cat([network(part) for part in _parts(frames, size)])


def _parts(frames: Tensor, size: int) -> Iterator[Tensor]:
    for start in range(0, len(frames), size):
        yield frames[start : start + size]
