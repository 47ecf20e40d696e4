"""Attention of one chunk to its context, and the attention mass that slots receive.

``attend`` is the one call that makes a model's output, equal for every policy. ``mass`` reads the same
softmax a second time, column by column, and never holds queries x keys of the whole cache at once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

DENOMINATORS = ("all", "context")
_HAS_WIDE_PRODUCT = hasattr(torch.ops.aten.bmm, "dtype")  # bf16 factors, fp32 product: torch 2.8 on CUDA


def attend(queries: Tensor, keys: Tensor, values: Tensor, *, log_mass: Tensor | None = None) -> Tensor:
    """Return softmax(QK/sqrt(D) + log_mass) V, (B, Hq, N, D).

    Args:
        queries: Rotated queries (B, Hq, N, D).
        keys: Rotated keys (B, H, S, D); Hq is a multiple of H (query heads of a group are neighbours).
        values: Values (B, H, S, D).
        log_mass: Added to the logit of each slot, (B, H, S), or None.
    """
    is_grouped = queries.shape[1] != keys.shape[1]
    bias = None
    if log_mass is not None:
        bias = log_mass.to(queries.dtype).repeat_interleave(queries.shape[1] // keys.shape[1], 1)[:, :, None]
    return functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=bias, enable_gqa=is_grouped
    )


def mass(
    queries: Tensor,
    keys: Tensor,
    *,
    context: int,
    denominator: str = "all",
    stride: int = 1,
    log_mass: Tensor | None = None,
    block: int | None = None,
) -> Tensor:
    """Return the attention that each slot receives: column sums of the softmax, mean over a head group.

    Args:
        queries: Rotated queries (B, Hq, N, D).
        keys: Rotated keys (B, H, S, D), context first.
        context: How many of the S slots are context.
        denominator: ``all``: softmax over context and chunk. ``context``: over the context alone.
        stride: Read one of every ``stride`` queries and scale up; 1 is exact.
        log_mass: Added to the logit of each slot, (B, H, S), or None.
        block: Query rows per block; by default as many as make ``block_elements``.

    Returns:
        (B, H, S), or (B, H, context) for the denominator ``context``; fp32; sums to N over the slots.
    """
    if denominator == "context":
        keys = keys[:, :, :context]
        log_mass = None if log_mass is None else log_mass[:, :, :context]
    (batch, heads, slots, dim), count = keys.shape, queries.shape[2]
    rows = queries[:, :, _strided(count, stride, queries.device)] if stride > 1 else queries
    scale = count / rows.shape[2] / (rows.shape[1] // heads)
    rows = rows.reshape(batch * heads, -1, dim)  # (BH, G * rows, D): a group shares its kv head
    columns = keys.flatten(0, 1).mT  # (BH, D, S)
    bias = None if log_mass is None else log_mass.float().flatten(0, 1)[:, None]
    total = torch.zeros(batch * heads, slots, dtype=torch.float32, device=keys.device)
    together = batch * heads if keys.is_cuda else 1  # a CPU multiplies one head at a time faster than several
    step = block or max(1, block_elements(keys.device) // max(1, together * slots))
    for begin in range(0, batch * heads, together):
        some = slice(begin, begin + together)
        total[some] = _column_sums(rows[some], columns[some], None if bias is None else bias[some], step)
    return total.view(batch, heads, slots) * scale


def _column_sums(rows: Tensor, columns: Tensor, bias: Tensor | None, step: int) -> Tensor:
    """Return the sum over rows of softmax(rows @ columns + bias), (heads, S), ``step`` rows at a time."""
    total = torch.zeros(columns.shape[0], columns.shape[2], dtype=torch.float32, device=columns.device)
    for begin in range(0, rows.shape[1], step):
        scores = _logits(rows[:, begin : begin + step], columns)  # (heads, block, S)
        if bias is not None:
            scores += bias
        total += torch.softmax(scores, -1).sum(1)
    return total


def block_elements(device: torch.device) -> int:
    """Return how many fp32 elements one block of attention weights may have on this device."""
    return 2**26 if device.type == "cuda" else 2**20


def _logits(rows: Tensor, columns: Tensor) -> Tensor:
    """Return rows @ columns / sqrt(D) in fp32, whatever the dtype of the cache."""
    scale = rows.shape[-1] ** -0.5
    if rows.dtype == torch.float32 and columns.dtype == torch.float32:
        return torch.bmm(rows * scale, columns)
    if rows.is_cuda and rows.dtype == columns.dtype and _HAS_WIDE_PRODUCT:
        return torch.bmm(rows, columns, out_dtype=torch.float32).mul_(scale)
    return torch.bmm(rows.float() * scale, columns.float())


def _strided(count: int, stride: int, device: torch.device) -> Tensor:
    """Return one index out of every ``stride``; the offset walks, so that no column of the grid is missed."""
    steps = torch.arange(-(-count // stride), device=device)
    return (steps * stride + steps % stride).clamp(max=count - 1)
