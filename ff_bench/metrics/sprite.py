"""The sprite's identity: its look at each return against its first, aligned by its known position."""

from __future__ import annotations

import numpy as np
import torch

from ff_bench.metrics.base import Series, Video, psnr
from ff_bench.metrics.geometry import Geometry

SPRITE_AREA = 60
"""Interior pixels that must be in view for a frame to count."""
CROP_AREA = 40
"""Pixels of a crop that must be inside the sprite in both images."""
FIRST_FRAMES = 24
"""Frames of the first appearance that make the reference colour."""
REFERENCE_FRAMES = 12
"""Frames of the first appearance that make the reference crop: one chunk."""


def appearances(geometry: Geometry) -> tuple[np.ndarray, np.ndarray] | None:
    """Find the frames of the first appearance and of all later ones, both (T,) bool.

    An appearance ends when the sprite is wholly out of view. None when it is not seen twice.
    """
    area = geometry.interior.sum((1, 2))
    shown, clear = area > 0, area > SPRITE_AREA
    number = np.cumsum(shown & ~np.concatenate([[False], shown[:-1]]))
    seen = np.unique(number[clear])
    if len(seen) < 2:
        return None
    return clear & (number == seen[0]), clear & (number > seen[0])


def sprite_colour_drift(video: Video, geometry: Geometry) -> Series | None:
    """Return the RGB distance (colours in [0, 1]) of the sprite's mean colour to its first appearance.

    The first appearance is its first 24 clear frames. None when the sprite is not seen twice.
    """
    found = appearances(geometry)
    if found is None:
        return None
    first, later = found
    area = np.maximum(geometry.interior.sum((1, 2)), 1)
    total = np.einsum("thwc,thw->tc", video.frames, geometry.interior, dtype=np.float64)
    colour = total / area[:, None] / 255
    reference = colour[np.flatnonzero(first)[:FIRST_FRAMES]].mean(0)
    return Series(np.linalg.norm(colour - reference, axis=1), later)


def sprite_error(video: Video, geometry: Geometry) -> Series | None:
    """Return the PSNR of sprite-centred crops against the first appearance; None if it is not seen twice.

    Crops are sampled (bicubic) at the sprite's sub-pixel position. The reference is the mean over the
    first 12 clear frames of the first appearance, each pixel over the frames where it is inside.
    """
    found = appearances(geometry)
    if found is None:
        return None
    first, later = (np.flatnonzero(mask) for mask in found)
    reference, weight = _crops(video, geometry, first[:REFERENCE_FRAMES])
    total = weight.sum(0)
    mean = (reference * weight[..., None]).sum(0) / np.maximum(total, 1)[..., None]
    crops, inside = _crops(video, geometry, later)
    inside = inside & (total > 0)
    count = inside.sum((1, 2))
    squared = ((crops - mean) ** 2).mean(-1)
    values, valid = np.zeros(video.count), np.zeros(video.count, bool)
    values[later] = psnr((squared * inside).sum((1, 2)) / np.maximum(count, 1))
    valid[later] = count >= CROP_AREA
    return Series(values, valid)


def _crops(video: Video, geometry: Geometry, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sample sprite-centred crops: colours (N, S, S, 3) float32 in [0, 1], and inside, (N, S, S) bool."""
    side = int(np.ceil(geometry.radius)) + 1
    steps = torch.arange(-side, side + 1, dtype=torch.float32)
    centre = torch.from_numpy(np.asarray(geometry.centre[frames], np.float32))  # (N, 2)
    height, width = geometry.interior.shape[1:]
    x = (centre[:, 0, None, None] + steps) * 2 / (width - 1) - 1
    y = (centre[:, 1, None, None] + steps[:, None]) * 2 / (height - 1) - 1
    grid = torch.stack([x.expand(-1, len(steps), -1), y.expand(-1, -1, len(steps))], -1)
    images = torch.from_numpy(video.frames[frames]).permute(0, 3, 1, 2).float() / 255
    masks = torch.from_numpy(geometry.interior[frames]).float()[:, None]
    colours = torch.nn.functional.grid_sample(
        images, grid, mode="bicubic", padding_mode="border", align_corners=True
    )
    inside = torch.nn.functional.grid_sample(
        masks, grid, mode="bilinear", padding_mode="zeros", align_corners=True
    )
    return colours.permute(0, 2, 3, 1).numpy(), inside[:, 0].numpy() > 0.99
