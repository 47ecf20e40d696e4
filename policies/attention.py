"""Attention of one chunk to its context, and the attention mass that slots receive.

``attend`` is the one call that makes a model's output, equal for every policy. ``mass`` reads the same
softmax a second time, column by column, and never holds queries x keys of the whole cache at once: in blocks
on a CPU, from the log-sum-exp of ``attend`` on CUDA.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from policies import kernels

DENOMINATORS = ("all", "context")
_BACKENDS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
"""In this order: cuDNN is 1.6 to 1.75 times as fast as the flash backend on a Hopper card."""
_HAS_WIDE_PRODUCT = hasattr(torch.ops.aten.bmm, "dtype")  # bf16 factors, fp32 product: torch 2.8 on CUDA


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    log_mass: Tensor | None = None,
    lengths: Tensor | None = None,
    tail: int = 0,
    with_log_sum: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return softmax(QK/sqrt(D) + log_mass) V, (B, Hq, N, D).

    Args:
        queries: Rotated queries (B, Hq, N, D).
        keys: Rotated keys (B, H, S, D); Hq is a multiple of H (query heads of a group are neighbours).
        values: Values (B, H, S, D).
        log_mass: Added to the logit of each slot, (B, H, S), or None.
        lengths: Slots in use at the start per head, (B, H) int32, where heads differ; the last ``tail``
            slots are in use in every head. None: all of them are.
        tail: See ``lengths``.
        with_log_sum: Ask for the log-sum-exp too.

    Returns:
        The attention, and the natural log-sum-exp of each query (B, Hq, N) fp32 where it was asked for and
        comes for nothing (on CUDA), else None.
    """
    if queries.is_cuda and queries.dtype != torch.float32:
        return _attend_cuda(queries, keys, values, log_mass, lengths, tail, with_log_sum)
    group = queries.shape[1] // keys.shape[1]
    bias = None if log_mass is None else log_mass.to(queries.dtype)
    if lengths is not None:
        slot = torch.arange(keys.shape[2], device=keys.device)
        is_used = (slot < lengths[..., None]) | (slot >= keys.shape[2] - tail)
        bias = torch.zeros_like(is_used, dtype=queries.dtype) if bias is None else bias
        bias = bias.masked_fill(~is_used, -torch.inf)
    mask = None if bias is None else bias.repeat_interleave(group, 1)[:, :, None]
    out = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=group > 1)
    return out, None


def _attend_cuda(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    log_mass: Tensor | None,
    lengths: Tensor | None,
    tail: int,
    with_log_sum: bool,
) -> tuple[Tensor, Tensor | None]:
    """Attend in half precision: cuDNN where every head reads every slot alike, else our own kernel."""
    if log_mass is not None or lengths is not None or queries.shape[1] != keys.shape[1]:
        return kernels.attention(queries, keys, values, bias=log_mass, lengths=lengths, tail=tail)
    if with_log_sum and torch.cuda.get_device_capability(queries.device) >= (8, 0):
        out, log_sum, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(
            queries, keys, values, None, True, 0.0, False, False
        )
        return out, log_sum.reshape(queries.shape[:3])
    with sdpa_kernel(_BACKENDS, set_priority=True):
        return functional.scaled_dot_product_attention(queries, keys, values), None


