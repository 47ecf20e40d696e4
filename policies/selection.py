"""Which slots stay: from scores to sorted indices, without a word from the device to the host."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor


def select(score: Tensor, tokens: int, *, sink: int = 0, recent: int = 0) -> Tensor:
    """Return the indices of the slots to keep.

    Protected slots are kept whatever their score; of equal scores the newer slot wins.

    Args:
        score: (B, H, S), higher is kept; NaN counts as 0, so that a broken video cannot make an index out of
            range; the rollout stops the video with its place (`policies.soundness`).
        tokens: How many slots to keep, at most S.
        sink: Slots at the start that stay.
        recent: Slots at the end that stay.

    Returns:
        (B, H, tokens) int64, increasing.

    Raises:
        ValueError: If the protected slots are more than may be kept.
    """
    slots = score.shape[-1]
    if tokens >= slots:
        return torch.arange(slots, device=score.device).expand(*score.shape[:-1], slots)
    free = tokens - sink - recent
    if free < 0:
        raise ValueError(f"sink {sink} + recent {recent} do not fit into {tokens} tokens")
    parts = [
        torch.arange(sink, device=score.device),
        torch.arange(slots - recent, slots, device=score.device),
    ]
    first, last = (part.expand(*score.shape[:-1], -1) for part in parts)
    middle = score[..., sink : slots - recent].nan_to_num(0.0, torch.inf, -torch.inf)
    return torch.cat([first, sink + _top(middle, free), last], -1)


def lengths(sizes: Sequence[int], ranks: Tensor | None, device: torch.device) -> Tensor:
    """Return how many slots each head keeps: head h its own of the sizes, (H,), or by rank, (B, H) int32.

    Filled on the device, as a list that is sent there would wait for it.
    """
    runs = [(size, len(list(run))) for size, run in itertools.groupby(sizes)]
    found = torch.cat([torch.full((count,), size, dtype=torch.int32, device=device) for size, count in runs])
    return found if ranks is None else found[ranks]


def select_by_head(
    score: Tensor, sizes: Sequence[int], *, sink: int = 0, recent: int = 0, ranks: Tensor | None = None
) -> Tensor:
    """Return the slots to keep where every head keeps its own number.

    Args:
        score: (B, H, S), higher is kept; -inf marks slots that hold nothing.
        sizes: How many slots each of the H heads keeps.
        sink: Slots at the start that stay.
        recent: Slots at the end that stay.
        ranks: Which of the sizes each head takes, (B, H), where that differs by video; None: its own.

    Returns:
        (B, H, largest size) int64, increasing, filled up with slot 0.

    Raises:
        ValueError: If the protected slots are more than a head may keep.
    """
    if min(sizes) < sink + recent:
        raise ValueError(f"sink {sink} + recent {recent} do not fit into {min(sizes)} tokens of a head")
    slots, largest = score.shape[-1], max(sizes)
    is_empty = score == -torch.inf
    clean = score.nan_to_num(0.0, torch.inf, -torch.inf).masked_fill(is_empty, -torch.inf)
    clean[..., :sink] = torch.inf
    clean[..., slots - recent :] = torch.inf
    newest_first = clean.flip(-1).argsort(dim=-1, descending=True, stable=True)
    rank = torch.empty_like(newest_first)
    rank.scatter_(-1, newest_first, torch.arange(slots, device=score.device).expand_as(rank))
    kept = rank.flip(-1) < lengths(sizes, ranks, score.device)[..., None]
    return _positions(kept, largest, fill=0)


def rest(kept: Tensor, slots: int) -> Tensor:
    """Return the slots that are not kept, (B, H, slots - K) int64, increasing."""
    is_free = torch.ones((*kept.shape[:-1], slots), dtype=torch.bool, device=kept.device)
    is_free.scatter_(-1, kept, False)
    return _positions(is_free, slots - kept.shape[-1])


def _top(score: Tensor, count: int) -> Tensor:
    """Return the sorted indices of the ``count`` highest scores, of equal ones the last."""
    if count == 0:
        return torch.empty((*score.shape[:-1], 0), dtype=torch.int64, device=score.device)
    threshold = score.topk(count, -1, sorted=False).values.amin(-1, keepdim=True)
    is_above, is_equal = score > threshold, score == threshold
    room = count - is_above.sum(-1, keepdim=True)
    newer = is_equal.flip(-1).cumsum(-1).flip(-1)  # 1 for the last of the equal ones, 2 for the one before
    return _positions(is_above | (is_equal & (newer <= room)), count)


def _positions(mask: Tensor, count: int, *, fill: int | None = None) -> Tensor:
    """Return where a mask with ``count`` ones per row is set, (..., count).

    Rows with fewer are filled up with ``fill``.
    """
    slots = mask.shape[-1]
    target = torch.where(mask, mask.cumsum(-1) - 1, count)  # the others go to a last place that is cut off
    out = torch.empty((*mask.shape[:-1], count + 1), dtype=torch.int64, device=mask.device)
    if fill is not None:
        out.fill_(fill)
    out.scatter_(-1, target, torch.arange(slots, device=mask.device).expand(mask.shape))
    return out[..., :count]
