"""FlowCache: keep slots that the newest chunk reads and that are unlike the other keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from policies import history
from policies.cache import LayerCache
from policies.redundancy import Redundancy, unit_keys

_GRANULARITIES = ("token", "frame", "chunk")
_LAST_TOKENS = 50  # queries that ``token`` stands for in the released code


@dataclass
class FlowCache(Redundancy):
    """lam x attention - (1 - lam) x redundancy, R-KV with every other key counted.

    Attention: of the newest queries, max-pooled along the slots. Redundancy: softmax over the slots of the
    mean cosine with all other keys; no twin is spared, so that one sum of keys gives it.

    Source: arXiv 2602.10825; mikeallen39/FlowCache@07365b3, FlowCache4MAGI-1/inference/pipeline/kvcompress.
    Deviates: KV compression alone, no reuse of features between steps. Released weights that favour newer
        slots are left out. Slots of the newest chunk are scored too and protected by the protocol's
        ``recent``; the protocol says over which slots attention sums to one (released: clean chunks); heads
        of a group are averaged behind the softmax (released: highest logit before). ``compress_strategy`` is
        the protocol's ``unit``.

    Args:
        lam: Weight of attention against redundancy, 0 to 1 (released: 0.07).
        query_granularity: Newest queries that are read: ``chunk``, its last ``frame``, or ``token``, its last
            50 (released: chunk).
        kernel: Slots whose attention is max-pooled, odd (released: 7).
    """

    lam: float = 0.07
    query_granularity: str = "chunk"
    kernel: int = 7

    name: ClassVar[str] = "flowcache"
    source: ClassVar[str] = "arXiv 2602.10825; mikeallen39/FlowCache@07365b3"

    def __post_init__(self) -> None:
        """Reject values outside their ranges."""
        if not 0 <= self.lam <= 1:
            raise ValueError(f"policy.lam is {self.lam}; allowed: 0 to 1")
        if self.query_granularity not in _GRANULARITIES:
            allowed = ", ".join(_GRANULARITIES)
            raise ValueError(f"policy.query_granularity is '{self.query_granularity}'; allowed: {allowed}")
        history.require_kernel(self.kernel)

    def alike(self, cache: LayerCache) -> Tensor:
        """See `Redundancy.alike`."""
        units, used = unit_keys(cache.rotated, cache.used), cache.used
        slots = cache.size if used is None else used.sum(2, keepdim=True)
        return ((units @ units.sum(2)[..., None]).squeeze(-1) - 1.0) / slots

    @property
    def queries(self) -> int | None:
        """See `Redundancy.queries`."""
        counts = {"token": _LAST_TOKENS, "frame": self.shape.frame_tokens}
        return counts.get(self.query_granularity)
