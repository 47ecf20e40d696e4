"""Sliding window: keep the newest slots."""

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
class SlidingWindow(Policy):
    """First in, first out.

    Source: local attention of the backbones, e.g. `local_attn_size` of guandeh17/Self-Forcing@33593df.
    Deviates: the budget is context only; `local_attn_size` includes the chunk being generated.
    """

    name: ClassVar[str] = "sliding_window"
    source: ClassVar[str] = "guandeh17/Self-Forcing@33593df, local_attn_size"
    pins: ClassVar[Mapping[str, object]] = MappingProxyType({"sink": 0})
    is_positional: ClassVar[bool] = True

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the slot number, (B, H, S)."""
        return newest(cache)
