"""Proxies of future queries: what the next frames will ask, told from what the last frames asked."""

from __future__ import annotations

import torch
from torch import Tensor

from policies.base import Pass, Protocol, Shape
from policies.cache import LayerCache


def note_queries(
    cache: LayerCache, step: Pass, protocol: Protocol, *, frame_tokens: int, window: int
) -> None:
    """Update the position-wise mean of the last ``window`` frames' un-rotated queries.

    A chunk's queries are those of the clean pass, or the mean over its passes where the protocol observes
    all. The mean goes to ``stats['proxy']`` (B, Hq, P, D) fp32, frames that later chunks need to ``past``.
    """
    queries = step.queries.float()
    if protocol.passes == "all":
        queries = queries + cache.stats.pop("query_sum", 0.0)
        passes = cache.stats.pop("query_passes", 0.0)
        assert isinstance(passes, float), passes
        if not step.commit:
            cache.stats["query_sum"], cache.stats["query_passes"] = queries, passes + 1.0
            return
        queries = queries / (passes + 1.0)
    batch, heads, _, dim = queries.shape
    frames = queries.reshape(batch, heads, -1, frame_tokens, dim)  # (B, Hq, F, P, D)
    chunk_frames = frames.shape[2]
    past = cache.stats.get("past")
    if isinstance(past, Tensor):
        frames = torch.cat([past, frames], 2)
    cache.stats["proxy"] = frames[:, :, -window:].mean(2)
    if window > chunk_frames:
        cache.stats["past"] = frames[:, :, chunk_frames - window :].clone()


def future_queries(cache: LayerCache, step: Pass, shape: Shape, *, horizon: int) -> Tensor:
    """Return the proxy rotated to the ``horizon`` frames after the chunk, (B, Hq, horizon, P, D).

    Time goes on from the chunk's last frame under the position mode in force; rows and columns are those of
    the proxy's own positions. The result has the dtype of the cache, as true queries would.
    """
    proxy = cache.stats["proxy"]
    assert isinstance(proxy, Tensor), "observe has not seen a committing pass"
    ahead = torch.arange(1, horizon + 1, device=proxy.device)
    times = step.times[..., -1:] + ahead  # (horizon,) or (B, H, horizon)
    row = torch.arange(shape.rows, device=proxy.device)[:, None]
    column = torch.arange(shape.columns, device=proxy.device)
    angles = shape.rope.angles(times[..., None, None], row, column).flatten(-3, -2)  # (..., horizon, P, D/2)
    if times.ndim > 1:
        angles = angles.repeat_interleave(shape.query_heads // shape.heads, 1)
    return shape.rope.rotate(proxy[:, :, None].expand(-1, -1, horizon, -1, -1), angles).to(cache.dtype)
