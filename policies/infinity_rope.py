"""Infinity-RoPE: the first frame and the newest slots, positions counted inside the cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor

from policies.base import Pass, Policy
from policies.cache import LayerCache
from policies.positional import newest


@dataclass
class InfinityRope(Policy):
    """Block-relativistic RoPE: a sink of one frame, first in, first out, positions 0 to L - 1 in the cache.

    Source: arXiv 2511.20649; yesiltepe-hidir/infinity-rope@63d7b84, wan/modules/causal_model.py.
    Deviates: room is made after the chunk, not before it; after a prompt switch the refresh of the model
        stands in for the KV flush (the original keeps the sink and the last frame only); no RoPE cut, the
        original's jump in time for a change of scene.
    """

    name: ClassVar[str] = "infinity_rope"
    source: ClassVar[str] = "arXiv 2511.20649; yesiltepe-hidir/infinity-rope@63d7b84"
    pins: ClassVar[Mapping[str, object]] = MappingProxyType({"sink": "1f", "position": "contiguous"})
    is_positional: ClassVar[bool] = True

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the slot number, (B, H, S); the sink is protected by the budget."""
        return newest(cache)
