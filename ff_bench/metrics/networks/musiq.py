"""MUSIQ trained on SPAQ: technical quality of single frames (imaging quality)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ff_bench.metrics.networks import checkpoints, noncommercial, pixels, vision
from ff_bench.metrics.signals import CLIPS

LONGER = 512
BATCH = 16
"""Frames in one pass: about 300 patches of 32x32 px each, 1.2 GB."""


class Musiq:
    """Quality score of each frame, 0 to 100.

    `pyiqa` is under the PolyForm Noncommercial License 1.0.0 and the S-Lab License 1.0 (no commercial use).
    It is no part of this package: the network is loaded from the installed `pyiqa`.

    Source: arXiv:2108.05997; VBench@45e79ec `vbench/imaging_quality.py` (arXiv:2311.17982), mode `longer`.
    Deviates: frames in batches; patches that only fill a scale up to its longest sequence are left out, as
    attention masks them anyway.
    """

    name: ClassVar[str] = "musiq"
    version: ClassVar[int] = 1
    weights: ClassVar[tuple[str, ...]] = ("musiq_spaq",)
    libraries: ClassVar[tuple[str, ...]] = ("pyiqa",)
    reads_prompt: ClassVar[bool] = False
    reads: ClassVar[str] = CLIPS

    def __init__(self, device: torch.device) -> None:
        """Load the network.

        Raises:
            Unavailable: where `pyiqa` or the weights are not on this machine.
        """
        self._network = _network(str(device), *checkpoints.located("musiq_spaq"))

    @torch.inference_mode()
    def measure(self, frames: Tensor, *, fps: float, prompt: str, lead: int = 0) -> dict[str, Tensor]:
        """Score each frame.

        Args:
            frames: RGB, (T, 3, H, W) uint8.
            fps: Not used.
            prompt: Not used.
            lead: Frames that belong to the block before and get no score.

        Returns:
            `scores`: (T - lead,) float32, 0 to 100 with trained weights.
        """
        return {"scores": pixels.batched(self._scores, frames[lead:], BATCH)}

    def _scores(self, frames: Tensor) -> Tensor:
        images = _shrunk(frames.to(torch.float32)) / 255.0
        patches = _patches()((images - 0.5) * 2, **self._network.data_preprocess_opts)
        real = patches[0, :, -1] > 0  # the same for all frames: they are of one size
        scores: Tensor = self._network(patches[:, real])
        return scores[:, 0]


def _shrunk(images: Tensor) -> Tensor:
    """Shrink images whose longer side is over 512 px; both sides are cut to whole pixels."""
    height, width = images.shape[-2:]
    scale = LONGER / max(height, width)
    if scale >= 1:
        return images
    return pixels.resize(images, (int(scale * height), int(scale * width)), mode="bilinear", antialias=False)


def untrained() -> Any:
    """Build MUSIQ for one score without its weights.

    Raises:
        Unavailable: where `pyiqa` is not installed.
    """
    vision.library("torchvision")
    return noncommercial.module(noncommercial.MUSIQ, "pyiqa.archs.musiq_arch").MUSIQ(pretrained=False)


@lru_cache(maxsize=1)
def _patches() -> Any:
    """Return the function that cuts an image into patches of three scales, with their places and a mask."""
    module = noncommercial.module(noncommercial.MUSIQ, "pyiqa.data.multiscale_trans_util")
    return module.get_multiscale_patches


@lru_cache(maxsize=2)
def _network(device: str, file: Path, modified: int) -> Any:
    """Load MUSIQ once for each device and state of the file."""
    with torch.device("meta"):
        network = untrained()
    state = {name.removeprefix("module."): values for name, values in checkpoints.read(file).items()}
    checkpoints.fill(network, state, file=file, device=device)
    network.training = True  # of the outermost module alone: it then takes patches, and nothing is random
    return network
