"""Deep Forcing: a deep sink, the newest frames, and between them what recent queries ask for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from policies.attention import products
from policies.base import Pass, Policy, Shape
from policies.cache import LayerCache

_PICKS = "picks"


@dataclass
class DeepForcing(Policy):
    """Keep the slots with the largest sum of raw logits under recent queries, one set for all heads.

    Recent queries are those of the first observed pass of the chunk (the first noisy one) and of the last
    frame of the clean pass before it, turned on to where that frame stands now. Logits are summed without
    softmax. A slot that has been picked ``max_reuse`` times goes before any other.

    Source: arXiv 2512.05081 (Deep Sink, Participative Compression); zengqunzhao/Relax-Forcing@6d2b4fa,
        wan/modules/deep_forcing_model.py (the authors publish no code).
    Deviates: room is made after every chunk, so that the queries are one chunk older than the original's,
        which compresses every second chunk in the first pass of the next; positions are contiguous as in the
        paper (the code moves the sink alone); slots picked too often fill up what nothing else can fill.

    Args:
        max_reuse: How often a slot can be picked before others are preferred (released: 7); 0 is no limit.
    """

    max_reuse: int = 7

    name: ClassVar[str] = "deep_forcing"
    source: ClassVar[str] = "arXiv 2512.05081; zengqunzhao/Relax-Forcing@6d2b4fa"
    pins: ClassVar[Mapping[str, object]] = MappingProxyType(
        {"sink": "10f", "recent": "4f", "passes": "all", "share": "layer", "position": "contiguous"}
    )
    slot_state: ClassVar[Mapping[str, float]] = MappingProxyType({_PICKS: 0.0})

    def __post_init__(self) -> None:
        """Reject values outside their ranges."""
        if self.max_reuse < 0:
            raise ValueError(f"policy.max_reuse is {self.max_reuse}; allowed: 0 or more")

    @property
    def merges(self) -> bool:
        """Folding counts picks only."""
        return False

    def held_nbytes(self, shape: Shape, batch: int) -> int:
        """Return the bytes of the summed queries of each layer's last frame."""
        return 4 * batch * shape.layers * shape.heads * shape.head_dim

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Sum the queries of the chunk's first pass and, in the clean pass, those of its last frame."""
        if self.budget.tokens is None:
            return
        if cache.stats.get("chunk") != float(step.chunk):
            cache.stats["chunk"] = float(step.chunk)
            cache.stats["asked"] = _summed(cache, step.rotated_queries) + self._last(cache, step)
        if step.commit:
            last = step.rotated_queries[:, :, -self.shape.frame_tokens :]
            cache.stats["last"], cache.stats["last_time"] = _summed(cache, last), step.times[..., -1]

    def _last(self, cache: LayerCache, step: Pass) -> Tensor | float:
        """Return the summed queries of the frame before the chunk, at the time right before it, (B, H, D)."""
        last, time = cache.stats.get("last"), cache.stats.get("last_time")
        if not isinstance(last, Tensor) or not isinstance(time, Tensor):
            return 0.0
        moved: Tensor = step.times[..., 0] - 1 - time
        return self.shape.rope.rotate_time(last, moved)

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the sum of logits over the recent queries, (B, H, S)."""
        asked = cache.stats.pop("asked")
        assert isinstance(asked, Tensor), "observe has not seen a pass of this chunk"
        score: Tensor = products(asked[:, :, None], cache.rotated).squeeze(2) / math.sqrt(self.shape.head_dim)
        if self.max_reuse:
            score = score.masked_fill(cache.slot_state(_PICKS) >= self.max_reuse, -torch.inf)
        return score

    def fold(self, caches: Sequence[LayerCache], kept: Tensor) -> None:
        """Count that a slot between sink and recent was picked."""
        unit = self.unit
        sink, recent = -(-self.budget.sink // unit) * unit, -(-self.budget.recent // unit) * unit
        for cache, index in zip(caches, kept.split(caches[0].batch), strict=True):
            picks = cache.slot_state(_PICKS)
            is_picked = (index >= sink) & (index < cache.size - recent)
            picks.scatter_add_(2, index, is_picked.float())


def _summed(cache: LayerCache, queries: Tensor) -> Tensor:
    """Return the sum of queries (B, Hq, N, D) over tokens and over the heads of a group, (B, H, D) fp32."""
    by_group: Tensor = queries.float().sum(2).view(cache.batch, cache.heads, -1, queries.shape[3])
    return by_group.sum(2)
