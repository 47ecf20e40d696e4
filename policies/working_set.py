"""Working set: one clear copy of everything that is still in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as functional
from torch import Tensor

from policies.attention import block_elements, products
from policies.base import Pass, Policy
from policies.cache import LayerCache

USE, TWIN = "use", "twin"
_CUDA_BLOCK = 2**26
"""Elements of a block of cosines on CUDA: 256 MiB."""


@dataclass
class WorkingSet(Policy):
    """Drop what an older slot already holds, then what has not been seen again for longest.

    A slot is worth use * (1 - twin). *Twin* is the cosine of its un-rotated key to the nearest older key when
    it was made: a place that is seen again makes twins, which are the first to go, so that every place keeps
    its oldest copy, the one least often copied from copies. *Use* is 1 for a new slot, halves every
    ``half_life`` latent frames, and is raised to cosine ** ``sharpness`` by the most similar key of each
    chunk: what no longer comes back makes room. No attention is read.

    Source: this project. Denning 1968 (doi 10.1145/363095.363141) for the working set; that rotation hides
        duplicates and that coverage, not mass, decides, from docs/results.md.
    Deviates: nothing.

    Args:
        half_life: Latent frames after which the use of an unseen slot has halved.
        sharpness: Power of the cosine that counts as use.
    """

    half_life: float = 30.0
    sharpness: float = 8.0

    name: ClassVar[str] = "working_set"
    source: ClassVar[str] = "this project"
    slot_state: ClassVar[Mapping[str, float]] = MappingProxyType({USE: 1.0, TWIN: 0.0})

    def __post_init__(self) -> None:
        """Reject values outside their ranges."""
        for field in ("half_life", "sharpness"):
            if not getattr(self, field) > 0:
                raise ValueError(f"policy.{field} is {getattr(self, field)}; allowed: above 0")

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Compare the chunk's keys with those held: what is seen again, and what is new."""
        if not step.commit or self.budget.tokens is None:
            return
        held, frame = cache.size, self.shape.frame_tokens
        new, old = (_unit(keys, cache.dtype) for keys in (step.keys, cache.keys))
        nearest, seen = _most_similar(new, old)
        for first in range(frame, new.shape[2], frame):  # older frames of the same chunk
            own = slice(first, first + frame)
            before, _ = _most_similar(new[:, :, own], new[:, :, :first])
            nearest[:, :, own] = torch.maximum(nearest[:, :, own], before)
        use, decay = cache.staged_state(USE)[:, :, :held], 0.5 ** (new.shape[2] // frame / self.half_life)
        use.copy_(torch.maximum(use * decay, seen.clamp(min=0) ** self.sharpness))
        cache.staged_state(TWIN)[:, :, held:] = nearest

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return use * (1 - twin), (B, H, S)."""
        return cache.slot_state(USE) * (1 - cache.slot_state(TWIN)).clamp(min=1e-6)


def _unit(keys: Tensor, dtype: torch.dtype) -> Tensor:
    """Return keys (B, H, N, D) at unit length, in the number format of the cache."""
    return functional.normalize(keys.float(), dim=-1).to(dtype)


def _most_similar(new: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
    """Return the highest cosine of each new key (B, H, N) and of each old key (B, H, S), fp32.

    Args:
        new: Keys of unit length (B, H, N, D).
        old: Keys of unit length (B, H, S, D); with S = 0 nothing is similar: 0.
    """
    batch, heads, count, _ = new.shape
    nearest = torch.zeros(batch, heads, count, device=new.device)
    seen = torch.full((batch, heads, old.shape[2]), -1.0, device=new.device)
    if old.shape[2] == 0:
        return nearest, seen
    limit = block_elements(new.device) or _CUDA_BLOCK
    step = max(1, limit // (batch * heads * old.shape[2]))
    for first in range(0, count, step):
        rows = slice(first, first + step)
        cosines = products(new[:, :, rows], old)
        nearest[:, :, rows] = cosines.amax(3)
        torch.maximum(seen, cosines.amax(2), out=seen)
    return nearest, seen
