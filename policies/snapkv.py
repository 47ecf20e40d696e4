"""SnapKV: keep the slots that the newest frames read, and their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from policies import history
from policies.base import Pass, Policy
from policies.cache import LayerCache


@dataclass
class SnapKV(Policy):
    """Attention of an observation window of queries, pooled along the slots.

    Source: arXiv 2404.14469, Listing 1; NVIDIA/kvpress@8bb29b9, snapkv_press.py (mean over a group of heads).
    Deviates: the window is in latent frames and at most the chunk, bidirectional inside (paper: the last 32
        tokens, causal, which is less than one row of a video frame). Its slots are scored like others and
        protected by the protocol's ``recent`` (paper: always kept), so that pooling reaches across their
        border. Pooled neighbours are neighbouring slots, not always neighbouring places once slots have gone.
        Chosen after every chunk (paper: once).

    Args:
        window: Newest latent frames whose queries are read (ours: 3, one chunk).
        kernel: Slots that are pooled, odd; 1 pools nothing (paper: 5).
        pooling: ``avg`` (released) or ``max``.
    """

    window: int = 3
    kernel: int = 5
    pooling: str = "avg"

    name: ClassVar[str] = "snapkv"
    source: ClassVar[str] = "arXiv 2404.14469, Listing 1"
    reads_attention: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Reject values outside their ranges."""
        if self.window < 1:
            raise ValueError(f"policy.window is {self.window}; allowed: 1 or more latent frames")
        if self.pooling not in history.POOLINGS:
            raise ValueError(f"policy.pooling is '{self.pooling}'; allowed: {', '.join(history.POOLINGS)}")
        history.require_kernel(self.kernel)

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Note the attention of noisy passes, where the protocol shows them."""
        if self.budget.tokens is not None:
            history.note_noisy(cache, step, self.protocol, queries=self._queries)

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the pooled mean attention of the window, (B, H, S)."""
        received = history.of_chunk(cache, step, self.protocol, queries=self._queries)
        return history.pooled(received, self.pooling, self.kernel)

    @property
    def _queries(self) -> int:
        return self.window * self.shape.frame_tokens
