"""AMT-S: how well the odd frames of a clip are predicted from their neighbours (motion smoothness)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ff_bench.errors import Unavailable
from ff_bench.metrics.networks import checkpoints, noncommercial
from ff_bench.metrics.signals import CLIPS

MULTIPLE = 16
SMALLEST = 128
"""Sides are padded to multiples of 16; below 128 px the coarsest level of correlations has a single cell."""
CORRELATIONS = 2**30
"""Bytes of the finest correlations of pairs that are predicted together, six of 480x832 px; AMT holds up to
four copies of them."""


class Interpolation:
    """Error of predicting each odd frame halfway between the even frames beside it.

    AMT's code and weights are CC BY-NC 4.0 (no commercial use). Neither is part of this package: the network
    is loaded from the wheel of `vbench`, which carries it, with weights that the user fetches.

    Source: arXiv:2304.09790; VBench@45e79ec `vbench/motion_smoothness.py` (arXiv:2311.17982) with a device
    that is a `torch.device`, so that frames are never shrunk to fit the memory of a graphics card.
    Deviates: pairs are predicted in batches; a clip of one or two frames has no error instead of failing.
    Deviates: frames of at most 112 px a side are refused, where VBench divides by zero in its coarsest level.
    """

    name: ClassVar[str] = "interpolation"
    version: ClassVar[int] = 1
    weights: ClassVar[tuple[str, ...]] = ("amt_s",)
    libraries: ClassVar[tuple[str, ...]] = ("vbench",)
    reads_prompt: ClassVar[bool] = False
    reads: ClassVar[str] = CLIPS

    def __init__(self, device: torch.device) -> None:
        """Load the network.

        Raises:
            Unavailable: where `vbench` or the weights are not on this machine.
        """
        self._network = _network(str(device), *checkpoints.located("amt_s"))

    def measure(self, frames: Tensor, *, fps: float, prompt: str, lead: int = 0) -> dict[str, Tensor]:
        """Predict the odd frames of a clip.

        Args:
            frames: RGB, (T, 3, H, W) uint8.
            fps: Not used: neighbours are frames whatever the rate.
            prompt: Not used.
            lead: Not used.

        Returns:
            `errors`: mean absolute difference of 8-bit values per odd frame that has two neighbours,
            ((T - 1) // 2,) float32, 0 to 255.

        Raises:
            Unavailable: where the frames are too small for the network.
        """
        even, odd = frames[0::2], frames[1::2]
        pairs = len(even) - 1
        if pairs < 1:
            return {"errors": torch.zeros(0)}
        step = max(1, CORRELATIONS // (4 * _cells(*frames.shape[-2:]) ** 2))
        parts = range(0, pairs, step)
        errors = [
            _errors(odd[start:end], self._between(even[start : end + 1]))
            for start, end in ((start, min(start + step, pairs)) for start in parts)
        ]
        return {"errors": torch.cat(errors)}

    @torch.inference_mode()
    def _between(self, frames: Tensor) -> Tensor:
        """Predict what lies between consecutive frames: (B + 1, 3, H, W) to (B, 3, H, W), both uint8."""
        height, width = frames.shape[-2:]
        across, down = -width % MULTIPLE, -height % MULTIPLE
        left, top = across // 2, down // 2
        borders = (left, across - left, top, down - top)
        inputs = functional.pad(frames.to(torch.float32) / 255.0, borders, mode="replicate")
        half = torch.full((len(frames) - 1, 1, 1, 1), 0.5, device=frames.device)
        images = self._network(inputs[:-1], inputs[1:], half, scale_factor=1.0, eval=True)["imgt_pred"]
        images = images[..., top : top + height, left : left + width]
        return _eight_bits(images)


def _eight_bits(images: Tensor) -> Tensor:
    """Cut images of [0, 1] to 8 bits: towards zero, not to the nearest, as VBench compares them."""
    return (images * 255.0).clamp(0, 255).to(torch.uint8)


def _errors(frames: Tensor, others: Tensor) -> Tensor:
    """Mean absolute difference per frame, from exact integer sums."""
    gaps = (frames.to(torch.int16) - others.to(torch.int16)).abs()
    return (gaps.flatten(1).sum(1, dtype=torch.int64).to(torch.float64) / gaps[0].numel()).to(torch.float32)


def _cells(height: int, width: int) -> int:
    """Return how many cells of 8x8 px a padded frame has.

    Raises:
        Unavailable: where a side is too short.
    """
    down, across = height + -height % MULTIPLE, width + -width % MULTIPLE
    if min(down, across) < SMALLEST:
        needs = f"which needs more than {SMALLEST - MULTIPLE} px a side"
        raise Unavailable(f"frames of {height}x{width} px are too small for AMT, {needs}")
    return down * across // 64


def untrained() -> Any:
    """Build AMT-S without its weights.

    Raises:
        Unavailable: where `vbench` is not installed.
    """
    return noncommercial.module(noncommercial.AMT, "vbench.third_party.amt.networks.AMT-S").Model(
        corr_radius=3, corr_lvls=4, num_flows=3
    )


class _Inert:
    """Stands for what the file holds beside tensors (notes on its training), so that no code of it runs."""

    def __init__(self, *values: object) -> None:
        pass

    def __setstate__(self, values: object) -> None:
        pass


def state(file: Path) -> checkpoints.State:
    """Read the tensors of AMT's kind of file.

    Raises:
        Unavailable: where the file cannot be read.
    """
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except checkpoints.UNREADABLE as error:
        raise checkpoints.unreadable(file, error) from error
    with torch.serialization.safe_globals([(_Inert, name) for name in foreign]):
        return checkpoints.read(file, "state_dict")


@lru_cache(maxsize=2)
def _network(device: str, file: Path, modified: int) -> Any:
    """Load AMT-S once for each device and state of the file."""
    network = untrained()
    checkpoints.fill(network, state(file), file=file, device=device)
    return network
