"""LPIPS: how different two frames look, by the features of AlexNet."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ff_bench.errors import Unavailable
from ff_bench.metrics.networks import checkpoints, pixels, vision

SMALLEST = 31
"""Pixels a side below which the second pooling of AlexNet has nothing left."""
BATCH = 16


class Lpips:
    """Learned perceptual distance, version 0.1 over AlexNet.

    The linear weights come with the library `lpips` (BSD-2-Clause); the backbone is torchvision's AlexNet out
    of the folder of weights, so that nothing is downloaded.

    Source: arXiv:1801.03924; richzhang/PerceptualSimilarity, `LPIPS(net="alex", version="0.1")`.
    """

    weights: ClassVar[tuple[str, ...]] = ("lpips_alexnet",)

    def __init__(self, device: torch.device) -> None:
        """Load the network.

        Raises:
            Unavailable: where the library or the weights are not on this machine.
        """
        self._network = _network(str(device), *checkpoints.located("lpips_alexnet"))

    @torch.inference_mode()
    def distance(self, frames: Tensor, others: Tensor) -> Tensor:
        """Compare frames one to one.

        Args:
            frames: RGB, (T, 3, H, W) uint8, on the device.
            others: The same size and place.

        Returns:
            (T,) float32; 0 for equal frames, larger where they look more different.

        Raises:
            ValueError: where the sizes differ.
            Unavailable: where the frames are too small.
        """
        if frames.shape != others.shape:
            raise ValueError(f"frames of {tuple(frames.shape)} cannot be compared with {tuple(others.shape)}")
        height, width = frames.shape[-2:]
        if min(height, width) < SMALLEST:
            needs = f"which needs {SMALLEST} px a side"
            raise Unavailable(f"frames of {height}x{width} px are too small for LPIPS, {needs}")
        return pixels.batched(self._distance, torch.stack((frames, others), dim=1), BATCH)

    def _distance(self, couples: Tensor) -> Tensor:
        """(B, 2, 3, H, W) uint8 to (B,)."""
        images = couples.to(torch.float32) / 127.5 - 1.0
        distances: Tensor = self._network(images[:, 0], images[:, 1])
        return distances.flatten()


def distance(frames: Tensor, others: Tensor) -> Tensor:
    """Compare frames one to one on the device where they are: see `Lpips.distance`."""
    return Lpips(frames.device).distance(frames, others)


@lru_cache(maxsize=2)
def _network(device: str, file: Path, modified: int) -> Any:
    """Load LPIPS once for each device and state of the file."""
    library = vision.library("lpips")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        network = library.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
    backbone = checkpoints.read(file)
    for part in network.net.children():
        places = {f"features.{key}": key for key in part.state_dict()}
        state = {key: backbone[name] for name, key in places.items() if name in backbone}
        checkpoints.fill(part, state, file=file, device=device)
    return network.to(device).eval().requires_grad_(False)
