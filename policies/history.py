"""Attention that slots have received so far: the running statistics of H2O and of Future Forcing."""

from __future__ import annotations

from torch import Tensor

from policies.attention import mass
from policies.base import Pass, Protocol
from policies.cache import LayerCache

STATE = "mass"


def accumulate(cache: LayerCache, step: Pass, protocol: Protocol) -> None:
    """Add the attention mass of one pass to every slot, the chunk's own included, and count the queries.

    Each pass adds N, its number of queries, in all; slots that are dropped later take theirs along.
    """
    added = mass(
        step.rotated_queries,
        cache.staged_keys,
        context=cache.size,
        denominator=protocol.denominator,
        stride=protocol.query_stride,
        log_mass=cache.bias,
        log_sum=step.log_sum if protocol.denominator == "all" else None,
    )
    cache.staged_state(STATE)[:, :, : added.shape[2]] += added
    queries = cache.stats.get("queries", 0.0)
    cache.stats["queries"] = queries + step.queries.shape[2]


def total(cache: LayerCache) -> Tensor:
    """Return the accumulated mass, (B, H, S) fp32."""
    return cache.slot_state(STATE)


def mean_per_query(cache: LayerCache) -> Tensor:
    """Return the accumulated mass divided by all queries seen so far: (1/t) times the sum over steps."""
    queries = cache.stats.get("queries", 0.0)
    return total(cache) / max(float(queries), 1.0)
