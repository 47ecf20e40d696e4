"""Thumbnails: each frame as 8 x 8 mean colours, by which frames are found again without a network."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ff_bench.metrics.signals import FRAMES

SIDE = 8
"""Cells a side. Coarse: noise and the codec do not show in them, a camera that moves does."""
_PIECE = 1 << 23
"""Values pooled in one go, which bounds the memory of large frames."""


class Thumbnails:
    """Mean colours of each frame's cells; sums are of whole numbers, so that devices agree."""

    name: ClassVar[str] = "thumbnails"
    version: ClassVar[int] = 1
    weights: ClassVar[tuple[str, ...]] = ()
    libraries: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[str] = FRAMES
    reads_prompt: ClassVar[bool] = False

    def __init__(self, device: torch.device) -> None:
        """Load nothing."""

    def measure(self, frames: Tensor, *, fps: float, prompt: str, lead: int = 0) -> dict[str, Tensor]:
        """Return {"colours": (T - lead, 3 * 8 * 8) float32 in [0, 1]}.

        Args:
            frames: RGB, (T, 3, H, W) uint8; cells of sides that 8 does not divide overlap by a pixel.
            fps: Not used.
            prompt: Not used.
            lead: Frames at the start that were measured before.
        """
        rest = frames[lead:]
        step = max(1, _PIECE // max(1, rest[:1].numel()))
        pieces = [rest[start : start + step].float() for start in range(0, len(rest), step)]
        pooled = [functional.adaptive_avg_pool2d(piece, SIDE).flatten(1) for piece in pieces]
        return {"colours": torch.cat(pooled) / 255}
