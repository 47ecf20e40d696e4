"""Attention mass of keys from the log-sum-exp of queries: one pass over queries x keys, nothing is kept."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_LOG2_E = 1.4426950408889634
_SUMS = {"KEYS": 128, "ROWS": 64, "num_warps": 4, "num_stages": 3}
_LOG_SUMS = {"KEYS": 128, "ROWS": 64, "num_warps": 4, "num_stages": 3}
_PROGRAMS = 528
"""Fixed, not tuned where they run: equal runs must give equal sums. The fastest of those tried on an H200."""


@triton.jit
def _column_sums(
    queries, keys, log_sums, bias, out, scale, q_h, q_n, k_h, k_n, rows, slots, groups,
    DIM: tl.constexpr, WIDTH: tl.constexpr, HAS_BIAS: tl.constexpr, KEYS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(1).to(tl.int64)
    head = group // groups
    slot = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    channel = tl.arange(0, WIDTH)
    key = tl.load(
        keys + head * k_h + slot[:, None] * k_n + channel[None, :],
        mask=(slot[:, None] < slots) & (channel[None, :] < DIM), other=0.0,
    )  # fmt: skip
    total = tl.zeros((KEYS,), tl.float32)
    added = tl.zeros((KEYS,), tl.float32)
    if HAS_BIAS:
        added = tl.load(bias + head * slots + slot, mask=slot < slots, other=0.0) * 1.4426950408889634
    for begin in range(0, rows, ROWS):
        row = begin + tl.arange(0, ROWS)
        query = tl.load(
            queries + group * q_h + row[None, :] * q_n + channel[:, None],
            mask=(row[None, :] < rows) & (channel[:, None] < DIM), other=0.0,
        )  # fmt: skip
        log_sum = tl.load(log_sums + group * rows + row, mask=row < rows, other=float("inf"))
        logits = tl.dot(key, query, input_precision="ieee") * scale
        if HAS_BIAS:
            logits += added[:, None]
        total += tl.sum(tl.exp2(logits - log_sum[None, :]), 1)
    tl.store(out + group * slots + slot, total, mask=slot < slots)


@triton.jit
def _log_sum(
    queries, keys, bias, out, scale, q_h, q_n, k_h, k_n, rows, slots, groups, part,
    DIM: tl.constexpr, WIDTH: tl.constexpr, HAS_BIAS: tl.constexpr, KEYS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(1).to(tl.int64)
    head = group // groups
    first = tl.program_id(2) * part
    last = tl.minimum(first + part, slots)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, WIDTH)
    query = tl.load(
        queries + group * q_h + row[:, None] * q_n + channel[None, :],
        mask=(row[:, None] < rows) & (channel[None, :] < DIM), other=0.0,
    )  # fmt: skip
    highest = tl.full((ROWS,), -float("inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    for begin in range(first, last, KEYS):
        slot = begin + tl.arange(0, KEYS)
        key = tl.load(
            keys + head * k_h + slot[None, :] * k_n + channel[:, None],
            mask=(slot[None, :] < last) & (channel[:, None] < DIM), other=0.0,
        )  # fmt: skip
        logits = tl.dot(query, key, input_precision="ieee") * scale
        if HAS_BIAS:
            logits += (
                tl.load(bias + head * slots + slot, mask=slot < last, other=0.0)[None, :] * 1.4426950408889634
            )
        logits = tl.where(slot[None, :] < last, logits, -float("inf"))
        above = tl.maximum(highest, tl.max(logits, 1))
        base = tl.where(above == -float("inf"), 0.0, above)  # nothing seen yet but hidden slots
        total = total * tl.exp2(highest - base) + tl.sum(tl.exp2(logits - base[:, None]), 1)
        highest = above
    place = (tl.program_id(2) * tl.num_programs(1) + group) * rows + row
    tl.store(out + place, highest + tl.log2(total), mask=row < rows)


def column_sums(queries: Tensor, keys: Tensor, log_sums: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """See `policies.kernels.column_sums`."""
    (heads, slots, dim), (groups, rows, _) = keys.shape, queries.shape
    out = torch.empty(groups, slots, dtype=torch.float32, device=keys.device)
    base2 = (log_sums.float() * _LOG2_E).contiguous()
    _column_sums[(triton.cdiv(slots, _SUMS["KEYS"]), groups)](
        queries, keys, base2, keys if bias is None else bias.contiguous(), out, dim**-0.5 * _LOG2_E,
        *queries.stride()[:2], *keys.stride()[:2], rows, slots, groups // heads,
        DIM=dim, WIDTH=triton.next_power_of_2(dim), HAS_BIAS=bias is not None, **_SUMS,
    )  # fmt: skip
    return out


def log_sum(queries: Tensor, keys: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """See `policies.kernels.log_sum`; few rows are spread over parts of the slots, to fill the device."""
    (heads, slots, dim), (groups, rows, _) = keys.shape, queries.shape
    blocks = triton.cdiv(rows, _LOG_SUMS["ROWS"]) * groups
    parts = max(1, min(16, _PROGRAMS // blocks, slots // 1024))
    part = triton.cdiv(triton.cdiv(slots, parts), _LOG_SUMS["KEYS"]) * _LOG_SUMS["KEYS"]
    parts = triton.cdiv(slots, part)
    out = torch.empty(parts, groups, rows, dtype=torch.float32, device=keys.device)
    _log_sum[(triton.cdiv(rows, _LOG_SUMS["ROWS"]), groups, parts)](
        queries, keys, keys if bias is None else bias.contiguous(), out, dim**-0.5 * _LOG2_E,
        *queries.stride()[:2], *keys.stride()[:2], rows, slots, groups // heads, part,
        DIM=dim, WIDTH=triton.next_power_of_2(dim), HAS_BIAS=bias is not None, **_LOG_SUMS,
    )  # fmt: skip
    natural = out.div_(_LOG2_E)
    return natural[0] if parts == 1 else natural.logsumexp(0)
