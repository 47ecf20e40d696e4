"""Attention with a bias per key and a length per head, in one kernel that also gives the log-sum-exp.

Where neither is needed, the library's own kernels are taken (see `policies.attention`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

_LOG2_E = 1.4426950408889634
_ROWS, _KEYS = 64, 128
_TUNING = {"num_warps": 4, "num_stages": 3}
"""Fixed, not tuned where it runs: equal runs must give equal sums. The fastest of those tried on an H200."""


@triton.jit
def _block(
    total, highest, accumulated, query, keys, values, bias, pair, start, end, scale,
    WIDTH: tl.constexpr, HAS_BIAS: tl.constexpr, KEYS: tl.constexpr, IS_WHOLE: tl.constexpr,
):  # fmt: skip
    """Take in one block of keys [start, start + KEYS), those from ``end`` on hidden unless it is whole."""
    slot = start + tl.arange(0, KEYS)
    key = tl.reshape(keys.load([pair, start, 0]), (KEYS, WIDTH))
    logits = tl.dot(query, tl.trans(key)) * scale
    if HAS_BIAS:
        added = tl.load(bias + slot) if IS_WHOLE else tl.load(bias + slot, mask=slot < end, other=0.0)
        logits += added[None, :]
    if not IS_WHOLE:
        logits = tl.where(slot[None, :] < end, logits, -float("inf"))
    above = tl.maximum(highest, tl.max(logits, 1))
    base = tl.where(above == -float("inf"), 0.0, above) if HAS_BIAS else above  # only hidden slots so far
    weights = tl.exp2(logits - base[:, None])
    shrink = tl.exp2(highest - base)
    value = tl.reshape(values.load([pair, start, 0]), (KEYS, WIDTH))
    accumulated = tl.dot(weights.to(value.dtype), value, accumulated * shrink[:, None])
    return total * shrink + tl.sum(weights, 1), above, accumulated


@triton.jit
def _over(
    total, highest, accumulated, query, keys, values, bias, pair, begin, end, scale,
    WIDTH: tl.constexpr, HAS_BIAS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Go over the keys [begin, end): whole blocks first, then the rest under a mask."""
    whole = begin + (end - begin) // KEYS * KEYS
    for start in range(begin, whole, KEYS):
        total, highest, accumulated = _block(
            total, highest, accumulated, query, keys, values, bias, pair, start, end, scale,
            WIDTH, HAS_BIAS, KEYS, True,
        )  # fmt: skip
    if whole < end:
        total, highest, accumulated = _block(
            total, highest, accumulated, query, keys, values, bias, pair, whole, end, scale,
            WIDTH, HAS_BIAS, KEYS, False,
        )  # fmt: skip
    return total, highest, accumulated


@triton.jit
def _attention(
    queries, keys, values, bias, lengths, out, log_sums, scale,
    q_b, q_h, q_n, o_b, o_h, o_n, query_heads, group, rows, slots, tail,
    DIM: tl.constexpr, WIDTH: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(1).to(tl.int64)
    batch, query_head = program // query_heads, program % query_heads
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, WIDTH)
    is_in = (row[:, None] < rows) & (channel[None, :] < DIM)
    query = tl.load(
        queries + batch * q_b + query_head * q_h + row[:, None] * q_n + channel[None, :],
        mask=is_in,
        other=0.0,
    )
    pair = (batch * (query_heads // group) + query_head // group).to(tl.int32)
    bias += pair * slots
    highest = tl.full((ROWS,), -float("inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    accumulated = tl.zeros((ROWS, WIDTH), tl.float32)
    first = slots
    if HAS_LENGTHS:
        first = tl.load(lengths + pair)
    total, highest, accumulated = _over(
        total, highest, accumulated, query, keys, values, bias, pair, 0, first, scale, WIDTH, HAS_BIAS, KEYS
    )
    if HAS_LENGTHS:
        total, highest, accumulated = _over(
            total, highest, accumulated, query, keys, values, bias, pair, slots - tail, slots, scale,
            WIDTH, HAS_BIAS, KEYS,
        )  # fmt: skip
    accumulated = accumulated / total[:, None]
    tl.store(
        out + batch * o_b + query_head * o_h + row[:, None] * o_n + channel[None, :],
        accumulated.to(out.dtype.element_ty), mask=is_in,
    )  # fmt: skip
    tl.store(
        log_sums + program * rows + row, (highest + tl.log2(total)) / 1.4426950408889634, mask=row < rows
    )


def attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    tail: int = 0,
) -> tuple[Tensor, Tensor]:
    """See `policies.kernels.attention`."""
    batch, query_heads, rows, dim = queries.shape
    heads, slots = keys.shape[1], keys.shape[2]
    width = triton.next_power_of_2(dim)
    out = torch.empty(batch, rows, query_heads, dim, dtype=queries.dtype, device=queries.device).transpose(
        1, 2
    )
    log_sums = torch.empty(batch, query_heads, rows, dtype=torch.float32, device=queries.device)
    blocks = (_blocks(x, width) for x in (keys, values))
    _attention[(triton.cdiv(rows, _ROWS), batch * query_heads)](
        queries, *blocks, queries if bias is None else bias.float().contiguous() * _LOG2_E,
        queries if lengths is None else lengths.contiguous(), out, log_sums, dim**-0.5 * _LOG2_E,
        *queries.stride()[:3], *out.stride()[:3], query_heads, query_heads // heads, rows, slots, tail,
        DIM=dim, WIDTH=width, HAS_BIAS=bias is not None, HAS_LENGTHS=lengths is not None,
        ROWS=_ROWS, KEYS=_KEYS, **_TUNING,
    )  # fmt: skip
    return out, log_sums


def _blocks(x: Tensor, width: int) -> TensorDescriptor:
    """Describe (B, H, S, D) as (BH, S, D) in blocks of keys, for the copy engine of the device."""
    batch, heads, slots, dim = x.shape
    if batch > 1 and x.stride(0) != heads * x.stride(1):
        x = x.contiguous()
    return TensorDescriptor(x, [batch * heads, slots, dim], [x.stride(1), x.stride(2), 1], [1, _KEYS, width])
