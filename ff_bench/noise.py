"""Noise that depends on (prompt, seed, chunk, step) and on nothing else.

Not on the policy, the batch, the order, the device or the length of the video: policies are compared on the
same draws, and a longer video begins as the shorter one does. Drawn on the CPU in float32.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ff_bench.models.schedule import Span


def noise_seed(prompt: str, seed: int, *, chunk: int, step: int) -> int:
    """Name one draw by 63 bits."""
    digest = hashlib.sha256(f"noise\0{prompt}\0{seed}\0{chunk}\0{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draw(prompt: str, seed: int, *, chunk: int, step: int, shape: Sequence[int]) -> Tensor:
    """Draw standard normal noise, float32 on the CPU.

    Args:
        prompt: text of the video's prompt.
        seed: of the video.
        chunk: number of the chunk.
        step: 0 for what denoising starts from, s for what a model takes after its noisy pass s.
        shape: of one video's chunk.
    """
    generator = torch.Generator().manual_seed(noise_seed(prompt, seed, chunk=chunk, step=step))
    return torch.randn(tuple(shape), generator=generator)


class Draws(ABC):
    """Where a rollout takes its noise from."""

    @abstractmethod
    def initial(self, span: Span) -> Tensor:
        """Return what denoising a chunk starts from, (B, F, C, h, w)."""

    @abstractmethod
    def fresh(self, span: Span) -> Tensor:
        """Return what a model adds behind a noisy pass of a chunk, (B, F, C, h, w)."""


class OwnDraws(Draws):
    """Noise by (prompt, seed, chunk, step): see the head of this module."""

    def __init__(self, prompts: Sequence[str], seeds: Sequence[int], shape: Sequence[int]) -> None:
        """Draw for B videos.

        Args:
            prompts: B prompts.
            seeds: B seeds.
            shape: of one latent frame, (C, h, w).
        """
        self.videos, self.shape = tuple(zip(prompts, seeds, strict=True)), tuple(shape)

    def initial(self, span: Span) -> Tensor:
        """See `Draws.initial`; float32 on the CPU."""
        return self._draw(span, 0)

    def fresh(self, span: Span) -> Tensor:
        """See `Draws.fresh`; float32 on the CPU."""
        return self._draw(span, span.step + 1)

    def _draw(self, span: Span, step: int) -> Tensor:
        shape = (span.frames, *self.shape)
        return torch.stack(
            [draw(prompt, seed, chunk=span.chunk, step=step, shape=shape) for prompt, seed in self.videos]
        )


class UpstreamDraws(Draws):
    """The draws of the original implementations: one generator, the whole video first, then call by call.

    Equal to theirs for the first video after they set their seed, on the same kind of device and in the same
    number format.

    Source: guandeh17/Self-Forcing@33593df, inference.py and pipeline/causal_inference.py.
    """

    def __init__(
        self,
        seed: int,
        frames: int,
        shape: Sequence[int],
        *,
        prefix_frames: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        """Draw the whole video.

        Args:
            seed: of the video.
            frames: latent frames of the video.
            shape: of one latent frame, (C, h, w).
            prefix_frames: latent frames at the start that are given; nothing is drawn for them.
            dtype: in which the original draws.
            device: whose generator is used.
        """
        self.generator = torch.Generator(device).manual_seed(seed)
        self.prefix_frames, self.shape = prefix_frames, tuple(shape)
        self.dtype, self.device = dtype, torch.device(device)
        self.whole = self._randn((1, frames - prefix_frames, *self.shape))

    def initial(self, span: Span) -> Tensor:
        """See `Draws.initial`."""
        begin = span.first - self.prefix_frames
        return self.whole[:, begin : begin + span.frames]

    def fresh(self, span: Span) -> Tensor:
        """See `Draws.fresh`."""
        return self._randn((span.frames, *self.shape))[None]

    def _randn(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=self.dtype, device=self.device)
