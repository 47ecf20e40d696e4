"""Attention that slots receive: running statistics over a video, and the mean over one chunk's queries."""

from __future__ import annotations

import torch.nn.functional as functional
from torch import Tensor

from policies.attention import mass
from policies.base import Pass, Protocol
from policies.cache import LayerCache

STATE = "mass"
POOLINGS = ("avg", "max")
_NOISY, _NOISY_PASSES, _NOISY_CHUNK = "noisy", "noisy_passes", "noisy_chunk"


def of_pass(cache: LayerCache, step: Pass, protocol: Protocol, *, queries: int | None = None) -> Tensor:
    """Return the attention mass that each slot receives in one pass, before or after the chunk's commit.

    Args:
        cache: The layer.
        step: The pass.
        protocol: Says the denominator and the stride.
        queries: How many of the chunk's last queries are read; None reads all of them.

    Returns:
        (B, H, S) fp32 with the chunk's own slots last, or without them for the denominator ``context``; sums
        to the number of queries over the slots.
    """
    rows, log_sum = step.rotated_queries, step.log_sum
    if queries is not None:
        rows = rows[:, :, -queries:]
        log_sum = None if log_sum is None else log_sum[:, :, -queries:]
    return mass(
        rows,
        cache.staged_keys,
        context=cache.staged_keys.shape[2] - step.keys.shape[2],
        denominator=protocol.denominator,
        stride=protocol.query_stride,
        log_mass=cache.bias,
        log_sum=log_sum if protocol.denominator == "all" else None,
    )


def accumulate(cache: LayerCache, step: Pass, protocol: Protocol) -> None:
    """Add the attention mass of one pass to every slot, the chunk's own included, and count the queries.

    Each pass adds N, its number of queries, in all; slots that are dropped later take theirs along.
    """
    added = of_pass(cache, step, protocol)
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


def note_noisy(cache: LayerCache, step: Pass, protocol: Protocol, *, queries: int | None = None) -> None:
    """Add up what slots receive in a chunk's noisy passes, for `of_chunk`; a clean pass adds nothing here."""
    if step.commit:
        return
    added, passes = _per_query(cache, step, protocol, queries), 1.0
    if cache.stats.get(_NOISY_CHUNK) == float(step.chunk):
        added += cache.stats[_NOISY]
        passes += float(cache.stats[_NOISY_PASSES])
    cache.stats[_NOISY], cache.stats[_NOISY_PASSES] = added, passes
    cache.stats[_NOISY_CHUNK] = float(step.chunk)


def of_chunk(cache: LayerCache, step: Pass, protocol: Protocol, *, queries: int | None = None) -> Tensor:
    """Return the share of one query's attention that each slot receives, mean over a chunk's last queries.

    To be called after the chunk's commit. The mean is over the passes that the protocol observes, if
    `note_noisy` saw the noisy ones.

    Args:
        cache: The layer.
        step: The committing pass.
        protocol: Says the denominator, the stride and the passes.
        queries: How many of the chunk's last queries are read; None reads all of them.

    Returns:
        (B, H, S) fp32; 0 for the chunk's own slots under the denominator ``context``.
    """
    received = _per_query(cache, step, protocol, queries)
    if cache.stats.pop(_NOISY_CHUNK, None) == float(step.chunk):
        received = (received + cache.stats.pop(_NOISY)) / (1.0 + float(cache.stats.pop(_NOISY_PASSES)))
    return received


def _per_query(cache: LayerCache, step: Pass, protocol: Protocol, queries: int | None) -> Tensor:
    received = of_pass(cache, step, protocol, queries=queries)
    received /= min(queries or step.queries.shape[2], step.queries.shape[2])
    return functional.pad(received, (0, cache.staged_keys.shape[2] - received.shape[2]))


def pooled(attention: Tensor, pooling: str, kernel: int) -> Tensor:
    """Pool attention (B, H, S) along the slots, ``kernel`` (odd) of them, with stride 1; same shape."""
    pool = functional.max_pool1d if pooling == "max" else functional.avg_pool1d
    spread: Tensor = pool(attention, kernel, stride=1, padding=kernel // 2)
    return spread


def require_kernel(kernel: int) -> None:
    """Raise ValueError unless a pooling kernel is odd."""
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"policy.kernel is {kernel}; allowed: odd numbers of slots, 1 or more")
