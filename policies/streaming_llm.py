"""StreamingLLM: keep the first chunk and the newest slots, positions counted inside the cache."""

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
class StreamingLLM(Policy):
    """Sink and first in, first out, with keys re-rotated so that the context is always contiguous.

    Source: arXiv 2309.17453, section 3.2; `pos_shift` of mit-han-lab/streaming-llm@2e50426.
    Deviates: the sink is one chunk (the paper: 4 tokens); room is made after the chunk, not before it; time
        is re-indexed in frames, rows and columns stay.
    """

    name: ClassVar[str] = "streaming_llm"
    source: ClassVar[str] = "arXiv 2309.17453, section 3.2"
    pins: ClassVar[Mapping[str, object]] = MappingProxyType({"sink": "1c", "position": "contiguous"})
    is_positional: ClassVar[bool] = True

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the slot number, (B, H, S); the sink is protected by the budget."""
        return newest(cache)
