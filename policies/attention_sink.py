"""Attention sink: keep the first chunk and the newest slots, positions as generated."""

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
class AttentionSink(Policy):
    """Sink and first in, first out; the sink drifts away from the chunk as the video grows.

    Source: arXiv 2309.17453, the kept set; `sink_size` of guandeh17/Self-Forcing@33593df, the positions.
    Deviates: the sink is one chunk, the unit that these models generate (the paper: 4 tokens).
    """

    name: ClassVar[str] = "attention_sink"
    source: ClassVar[str] = "arXiv 2309.17453 (set), guandeh17/Self-Forcing@33593df sink_size (positions)"
    pins: ClassVar[Mapping[str, object]] = MappingProxyType({"sink": "1c", "position": "absolute"})
    is_positional: ClassVar[bool] = True

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the slot number, (B, H, S); the sink is protected by the budget."""
        return newest(cache)