def mass(
    queries: Tensor,
    keys: Tensor,
    *,
    context: int,
    denominator: str = "all",
    stride: int = 1,
    log_mass: Tensor | None = None,
    log_sum: Tensor | None = None,
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
        log_sum: Log-sum-exp of each query over the slots of the denominator, (B, Hq, N) fp32, where known.
        block: Query rows per block; by default as many as make ``block_elements``.

    Returns:
        (B, H, S), or (B, H, context) for the denominator ``context``; fp32; sums to N over the slots.
    """
    if denominator == "context":
        keys = keys[:, :, :context]
        log_mass = None if log_mass is None else log_mass[:, :, :context]
    (batch, heads, slots, dim), count = keys.shape, queries.shape[2]
    if slots == 0:  # the first chunk has no context
        return torch.zeros(batch, heads, 0, device=keys.device)
    chosen = strided(count, stride, queries.device)
    rows = queries if chosen is None else queries[:, :, chosen]
    scale = count / rows.shape[2] / (rows.shape[1] // heads)
    if keys.is_cuda:
        known = log_sum if log_sum is None or chosen is None else log_sum[:, :, chosen]
        return _mass_cuda(rows, keys, log_mass, known).mul_(scale)
    rows = rows.reshape(batch * heads, -1, dim)  # (BH, G * rows, D): a group shares its kv head
    columns = keys.flatten(0, 1).mT  # (BH, D, S)
    bias = None if log_mass is None else log_mass.float().flatten(0, 1)[:, None]
    total = torch.zeros(batch * heads, slots, dtype=torch.float32, device=keys.device)
    step = block or max(1, block_elements(keys.device) // max(1, slots))
    for begin in range(batch * heads):  # a CPU multiplies one head at a time faster than several
        some = slice(begin, begin + 1)
        total[some] = _column_sums(rows[some], columns[some], None if bias is None else bias[some], step)
    return total.view(batch, heads, slots) * scale


def group_mass(queries: Tensor, keys: Tensor, *, log_mass: Tensor | None = None) -> Tensor:
    """Return `mass` of each of G groups of queries over the same slots, mean over the rows of a head group.

    Args:
        queries: Rotated queries (B, Hq, G, R, D).
        keys: Rotated keys (B, H, S, D).
        log_mass: Added to the logit of each slot, (B, H, S), or None.

    Returns:
        (B, H, G, S) fp32; sums to R over the slots.
    """
    if not keys.is_cuda:
        groups = [mass(group, keys, context=keys.shape[2], log_mass=log_mass) for group in queries.unbind(2)]
        return torch.stack(groups, 2)
    (batch, heads, slots, dim), groups_count = keys.shape, queries.shape[2]
    by_group = (
        queries.unflatten(1, (heads, -1)).transpose(2, 3).reshape(batch * heads * groups_count, -1, dim)
    )
    bias = None if log_mass is None else log_mass.float().flatten(0, 1)
    columns = keys.flatten(0, 1)
    known = kernels.log_sum(by_group, columns, bias=bias)
    sums = kernels.column_sums(by_group, columns, known, bias=bias)
    return sums.view(batch, heads, groups_count, slots).div_(queries.shape[1] // heads)


def _mass_cuda(rows: Tensor, keys: Tensor, log_mass: Tensor | None, log_sum: Tensor | None) -> Tensor:
    """Return column sums (B, H, S): the log-sum-exp of each row first, unless it is known, then columns."""
    (batch, heads, slots, dim) = keys.shape
    flat = rows.reshape(batch * heads, -1, dim)  # a group of query heads shares its kv head
    columns = keys.flatten(0, 1)
    bias = None if log_mass is None else log_mass.float().flatten(0, 1)
    known = None if log_sum is None else log_sum.reshape(batch * heads, -1)
    if known is None:
        known = kernels.log_sum(flat, columns, bias=bias)
    return kernels.column_sums(flat, columns, known, bias=bias).view(batch, heads, slots)


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
    """Return how many fp32 elements one block of attention weights may have; CUDA holds none."""
    return 0 if device.type == "cuda" else 2**20


def products(rows: Tensor, columns: Tensor) -> Tensor:
    """Return rows (B, H, R, D) @ columns (B, H, C, D) transposed, (B, H, R, C) fp32.

    On CUDA no factor is copied to fp32.
    """
    if rows.is_cuda and rows.dtype == columns.dtype != torch.float32 and _HAS_WIDE_PRODUCT:
        flat: Tensor = torch.bmm(rows.flatten(0, 1), columns.flatten(0, 1).mT, out_dtype=torch.float32)
        return flat.view(*rows.shape[:2], *flat.shape[1:])
    return torch.matmul(rows.float(), columns.float().mT)


def _logits(rows: Tensor, columns: Tensor) -> Tensor:
    """Return rows @ columns / sqrt(D) in fp32, whatever the dtype of the cache."""
    scale = rows.shape[-1] ** -0.5
    if rows.dtype == torch.float32 and columns.dtype == torch.float32:
        return torch.bmm(rows * scale, columns)
    return torch.bmm(rows.float() * scale, columns.float())


def strided(count: int, stride: int, device: torch.device) -> Tensor | None:
    """Return one index out of every ``stride``, or None for all.

    The offset walks, so that no column of the grid is missed.
    """
    if stride == 1:
        return None
    return staggered(count, stride, 1, device)[0]


def staggered(count: int, stride: int, lanes: int, device: torch.device) -> Tensor:
    """Return one index out of every ``stride`` for each lane, (lanes, R); lanes begin at other places."""
    steps = torch.arange(-(-count // stride), device=device)
    offset = torch.arange(lanes, device=device)[:, None] * stride // lanes
    return (steps * stride + (steps + offset) % stride).clamp(max=count - 1)
