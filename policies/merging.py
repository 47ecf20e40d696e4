"""Folding slots that go into slots that stay: pairing by similarity, and sums over pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from policies import kernels
from policies.attention import block_elements

_SEGMENT = 128


def nearest(source: Tensor, target: Tensor, *, block: int | None = None) -> tuple[Tensor, Tensor]:
    """Return for every source vector the cosine of its most similar target and which one that is.

    Args:
        source: (B, H, E, P).
        target: (B, H, K, P), K at least 1.
        block: Elements of the similarity matrix held at a time; default as for attention weights.

    Returns:
        Cosine (B, H, E) fp32 and index into the targets (B, H, E) int64.
    """
    batch, heads, _, width = source.shape
    count = target.shape[2]
    if source.is_cuda:
        units = (functional.normalize(x.float(), dim=-1).flatten(0, 1) for x in (source, target))
        best, which = kernels.nearest(*units)
        return best.view(batch, heads, -1), which.view(batch, heads, -1)
    filler = target[:, :, -1:].expand(-1, -1, -count % _SEGMENT, -1)  # whole segments; index cut back below
    columns = functional.normalize(torch.cat([target, filler], 2).float(), dim=-1).flatten(0, 1).mT
    rows = functional.normalize(source.float(), dim=-1).reshape(batch * heads, -1, width)
    step = max(1, (block or block_elements(source.device)) // columns.shape[2])
    found = []
    for begin in range(batch * heads):
        some = slice(begin, begin + 1)
        starts = range(0, max(1, rows.shape[1]), step)
        parts = [_highest(torch.bmm(rows[some, at : at + step], columns[some])) for at in starts]
        found.append([torch.cat(part, 1) for part in zip(*parts, strict=True)])
    cosine, index = (torch.cat(part).view(batch, heads, -1) for part in zip(*found, strict=True))
    return cosine, index.clamp(max=count - 1)


def _highest(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maximum over the last axis and its index; by segments, as finding an index is slow."""
    segments = similarity.view(*similarity.shape[:2], -1, _SEGMENT)
    which = segments.amax(-1).argmax(-1, keepdim=True)  # (heads, block, 1)
    inside = segments.gather(2, which[..., None].expand(-1, -1, 1, _SEGMENT)).squeeze(2).max(-1)
    return inside.values, which.squeeze(-1) * _SEGMENT + inside.indices


def take_rows(source: Tensor, index: Tensor) -> Tensor:
    """Return rows (B, H, E, C) of source (B, H, S, C) at slots ``index`` (B, H, E)."""
    return source.gather(2, index[..., None].expand(-1, -1, -1, source.shape[-1]))


def blend_values(
    values: Tensor, own: Tensor | None, dropped: Tensor, target: Tensor, added: Tensor
) -> None:
    """Replace values in place by own * value + sum of added * dropped values, fp32 and in a fixed order.

    Args:
        values: A view (B, H, S, C).
        own: Weight of each slot's own value (B, H, S), one where nothing arrives; None is one everywhere.
        dropped: Slots that go (B, H, E).
        target: Slot that takes each of them in (B, H, E), sorted; one that is its own target goes alone.
        added: Weight of each dropped value (B, H, E), 0 where it goes alone.
    """
    if values.is_cuda:
        kernels.blend_rows(values, own, dropped, target, added)
        return
    batch, heads, slots, width = values.shape
    arriving = take_rows(values, dropped).float() * added[..., None]
    blended = values.float() if own is None else values.float() * own[..., None]
    starts = torch.arange(batch * heads, device=values.device).view(batch, heads, 1) * slots
    places = (target + starts).reshape(-1)
    flat = blended.reshape(-1, width).index_add_(0, places, arriving.reshape(-1, width))
    values.copy_(flat.view(values.shape))
