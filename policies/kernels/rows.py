"""Moving and blending the rows of slots."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

_ROWS = 16


@triton.jit
def _gather(
    source_0, source_1, source_2, target_0, target_1, target_2, index,
    s_b, s_h, s_n, t_b, t_h, t_n, heads, count, i_b, i_h,
    DIM: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(1).to(tl.int64)
    batch, head = program // heads, program % heads
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    slot = tl.load(index + batch * i_b + head * i_h + row, mask=row < count, other=0)[:, None]
    channel = tl.arange(0, WIDTH)[None, :]
    is_in = (row[:, None] < count) & (channel < DIM)
    source = batch * s_b + head * s_h + slot * s_n + channel
    target = batch * t_b + head * t_h + row[:, None].to(tl.int64) * t_n + channel
    tl.store(target_0 + target, tl.load(source_0 + source, mask=is_in), mask=is_in)
    tl.store(target_1 + target, tl.load(source_1 + source, mask=is_in), mask=is_in)
    tl.store(target_2 + target, tl.load(source_2 + source, mask=is_in), mask=is_in)


def gather(sources: tuple[Tensor, ...], targets: tuple[Tensor, ...], index: Tensor) -> None:
    """See `policies.kernels.gather_rows`; three buffers of equal strides."""
    batch, heads, count = index.shape
    dim = sources[0].shape[-1]
    if index.stride(2) != 1:
        index = index.contiguous()
    if count:
        _gather[(triton.cdiv(count, _ROWS), batch * heads)](
            *sources, *targets, index, *sources[0].stride()[:3], *targets[0].stride()[:3], heads, count,
            *index.stride()[:2], DIM=dim, WIDTH=triton.next_power_of_2(dim), ROWS=_ROWS,
        )  # fmt: skip


@triton.jit
def _blend(
    values, own, dropped, target, added, v_b, v_h, v_n, heads, slots, count,
    DIM: tl.constexpr, WIDTH: tl.constexpr, HAS_OWN: tl.constexpr,
):  # fmt: skip
    """One program per run of equal targets: the programs behind the first of a run have nothing to do."""
    program = tl.program_id(1).to(tl.int64)
    batch, head = program // heads, program % heads
    place = tl.program_id(0)
    pairs = program * count
    slot = tl.load(target + pairs + place)
    before = tl.load(target + pairs + place - 1, mask=place > 0, other=-1)
    own_slot = tl.load(dropped + pairs + place)
    if (slot != before) & (slot != own_slot):
        channel = tl.arange(0, WIDTH)
        is_in = channel < DIM
        base = values + batch * v_b + head * v_h
        total = tl.load(base + slot * v_n + channel, mask=is_in, other=0.0).to(tl.float32)
        if HAS_OWN:
            total *= tl.load(own + program * slots + slot)
        current = place
        going = slot
        while going == slot:
            source = tl.load(dropped + pairs + current)
            weight = tl.load(added + pairs + current)
            total += weight * tl.load(base + source * v_n + channel, mask=is_in, other=0.0).to(tl.float32)
            current += 1
            going = tl.load(target + pairs + current, mask=current < count, other=-1)
        tl.store(base + slot * v_n + channel, total, mask=is_in)


def blend(values: Tensor, own: Tensor | None, dropped: Tensor, target: Tensor, added: Tensor) -> None:
    """See `policies.kernels.blend_rows`; the order of each sum is that of the dropped slots."""
    batch, heads, slots, dim = values.shape
    count = dropped.shape[2]
    if count == 0:
        return
    _blend[(count, batch * heads)](
        values, values if own is None else own.contiguous(), dropped.contiguous(), target.contiguous(),
        added.contiguous(), *values.stride()[:3], heads, slots, count,
        DIM=dim, WIDTH=triton.next_power_of_2(dim), HAS_OWN=own is not None,
    )  # fmt: skip
