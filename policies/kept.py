"""What a cache still holds of each chunk, for the trace."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from policies.cache import LayerCache
from policies.positions import NOTHING
from policies.terms import Shape


def kept(caches: Sequence[LayerCache], shape: Shape) -> list[dict[int, float]]:
    """Return the share of each chunk's tokens still held, mean over layers and heads, one dict per video.

    Chunks of which nothing is held are left out: what a bounded cache tells does not grow with the video.
    Waits for the device.

    Args:
        caches: All layers, of the same videos.
        shape: The model.
    """
    batch, device = caches[0].batch, caches[0].device
    whole = shape.chunk_tokens * shape.layers * shape.heads
    tokens = torch.cat([cache.tokens.flatten(1) for cache in caches], 1)  # (B, slots of all layers)
    chunks = torch.where(tokens < NOTHING, tokens // shape.chunk_tokens + 1, 0)  # 0: nothing held
    videos = torch.arange(batch, device=device)[:, None] * NOTHING
    shares: list[dict[int, float]] = [{} for _ in range(batch)]
    found = (chunks + videos).unique(return_counts=True)
    for place, count in zip(*(x.tolist() for x in found), strict=True):  # in order of video and chunk
        video, chunk = divmod(place, NOTHING)
        if chunk:
            shares[video][chunk - 1] = round(count / whole, 5)
    return shares
