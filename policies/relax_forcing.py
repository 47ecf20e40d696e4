"""Relax Forcing: a short context of sink, tail, and history that is like the sink and unlike the tail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as functional
from torch import Tensor

from policies.base import Pass, Policy
from policies.cache import LayerCache


@dataclass
class RelaxForcing(Policy):
    """Keep the frames with the largest S - ``redundancy`` * R: likeness to the sink against that to the tail.

    A frame, the sink and the tail (the protocol's sink and recent slots) each stand as their mean un-rotated
    key over tokens and heads; S and R are cosines.

    Source: arXiv 2603.21366; zengqunzhao/Relax-Forcing@6d2b4fa, wan/modules/causal_model.py.
    Deviates: the budget is all that is held, and what is not kept is gone (the original picks one frame anew
        for every chunk from a reservoir of 120); as many frames of history as the budget holds, of all frames
        (the original: the best of 4 evenly spaced in the later half); every layer and video decides for
        itself (the original: layer 0 and the first video for all).

    Args:
        redundancy: Weight of the likeness to the tail (released: 2).
    """

    redundancy: float = 2.0

    name: ClassVar[str] = "relax_forcing"
    source: ClassVar[str] = "arXiv 2603.21366; zengqunzhao/Relax-Forcing@6d2b4fa"
    pins: ClassVar[Mapping[str, object]] = MappingProxyType(
        {"sink": "2f", "recent": "1f", "unit": "frame", "share": "layer", "position": "contiguous"}
    )

    def __post_init__(self) -> None:
        """Reject values outside their ranges."""
        if self.redundancy < 0:
            raise ValueError(f"policy.redundancy is {self.redundancy}; allowed: 0 or more")

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return S - redundancy * R of each slot's frame, (B, H, S)."""
        frame, size = self.shape.frame_tokens, cache.size
        keys = cache.keys.float().sum(1)  # (B, S, D): cosines do not see how many were added
        padded = functional.pad(keys, (0, 0, 0, -size % frame))
        frames = functional.normalize(padded.unflatten(1, (-1, frame)).sum(2), dim=-1)  # (B, F, D)
        score = torch.zeros(frames.shape[:2], device=cache.device)
        for part, weight in (
            (keys[:, : self.budget.sink], 1.0),
            (keys[:, size - self.budget.recent :], -self.redundancy),
        ):
            score += weight * (frames * functional.normalize(part.sum(1, keepdim=True), dim=-1)).sum(-1)
        by_slot = score.repeat_interleave(frame, 1)[:, None, :size]
        return by_slot.expand(-1, cache.heads, -1)
