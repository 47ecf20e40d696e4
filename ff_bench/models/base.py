"""What a backbone must offer: sizes, a schedule of passes, encode, denoise, decode.

A model holds no cache and no positions. Its self-attention is handed in by the caller as
``attend(layer, queries, keys, values)``, all un-rotated, (B, H, N, D) in and out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ff_bench.models.facts import ModelFacts
from policies.base import Shape

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Pass:
    """One forward of a chunk.

    Attributes:
        level: noise level that goes in, in [0, 1].
        next_level: noise level that comes out; None in a clean pass.
        commit: True where keys and values are written to the cache.
    """

    level: float
    next_level: float | None
    commit: bool


class Model(ABC):
    """A chunk-autoregressive video model.

    Attributes:
        facts: static sizes.
        shape: what a cache must know.
        checkpoint: sha256 of the weights.
        latent_shape: (channels, height, width) of one latent frame.
        dtype: number format of weights and cache.
        renoises: whether `advance` takes fresh noise.
    """

    facts: ModelFacts
    shape: Shape
    checkpoint: str
    latent_shape: tuple[int, int, int]
    dtype: torch.dtype = torch.float32
    renoises: bool = False

    @abstractmethod
    def schedule(self, steps: int) -> tuple[Pass, ...]:
        """Return the passes of one chunk in order: `steps` noisy ones, then a clean one."""

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> object:
        """Turn B prompts into what `denoise` takes as `conditioning`."""

    @abstractmethod
    def denoise(
        self,
        latent: Tensor,
        noise: Tensor,
        conditioning: object,
        attend: Attend,
        *,
        first_frame: int,
        cache_only: bool = False,
    ) -> Tensor:
        """Predict the clean chunk.

        Args:
            latent: (B, F, C, h, w) noisy latent frames of one chunk.
            noise: (B, F) noise level of each frame in [0, 1].
            conditioning: from `encode`.
            attend: self-attention.
            first_frame: number of the chunk's first latent frame in the video.
            cache_only: the caller needs the keys and values of every layer and nothing behind the last one.

        Returns:
            (B, F, C, h, w), the predicted x0; anything of that shape where `cache_only`.
        """

    @abstractmethod
    def advance(self, latent: Tensor, predicted: Tensor, step: Pass, noise: Tensor | None) -> Tensor:
        """Go from `step.level` to `step.next_level`.

        Args:
            latent: (B, F, C, h, w) at `step.level`.
            predicted: its x0, from `denoise`.
            step: a noisy pass.
            noise: fresh noise of the same shape where `renoises` is True, else None.

        Returns:
            (B, F, C, h, w) at `step.next_level`.
        """

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Decode the next latent frames; state across calls is the model's.

        Args:
            latents: (B, F, C, h, w).

        Returns:
            (B, T, H, W, 3) uint8.
        """

    def truth(self, prompt: str, seed: int, latent_frames: int) -> Tensor:
        """Latents (F, C, h, w) of the exact video of (prompt, seed), for models that have one.

        Raises:
            ValueError: where the model knows no truth.
        """
        raise ValueError(
            f"protocol.prefix 'truth' needs exact frames; the model '{self.facts.name}' has none; "
            "allowed: first_lap, none"
        )
