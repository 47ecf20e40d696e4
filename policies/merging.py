"""Folding slots that go into slots that stay: pairing by similarity, and sums over pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from policies import kernels
from policies.attention import block_elements

_SEGMENT = 128
_CUDA_BLOCK = 2**26
"""Elements of a product matrix on CUDA, where no kernel does without one: 256 MiB."""
_KERNEL_WIDTH = 21
"""Widest vectors whose blocks fit into a multiprocessor's shared memory, three halves each."""


def nearest(source: Tensor, target: Tensor, *, block: int | None = None) -> tuple[Tensor, Tensor]:
    """Return for every source vector the cosine of its most similar target and which one that is.

    Args:
        source: (B, H, E, P).
        target: (B, H, K, P), K at least 1.
        block: Elements of the similarity matrix held at a time; default as for attention weights.

    Returns:
        Cosine (B, H, E) fp32 and index into the targets (B, H, E) int64.
    """
    if source.is_cuda and source.shape[3] <= _KERNEL_WIDTH:
        units = (functional.normalize(x.float(), dim=-1).flatten(0, 1) for x in (source, target))
        best, which = kernels.nearest(*units)
        return best.view(source.shape[:3]), which.view(source.shape[:3])
    rows, columns = (functional.normalize(x.float(), dim=-1) for x in (source, target))
    return _best(rows, columns, block)


def closest(source: Tensor, target: Tensor, *, block: int | None = None) -> tuple[Tensor, Tensor]:
    """Return for every source vector the squared distance of its closest target and which one that is.

    Args:
        source: (B, H, E, P).
        target: (B, H, K, P), K at least 1.
        block: Elements of the product matrix held at a time.

    Returns:
        Squared distance (B, H, E) and index into the targets (B, H, E) int64.
    """
    length = target.square().sum(-1, keepdim=True)
    columns = torch.cat([target, -0.5 * length], -1)  # x.y - |y|^2 / 2 is highest where |x - y|^2 is lowest
    _, index = _best(functional.pad(source, (0, 1), value=1.0), columns, block)
    return (source - take_rows(target, index)).square().sum(-1), index


def _best(source: Tensor, target: Tensor, block: int | None) -> tuple[Tensor, Tensor]:
    """Return the highest product of each source (B, H, E, P) with a target (B, H, K, P), and which."""
    (batch, heads, _, width), count = source.shape, target.shape[2]
    filler = target[:, :, -1:].expand(-1, -1, -count % _SEGMENT, -1)  # whole segments; index cut back below
    columns = torch.cat([target, filler], 2).flatten(0, 1).mT
    rows = source.reshape(batch * heads, -1, width)
    together = batch * heads if source.is_cuda else 1  # a CPU multiplies one head at a time faster
    limit = block or block_elements(source.device) or _CUDA_BLOCK
    step = max(1, limit // (columns.shape[2] * together))
    found = []
    for begin in range(0, batch * heads, together):
        some = slice(begin, begin + together)
        starts = range(0, max(1, rows.shape[1]), step)
        parts = [_highest(torch.bmm(rows[some, at : at + step], columns[some])) for at in starts]
        found.append([torch.cat(part, 1) for part in zip(*parts, strict=True)])
    best, index = (torch.cat(part).view(batch, heads, -1) for part in zip(*found, strict=True))
    return best, index.clamp(max=count - 1)


def _highest(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maximum over the last axis and its index; by segments, as finding an index is slow."""
    segments = similarity.view(*similarity.shape[:2], -1, _SEGMENT)
    which = segments.amax(-1).argmax(-1, keepdim=True)  # (heads, block, 1)
    inside = segments.gather(2, which[..., None].expand(-1, -1, 1, _SEGMENT)).squeeze(2).max(-1)
    return inside.values, which.squeeze(-1) * _SEGMENT + inside.indices


def take_rows(source: Tensor, index: Tensor) -> Tensor:
    """Return rows (B, H, E, C) of source (B, H, S, C) at slots ``index`` (B, H, E)."""
    return source.gather(2, index[..., None].expand(-1, -1, -1, source.shape[-1]))


def gathered(dropped: Tensor, target: Tensor, is_merged: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bring those that meet in one target together, (B, H, E) each; the rest of a target's order stays."""
    target, order = torch.sort(target, dim=2, stable=True)
    return dropped.gather(2, order), target, is_merged.gather(2, order)


def blend_values(values: Tensor, own: Tensor | None, dropped: Tensor, target: Tensor, added: Tensor) -> None:
    """Replace values in place by own * value + sum of added * dropped values, fixed in order, fp32 or wider.

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
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    arriving = take_rows(wide, dropped) * added[..., None]
    blended = wide.clone() if own is None else wide * own[..., None]
    starts = torch.arange(batch * heads, device=values.device).view(batch, heads, 1) * slots
    places = (target + starts).reshape(-1)
    flat = blended.reshape(-1, width).index_add_(0, places, arriving.reshape(-1, width))
    values.copy_(flat.view(values.shape))
