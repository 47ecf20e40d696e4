"""What a prompt tells the network, as indices of embeddings and as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ff_bench.models.mini.motion_numbers import events_begun, motion_numbers
from ff_bench.models.mini.painting import VERSIONS
from ff_bench.models.mini.prompt import EVENTS, FRAMES_PER_LATENT, HUES, SPRITES, MiniPrompt
from ff_bench.models.mini.world import HIDDEN

NUMBERS = ("sprite_radius", "sprite_reach_x", "sprite_reach_y", "swing")
SCALES = (10.0, 80.0, 16.0, 100.0)


@dataclass(frozen=True)
class PromptIndices:
    """Prompts as indices of embeddings.

    Attributes:
        palettes: (B, VERSIONS) int64.
        shapes: (B,) int64, the last index where it is not told.
        hues: (B,) int64, likewise.
        numbers: (B, 4) float32, `NUMBERS` over `SCALES`; or (B, MOTION_NUMBERS), all of the motion, for a
            network whose tokens are not told where they look.
    """

    palettes: Tensor
    shapes: Tensor
    hues: Tensor
    numbers: Tensor

    @classmethod
    def of(cls, prompts: list[MiniPrompt], device: torch.device | str) -> PromptIndices:
        """Read off what the prompts tell about looks and sizes."""
        numbers = [
            [abs(getattr(p.motion(), name)) / scale for name, scale in zip(NUMBERS, SCALES, strict=True)]
            for p in prompts
        ]
        return cls._with(prompts, numbers, [0] * len(prompts), device=device)

    @classmethod
    def of_clips(
        cls, prompts: list[MiniPrompt], device: torch.device | str, starts: Sequence[int] | None = None
    ) -> PromptIndices:
        """Read off looks and all of the motion, as the text of a clip would tell them.

        Args:
            prompts: B prompts.
            device: where to.
            starts: latent frame of each world at which its clip begins; None stands for 0. A scene that was
                cut before then is over: the clip's first palette is the one in view.
        """
        begins = [FRAMES_PER_LATENT * start for start in starts or [0] * len(prompts)]
        numbers = [motion_numbers(p, begin) for p, begin in zip(prompts, begins, strict=True)]
        gone = [events_begun(p.motion(), begin) for p, begin in zip(prompts, begins, strict=True)]
        return cls._with(prompts, numbers, gone, device=device)

    @classmethod
    def _with(
        cls,
        prompts: list[MiniPrompt],
        numbers: list[list[float]],
        gone: list[int],
        *,
        device: torch.device | str,
    ) -> PromptIndices:
        """Add looks to `numbers`; `gone` counts the versions of each scene that are over."""
        shapes = [HIDDEN if p.sprite is None else SPRITES.index(p.sprite) for p in prompts]
        hues = [HIDDEN if p.hue is None else HUES.index(p.hue) for p in prompts]
        palettes = [
            [p.palette_of(min(EVENTS, version + over)) for version in range(VERSIONS)]
            for p, over in zip(prompts, gone, strict=True)
        ]
        return cls(
            torch.tensor(palettes, device=device),
            torch.tensor(shapes, device=device) % (len(SPRITES) + 1),
            torch.tensor(hues, device=device) % (len(HUES) + 1),
            torch.tensor(numbers, device=device),
        )

    def rolled(self) -> PromptIndices:
        """Every video with the prompt of the one before it in the batch."""
        parts = (self.palettes, self.shapes, self.hues, self.numbers)
        return PromptIndices(*(part.roll(1, 0) for part in parts))

    def to(self, dtype: torch.dtype) -> PromptIndices:
        """The same with its numbers in another format."""
        return PromptIndices(self.palettes, self.shapes, self.hues, self.numbers.to(dtype))
