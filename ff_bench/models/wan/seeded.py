"""Tiny weights and inputs that follow from seeds: those of the recordings of the originals, and of tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ff_bench.models.wan import layouts
from ff_bench.models.wan.network import Size, WanNetwork

WEIGHT_SEED, INPUT_SEED, NOISE_SEED = 1234, 7, 99
PROMPT_ROWS = 10
"""Rows of a prompt embedding that are not padding."""


@dataclass(frozen=True)
class Inputs:
    """What a rollout starts from and takes in.

    Attributes:
        prompt: (B, T, text_dim) embeddings.
        initial: (B, P, C, h, w) latents given, or None.
        noise: (B, F, C, h, w) that the generated frames start from, in the format of the rollout.
        eps: fresh noise in the order of use, each (B * frames of the call, C, h, w).
    """

    prompt: Tensor
    initial: Tensor | None
    noise: Tensor
    eps: tuple[Tensor, ...]

    @property
    def given(self) -> int:
        """Latent frames that are given."""
        return 0 if self.initial is None else self.initial.shape[1]

    def same(self, other: Inputs) -> bool:
        """Tell whether both are equal to the last bit."""
        ours, theirs = self._tensors(), other._tensors()
        return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))

    def to(self, device: torch.device | str) -> Inputs:
        """The same on a device."""
        initial = None if self.initial is None else self.initial.to(device)
        eps = tuple(one.to(device) for one in self.eps)
        return Inputs(self.prompt.to(device), initial, self.noise.to(device), eps)

    def _tensors(self) -> list[Tensor]:
        return [self.prompt, self.noise, *self.eps, *([] if self.initial is None else [self.initial])]


def shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a transformer by their original names."""
    with torch.device("meta"):
        network = WanNetwork(size)
    return {name: tuple(value.shape) for name, value in layouts.split(network.state_dict()).items()}


def random_weights(size: Size, seed: int = WEIGHT_SEED) -> dict[str, Tensor]:
    """Draw weights under which every layer says something, float32, by original names.

    Args:
        size: of the network.
        seed: of the generator; tensors are drawn in the order of their names.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in sorted(shapes(size).items()):
        drawn = torch.randn(shape, generator=generator)
        if name.endswith("modulation"):
            weights[name] = drawn * shape[-1] ** -0.5
        elif "norm" in name and name.endswith("weight"):
            weights[name] = 1 + 0.1 * drawn
        elif name.endswith("bias"):
            weights[name] = 0.05 * drawn
        else:
            weights[name] = drawn * drawn[0].numel() ** -0.5
    return weights


def random_inputs(prompt: Sequence[int], like: Tensor, *, given: int, drawn: Sequence[int]) -> Inputs:
    """Draw what a rollout starts from and takes in.

    Args:
        prompt: (B, T, C) of the embeddings.
        like: (B, F, C, h, w), of the shape and format of the noise.
        given: latent frames that are given.
        drawn: frames, times videos, of each draw of fresh noise.
    """
    generator = torch.Generator().manual_seed(INPUT_SEED)
    embeddings = torch.randn(tuple(prompt), generator=generator)
    embeddings[:, PROMPT_ROWS:] = 0
    frame = like.shape[2:]
    initial = torch.randn((len(like), given, *frame), generator=generator).to(like.dtype) if given else None
    noise = torch.randn(like.shape, generator=generator).to(like.dtype)
    generator = torch.Generator().manual_seed(NOISE_SEED)
    eps = tuple(torch.randn((count, *frame), generator=generator).to(like.dtype) for count in drawn)
    return Inputs(embeddings.to(like.dtype), initial, noise, eps)
