"""Fidelity: how close a video is, frame by frame, to the full-cache video of the same prompt and seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch

from ff_bench.metrics.base import (
    NO_REFERENCE,
    Measure,
    Series,
    Value,
    Video,
    curve,
    psnr,
    scored,
    undefined,
    whole,
)

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
_STABILISERS = (0.01**2, 0.03**2)
_BLOCK_PIXELS = 1 << 22
_BLOCK = 128
"""Most frames compared at once; fewer where they have more pixels, which bounds the memory."""


class Fidelity:
    """PSNR and SSIM to the full cache, after the prefix, which both videos share."""

    name: ClassVar[str] = "fidelity"
    version: ClassVar[int] = 1
    needs_reference: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ()
    measures: ClassVar[Mapping[str, Measure]] = {
        "fidelity.psnr": Measure(
            "dB", True, "PSNR to the full-cache video, mean over frames.", "PSNR to full"
        ),
        "fidelity.ssim": Measure(
            "1", True, "SSIM to the full-cache video, mean over frames.", "SSIM to full", 3
        ),
    }

    def compute(self, video: Video, reference: Video | None) -> Iterator[Value]:
        """Yield both for the whole video and per window."""
        reason = _obstacle(video, reference)
        if reason or reference is None:
            for name in self.measures:
                yield undefined(name, video, reason)
            return
        valid = scored(video)
        for name, compare in (("fidelity.psnr", frame_psnr), ("fidelity.ssim", ssim)):
            values = np.zeros(len(valid))
            if valid.any():
                values[valid] = compare(video.frames[valid], reference.frames[valid])
            series = Series.of(values, valid)
            yield whole(name, video, series.mean(), "no frames after the prefix")
            yield from curve(name, video, series)


def _obstacle(video: Video, reference: Video | None) -> str:
    """Say why there is nothing to compare; empty if there is."""
    if video.is_full_cache or (reference is not None and reference.id == video.id):
        return "this is the full-cache video that the others are compared with"
    if reference is None:
        return NO_REFERENCE
    if reference.frames.shape != video.frames.shape:
        return "the full-cache video has another size or length"
    return ""


def frame_psnr(frames: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the PSNR of each frame in dB, capped, (T,) float64.

    Args:
        frames: RGB, (T, H, W, 3) uint8.
        others: The same shape.
    """
    squared = np.concatenate([_squared(frames[part], others[part]) for part in _blocks(frames)])
    return psnr(squared / (255.0**2 * frames[0].size))


def _squared(frames: np.ndarray, others: np.ndarray) -> np.ndarray:
    difference = frames.astype(np.int16) - others
    total: np.ndarray = np.einsum("thwc,thwc->t", difference, difference, dtype=np.int64)
    return total


def _blocks(frames: np.ndarray) -> list[slice]:
    count = max(1, min(_BLOCK, _BLOCK_PIXELS // (frames.shape[1] * frames.shape[2])))
    return [slice(start, start + count) for start in range(0, len(frames), count)]


def ssim(frames: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the SSIM of each frame, mean over channels and over windows wholly inside, (T,) float64.

    Gaussian window of 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, population covariance, images in [0, 1].

    Args:
        frames: RGB, (T, H, W, 3) uint8, sides of at least 11.
        others: The same shape.
    """
    return np.concatenate([_ssim(frames[part], others[part]) for part in _blocks(frames)])


def _ssim(frames: np.ndarray, others: np.ndarray) -> np.ndarray:
    x, y = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 for images in (frames, others))
    moments = torch.cat([x, y, x * x, y * y, x * y], 1)  # (T, 5 C, H, W)
    mean_x, mean_y, square_x, square_y, product = _smooth(moments).chunk(5, 1)
    luminance, structure = _STABILISERS
    both = mean_x * mean_y
    means = mean_x**2 + mean_y**2
    numerator = (2 * both + luminance) * (2 * (product - both) + structure)
    denominator = (means + luminance) * (square_x + square_y - means + structure)
    return (numerator / denominator).double().mean((1, 2, 3)).numpy()


def _smooth(images: torch.Tensor) -> torch.Tensor:
    """Filter with the Gaussian window where it lies wholly inside: (T, C, H, W) -> (T, C, H - 10, W - 10)."""
    down, across = (_band(side) for side in images.shape[-2:])
    return down @ (images @ across.T)


@lru_cache(maxsize=8)
def _band(side: int) -> torch.Tensor:
    """Return the window as a matrix, (side - 10, side): a product with it is the convolution, and faster."""
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float32) - SSIM_WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    rows = side - SSIM_WINDOW + 1
    matrix = torch.zeros(rows, side)
    for row in range(rows):
        matrix[row, row : row + SSIM_WINDOW] = weights / weights.sum()
    return matrix
