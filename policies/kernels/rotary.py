"""Rotation of channel pairs straight into the cache, without fp32 copies of the whole tensor."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

_ROWS = 32


@triton.jit
def _turn(
    out, x, cos, sin,
    out_b, out_h, out_n, x_b, x_h, x_n, c_b, c_h, c_n,
    heads, count, half,
    PAIRS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, INTERLEAVED: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(1).to(tl.int64)
    batch, head = program // heads, program % heads
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    pair = tl.arange(0, WIDTH)[None, :]
    is_in = (row < count) & (pair < PAIRS)
    angle = batch * c_b + head * c_h + row * c_n + pair
    c = tl.load(cos + angle, mask=is_in, other=1.0)
    s = tl.load(sin + angle, mask=is_in, other=0.0)
    source = x + batch * x_b + head * x_h + row * x_n
    target = out + batch * out_b + head * out_h + row * out_n
    if INTERLEAVED:
        channel = tl.arange(0, 2 * WIDTH)[None, :]
        is_channel = (row < count) & (channel < 2 * PAIRS)
        both = tl.load(source + channel, mask=is_channel, other=0.0).to(tl.float32)
        first, second = tl.split(tl.reshape(both, (ROWS, WIDTH, 2)))
        turned = tl.join(first * c - second * s, first * s + second * c)
        tl.store(target + channel, tl.reshape(turned, (ROWS, 2 * WIDTH)), mask=is_channel)
    else:
        first = tl.load(source + pair, mask=is_in, other=0.0).to(tl.float32)
        second = tl.load(source + half + pair, mask=is_in, other=0.0).to(tl.float32)
        tl.store(target + pair, first * c - second * s, mask=is_in)
        tl.store(target + half + pair, first * s + second * c, mask=is_in)


def turn(out: Tensor, x: Tensor, cos: Tensor, sin: Tensor, *, is_interleaved: bool) -> None:
    """See `policies.kernels.turn`."""
    batch, heads, count, dim = x.shape
    pairs = cos.shape[-1]
    if count == 0 or pairs == 0:
        return
    if out.stride(3) != 1 or x.stride(3) != 1:
        raise ValueError("turn: the channels of a token must be neighbours in memory")
    cos, sin = cos.contiguous(), sin.contiguous()
    by_head = (0, 0) if cos.ndim == 2 else (heads * count * pairs, count * pairs)
    _turn[(triton.cdiv(count, _ROWS), batch * heads)](
        out, x, cos, sin, *out.stride()[:3], *x.stride()[:3], *by_head, pairs, heads, count, dim // 2,
        PAIRS=pairs, WIDTH=triton.next_power_of_2(pairs), ROWS=_ROWS, INTERLEAVED=is_interleaved,
    )  # fmt: skip
