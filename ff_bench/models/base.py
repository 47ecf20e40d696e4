"""What a backbone must offer: sizes, a schedule of passes, encode, denoise, decode.

A model holds no cache and no positions. Its self-attention is handed in by the caller as
``attend(layer, queries, keys, values)``, all un-rotated, (B, H, N, D) in and out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ff_bench.models.facts import ModelFacts
from ff_bench.models.schedule import Span, Turn
from policies.base import Shape

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
Decoder = Callable[[Tensor], Tensor]
"""Takes the next latent frames (B, F, C, h, w), returns their pictures (B, T, H, W, 3) uint8; holds state."""


class Model(ABC):
    """A chunk-autoregressive video model.

    Attributes:
        facts: static sizes.
        shape: what a cache must know.
        checkpoint: sha256 of the weights.
        latent_shape: (channels, height, width) of one latent frame.
        dtype: number format of weights and cache.
        renoises: whether `advance` takes fresh noise.
        recache_frames: latent frames whose keys and values are made anew when the prompt changes.
        recache_sink: whether older slots, the sink above all, are seen in doing so.
    """

    facts: ModelFacts
    shape: Shape
    checkpoint: str
    latent_shape: tuple[int, int, int]
    dtype: torch.dtype = torch.float32
    renoises: bool = False
    recache_frames: int = 0
    recache_sink: bool = False

    @abstractmethod
    def turns(self, latent_frames: int, *, steps: int, prefix_frames: int = 0) -> tuple[Turn, ...]:
        """Return the passes of a whole video in order.

        Args:
            latent_frames: length, whole chunks.
            steps: noisy passes per chunk.
            prefix_frames: latent frames at the start that are given, whole chunks.
        """

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
        """Predict clean latents.

        Args:
            latent: (B, F, C, h, w) noisy latent frames of one pass.
            noise: (B, F) noise level of each frame in [0, 1].
            conditioning: from `encode`.
            attend: self-attention.
            first_frame: number of the first latent frame in the video.
            cache_only: the caller needs the keys and values of every layer and nothing behind the last one.

        Returns:
            (B, F, C, h, w), the predicted x0; anything of that shape where `cache_only`.
        """

    @abstractmethod
    def advance(self, latent: Tensor, predicted: Tensor, span: Span, noise: Tensor | None) -> Tensor:
        """Go from `span.level` to `span.next_level`.

        Args:
            latent: (B, F, C, h, w) at `span.level`, the frames of the span.
            predicted: its x0, from `denoise`.
            span: of a noisy pass.
            noise: fresh noise of the same shape where `renoises` is True and a level follows, else None.

        Returns:
            (B, F, C, h, w) at `span.next_level`; the final latents where that is None.
        """

    @abstractmethod
    def decoder(self) -> Decoder:
        """Begin to decode videos side by side; what must be known of earlier frames is held by the result."""

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Encode pictures (T, H, W, 3) uint8 into latents (F, C, h, w) float32 that begin a video.

        Raises:
            ValueError: where the model cannot.
        """
        raise ValueError(f"model '{self.facts.name}' cannot start from pictures")

    def first_latent(self, pictures: Tensor) -> Tensor:
        """Encode one picture per video as if a video began with it.

        Args:
            pictures: (B, H, W, 3) uint8.

        Returns:
            (B, 1, C, h, w).
        """
        return torch.stack([self.encode_frames(picture[None]) for picture in pictures])

    def truth(self, prompt: str, seed: int, latent_frames: int) -> Tensor:
        """Latents (F, C, h, w) of the exact video of (prompt, seed), for models that have one.

        Raises:
            ValueError: where the model knows no truth.
        """
        raise ValueError(
            f"protocol.prefix 'truth' needs exact frames; the model '{self.facts.name}' has none; "
            "allowed: first_lap, none"
        )
