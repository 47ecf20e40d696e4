"""The most similar target of each source vector, without holding sources x targets."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_SOURCES, _TARGETS = 128, 128


@triton.jit
def _nearest(
    source, target, fine_source, fine_target, best, which, count, targets,
    CHANNELS: tl.constexpr, PARTS: tl.constexpr, SOURCES: tl.constexpr, TARGETS: tl.constexpr,
):  # fmt: skip
    """Find the block of targets that holds the maximum, then the place inside it, in fp32."""
    head = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * SOURCES + tl.arange(0, SOURCES)
    channel = tl.arange(0, CHANNELS)
    rows = tl.load(
        source + (head * count + row[:, None]) * CHANNELS + channel[None, :],
        mask=row[:, None] < count,
        other=0.0,
    )
    highest = tl.full((SOURCES,), -float("inf"), tl.float32)
    block = tl.zeros((SOURCES,), tl.int32)
    whole = targets // TARGETS * TARGETS
    for begin in range(0, whole, TARGETS):
        column = begin + tl.arange(0, TARGETS)
        columns = tl.load(target + (head * targets + column[None, :]) * CHANNELS + channel[:, None])
        top = tl.max(tl.dot(rows, columns), 1)
        block = tl.where(top > highest, begin, block)
        highest = tl.maximum(top, highest)
    if whole < targets:
        column = whole + tl.arange(0, TARGETS)
        columns = tl.load(
            target + (head * targets + column[None, :]) * CHANNELS + channel[:, None],
            mask=column[None, :] < targets, other=0.0,
        )  # fmt: skip
        similarity = tl.where(column[None, :] < targets, tl.dot(rows, columns), -float("inf"))
        block = tl.where(tl.max(similarity, 1) > highest, whole, block)
    column = block[:, None] + tl.arange(0, TARGETS)[None, :]
    similarity = tl.zeros((SOURCES, TARGETS), tl.float32)
    for part in tl.static_range(PARTS):
        one = tl.load(fine_source + (head * count + row) * PARTS + part, mask=row < count, other=0.0)
        other = tl.load(
            fine_target + (head * targets + column) * PARTS + part, mask=column < targets, other=0.0
        )
        similarity += one[:, None] * other
    similarity = tl.where(column < targets, similarity, -float("inf"))
    top, place = tl.max(similarity, 1, return_indices=True)
    tl.store(best + head * count + row, top, mask=row < count)
    tl.store(which + head * count + row, block + place, mask=row < count)


def nearest(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """See `policies.kernels.nearest`.

    The block is found by products of halves, x = high + low in half precision and high * high + high * low +
    low * high, which misses about 2**-16; the place inside it by products in fp32.
    """
    heads, count, parts = source.shape
    best = torch.empty(heads, count, dtype=torch.float32, device=source.device)
    which = torch.empty(heads, count, dtype=torch.int64, device=source.device)
    channels = max(16, triton.next_power_of_2(3 * parts))
    if count:
        source, target = source.contiguous(), target.contiguous()
        _nearest[(triton.cdiv(count, _SOURCES), heads)](
            _halves(source, channels, (0, 0, 1)), _halves(target, channels, (0, 1, 0)), source, target,
            best, which, count, target.shape[1],
            CHANNELS=channels, PARTS=parts, SOURCES=_SOURCES, TARGETS=_TARGETS, num_warps=8,
        )  # fmt: skip
    return best, which


def _halves(x: Tensor, channels: int, order: tuple[int, int, int]) -> Tensor:
    """Return the high (0) and low (1) halves of x (BH, N, P) side by side, filled with zeros, (BH, N, C)."""
    high = x.half()
    halves = (high, (x - high).half())
    out = torch.zeros(*x.shape[:2], channels, dtype=torch.float16, device=x.device)
    out[..., : 3 * x.shape[2]] = torch.cat([halves[place] for place in order], -1)
    return out
