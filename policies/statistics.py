"""Running moments of the queries that a layer has asked so far, per video and query head, fp32.

Means are merged, never summed, so that they stay exact over long videos.
"""

from __future__ import annotations

from torch import Tensor

from policies.attention import strided
from policies.base import Pass, Protocol
from policies.cache import LayerCache

_COUNT = "queries_seen"


def observed(step: Pass, protocol: Protocol) -> Tensor:
    """Return the un-rotated queries of a pass that the protocol looks at, (B, Hq, R, D) fp32."""
    chosen = strided(step.queries.shape[2], protocol.query_stride, step.queries.device)
    return (step.queries if chosen is None else step.queries[:, :, chosen]).float()


def counted(cache: LayerCache, rows: int) -> float:
    """Count ``rows`` more queries; return their share of all that were counted so far."""
    seen = float(cache.stats.get(_COUNT, 0.0)) + rows
    cache.stats[_COUNT] = seen
    return rows / seen


def update_mean(cache: LayerCache, name: str, rows: Tensor, share: float) -> Tensor | None:
    """Merge the mean over the rows (B, Hq, R, C) into ``stats[name]``, (B, Hq, C).

    Args:
        cache: The layer.
        name: Where the mean stands.
        rows: New rows.
        share: Their share of all rows, see `counted`.

    Returns:
        How far the mean of the new rows was from that of the earlier ones, (B, Hq, C), or None for the first.
    """
    new, old = rows.mean(2), cache.stats.get(name)
    if not isinstance(old, Tensor):
        cache.stats[name] = new
        return None
    cache.stats[name] = old + (new - old) * share
    return new - old


def update_covariance(cache: LayerCache, name: str, rows: Tensor, share: float, moved: Tensor | None) -> None:
    """Merge the biased covariance of the rows (B, Hq, R, C) into ``stats[name]``, (B, Hq, C, C).

    Args:
        cache: The layer.
        name: Where the covariance stands.
        rows: New rows.
        share: Their share of all rows, see `counted`.
        moved: What `update_mean` returned for them.
    """
    centred = rows - rows.mean(2, keepdim=True)
    new, old = centred.mT @ centred / rows.shape[2], cache.stats.get(name)
    if isinstance(old, Tensor) and moved is not None:
        between = moved[..., :, None] * moved[..., None, :]
        new = old + (new - old) * share + between * (share * (1 - share))
    cache.stats[name] = new


def statistic(cache: LayerCache, name: str) -> Tensor:
    """Return a statistic that was updated before."""
    found = cache.stats[name]
    assert isinstance(found, Tensor), name
    return found
