"""Dummy Forcing: heads that attend to little but their own chunk keep one frame, the others all the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from policies import head_types
from policies.base import Pass, Policy
from policies.cache import LayerCache
from policies.positional import newest


@dataclass
class DummyForcing(Policy):
    """Three kinds of heads, told by their attention in the first clean pass that has a context.

    Of each head's attention, the first frame's share and that of the context between it and the chunk are
    divided by their sums over the heads of a layer. Heads whose larger one is lowest are dummies: they keep
    the newest frame. Of the others those with more on the first frame keep it and the newest slots, the rest
    the newest slots; they share what dummies leave of the budget.

    Source: arXiv 2601.20499; csguoh/DummyForcing@28128ed, wan/modules/dummyforcing.py.
    Deviates: the same number of dummies in every layer (the original: 180 of 360 heads over all layers), each
        video its own (the original: the first video's for all); all queries are read (the original: a random
        third of a frame's); sizes come from the budget (the original: one frame for heads of the first frame
        and dummies, one chunk for the others).

    Args:
        dummies: Share of a layer's heads that are dummies, 0 to 0.5 (released: 180 of 360).
    """

    dummies: float = 0.5

    name: ClassVar[str] = "dummy_forcing"
    source: ClassVar[str] = "arXiv 2601.20499; csguoh/DummyForcing@28128ed"
    pins: ClassVar[Mapping[str, object]] = MappingProxyType(
        {"sink": 0, "recent": "1f", "unit": "token", "share": "head", "position": "absolute"}
    )
    reads_attention: ClassVar[bool] = True
    widest_head: ClassVar[float] = head_types.WIDEST

    def __post_init__(self) -> None:
        """Reject values outside their ranges."""
        head_types.check_share("dummies", self.dummies)

    def plan(self, caches: Sequence[LayerCache]) -> Tensor | None:
        """Return one frame for dummies, what that leaves for the others."""
        return head_types.plan(self, caches, share=self.dummies, narrow=self.shape.frame_tokens)

    def ranks(self, cache: LayerCache) -> Tensor | None:
        """Return the place of each head by its attention to the context, (B, H)."""
        return head_types.ranks(cache)

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Tell the kinds of heads in the first clean pass that has a context."""
        is_known = head_types.ranks(cache) is not None
        if self.budget.tokens is None or is_known or not step.commit or cache.size == 0:
            return
        mass = head_types.received(cache, step, self.protocol.query_stride)
        frame = self.shape.frame_tokens
        regions = torch.stack([mass[..., :frame].sum(-1), mass[..., frame : cache.size].sum(-1)])  # (2, B, H)
        first, middle = regions / regions.sum(-1, keepdim=True).clamp(min=1e-12)
        head_types.note_ranks(cache, torch.maximum(first, middle))
        cache.stats["keeps_first"] = (first >= middle)[..., None]

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the slot number, infinite for the first frame where a head keeps it, (B, H, S)."""
        keeps_first = cache.stats.get("keeps_first")
        if not isinstance(keeps_first, Tensor):
            return newest(cache)
        is_dummy = head_types.is_narrow(cache, head_types.few(self, self.dummies))
        is_first = cache.tokens < self.shape.frame_tokens
        return newest(cache).masked_fill(is_first & keeps_first & ~is_dummy, torch.inf)
