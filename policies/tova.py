"""TOVA: keep the slots that the newest queries read, one set for all heads of a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from policies import history
from policies.base import Pass, Policy
from policies.cache import LayerCache


@dataclass
class Tova(Policy):
    """Attention of the newest queries, mean over all heads of the layer.

    Source: arXiv 2401.06104.
    Deviates: the newest queries are those of the chunk, which are generated together (the paper: the one of
        the last token), in the passes that the protocol observes. All heads keep one set whatever
        ``protocol.share`` says.
    """

    name: ClassVar[str] = "tova"
    source: ClassVar[str] = "arXiv 2401.06104"
    reads_attention: ClassVar[bool] = True

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Note the attention of noisy passes, where the protocol shows them."""
        if self.budget.tokens is not None:
            history.note_noisy(cache, step, self.protocol)

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the mean attention over queries and heads, (B, H, S), equal in all heads."""
        received = history.of_chunk(cache, step, self.protocol)
        return received.mean(1, keepdim=True).expand(-1, cache.heads, -1)
