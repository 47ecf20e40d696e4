"""Fidelity: how close a video is, frame by frame, to the full-cache video of the same prompt and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import ClassVar

import numpy as np
import torch

from ff_bench.errors import Unavailable
from ff_bench.footage import BLOCK, regroup
from ff_bench.metrics.base import (
    NO_REFERENCE,
    Measure,
    Series,
    Value,
    Video,
    curve,
    psnr,
    scored,
    unavailable,
    undefined,
    whole,
)
from ff_bench.metrics.networks.lpips import Lpips

Comparison = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Takes frames and as many others, (n, H, W, 3) uint8, and returns a number of each pair, (n,)."""
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
_STABILISERS = (0.01**2, 0.03**2)
_BLOCK_PIXELS = 1 << 22
_BLOCK = 128
"""Most frames compared at once; fewer where they have more pixels, which bounds the memory."""


class Fidelity:
    """PSNR, SSIM and LPIPS to the full cache, after the prefix, which both videos share.

    Two runs that differ by one bit drift apart, so that the mean is taken up to the end of the training
    window; beyond it the windows tell more.
    """

    name: ClassVar[str] = "fidelity"
    version: ClassVar[int] = 2
    needs_reference: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ()
    signals: ClassVar[tuple[str, ...]] = ()
    extras: ClassVar[tuple[str, ...]] = ()
    weights: ClassVar[tuple[str, ...]] = ("lpips_alexnet",)
    standing: ClassVar[str] = ""
    measures: ClassVar[Mapping[str, Measure]] = {
        "fidelity.psnr": Measure(
            "dB", True, "PSNR to the full-cache video, mean within the training window.", "PSNR to full"
        ),
        "fidelity.ssim": Measure(
            "1", True, "SSIM to the full-cache video, mean within the training window.", "SSIM to full", 3
        ),
        "fidelity.lpips": Measure(
            "1", False, "LPIPS to the full-cache video, mean within the training window.", "LPIPS to full", 3
        ),
        "fidelity.psnr_all": Measure("dB", True, "The same over all scored frames.", "PSNR to full, all"),
        "fidelity.ssim_all": Measure("1", True, "The same over all scored frames.", "SSIM to full, all", 3),
        "fidelity.lpips_all": Measure(
            "1", False, "The same over all scored frames.", "LPIPS to full, all", 3
        ),
    }

    def compute(self, video: Video, reference: Video | None) -> Iterator[Value]:
        """Yield each within the training window, over all scored frames, and per window of 5 s."""
        reason = _obstacle(video, reference)
        if reason or reference is None:
            for name in self.measures:
                yield undefined(name, video, reason)
            return
        found = _compare(video, reference)
        for name, outcome in found.items():
            if isinstance(outcome, str):
                yield unavailable(f"fidelity.{name}", video, outcome)
                yield unavailable(f"fidelity.{name}_all", video, outcome)
                continue
            series = Series.of(outcome, scored(video))
            yield from _shown(f"fidelity.{name}", video, series)


def _shown(name: str, video: Video, series: Series) -> Iterator[Value]:
    window = video.count if video.window_frames is None else video.window_frames
    nothing = "no frames after the prefix"
    outside = f"no scored frame lies within the training window of {window / video.fps:.1f} s"
    yield whole(name, video, series.mean(0, window), outside if series.valid.any() else nothing)
    yield whole(f"{name}_all", video, series.mean(), nothing)
    yield from curve(name, video, series)


def _obstacle(video: Video, reference: Video | None) -> str:
    """Say why there is nothing to compare; empty if there is."""
    if video.is_full_cache or (reference is not None and reference.id == video.id):
        return "this is the full-cache video that the others are compared with"
    if reference is None:
        return NO_REFERENCE
    if (reference.count, *reference.footage.size) != (video.count, *video.footage.size):
        return "the full-cache video has another size or length"
    return ""


def _compare(video: Video, reference: Video) -> dict[str, np.ndarray | str]:
    """Compare the scored frames of two videos block by block.

    Returns:
        For `psnr`, `ssim` and `lpips` the number of each frame, (T,) float64, or why there is none.
    """
    counts = scored(video)
    device = torch.device(video.device)
    comparisons: dict[str, Comparison] = {"psnr": frame_psnr, "ssim": partial(ssim, device=device)}
    found: dict[str, np.ndarray | str] = {}
    try:
        comparisons["lpips"] = partial(_lpips, Lpips(device), device)
    except Unavailable as error:
        found["lpips"] = str(error)
    values = {name: np.zeros(video.count) for name in comparisons}
    start = 0
    for block, other in _lockstep(video, reference):
        part = slice(start, start + len(block))
        start, chosen = part.stop, counts[part]
        if not chosen.any():
            continue
        frames, others = (images if chosen.all() else images[chosen] for images in (block, other))
        for name in list(comparisons):
            try:
                values[name][part][chosen] = comparisons[name](frames, others)
            except Unavailable as error:
                found[name] = str(error)
                del comparisons[name]
    return {name: found.get(name, values.get(name, "")) for name in ("psnr", "ssim", "lpips")}


def _lockstep(video: Video, reference: Video) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Read both videos side by side, each once."""
    return zip(*(regroup(each.footage.blocks(), BLOCK) for each in (video, reference)), strict=True)


def _lpips(network: Lpips, device: torch.device, frames: np.ndarray, others: np.ndarray) -> np.ndarray:
    images, references = (_images(each, device) for each in (frames, others))
    distances: np.ndarray = network.distance(images, references).double().cpu().numpy()
    return distances


def _images(frames: np.ndarray, device: torch.device) -> torch.Tensor:
    """Bring frames to the device, (T, H, W, 3) to (T, 3, H, W) uint8."""
    return torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2)


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


def ssim(frames: np.ndarray, others: np.ndarray, *, device: torch.device | None = None) -> np.ndarray:
    """Return the SSIM of each frame, mean over channels and over windows wholly inside, (T,) float64.

    Gaussian window of 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, population covariance, images in [0, 1].

    Args:
        frames: RGB, (T, H, W, 3) uint8, sides of at least 11.
        others: The same shape.
        device: Where to compute, by default the CPU.

    Raises:
        Unavailable: Where a side is shorter than the window.
    """
    height, width = frames.shape[1:3]
    if min(height, width) < SSIM_WINDOW:
        raise Unavailable(f"frames of {height}x{width} px are smaller than SSIM's window of {SSIM_WINDOW} px")
    where = device or torch.device("cpu")
    return np.concatenate([_ssim(frames[part], others[part], where) for part in _blocks(frames)])


def _ssim(frames: np.ndarray, others: np.ndarray, device: torch.device) -> np.ndarray:
    x, y = (_images(images, device).float() / 255 for images in (frames, others))
    moments = torch.cat([x, y, x * x, y * y, x * y], 1)  # (T, 5 C, H, W)
    mean_x, mean_y, square_x, square_y, product = _smooth(moments).chunk(5, 1)
    luminance, structure = _STABILISERS
    both = mean_x * mean_y
    means = mean_x**2 + mean_y**2
    numerator = (2 * both + luminance) * (2 * (product - both) + structure)
    denominator = (means + luminance) * (square_x + square_y - means + structure)
    return (numerator / denominator).double().mean((1, 2, 3)).cpu().numpy()


def _smooth(images: torch.Tensor) -> torch.Tensor:
    """Filter with the Gaussian window where it lies wholly inside: (T, C, H, W) -> (T, C, H - 10, W - 10)."""
    down, across = (_band(side).to(images.device) for side in images.shape[-2:])
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
