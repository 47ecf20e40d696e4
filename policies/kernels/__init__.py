"""Kernels for CUDA tensors, written in Triton; what they compute stands in plain torch beside each caller.

Triton is imported when the first of them runs: the package itself needs torch alone.
"""

from __future__ import annotations

from torch import Tensor


def turn(out: Tensor, x: Tensor, cos: Tensor, sin: Tensor, *, is_interleaved: bool) -> None:
    """Write the first P channel pairs of x (B, H, N, D), turned, into those of out; leave the others.

    Args:
        out: (B, H, N, D), of any strides with neighbouring channels.
        x: likewise.
        cos: Cosines (N, P) or (B, H, N, P) fp32.
        sin: Sines, likewise.
        is_interleaved: Whether pair i is channels (2i, 2i + 1) rather than (i, i + D/2).
    """
    from policies.kernels import rotary

    rotary.turn(out, x, cos, sin, is_interleaved=is_interleaved)


def gather_rows(sources: tuple[Tensor, ...], targets: tuple[Tensor, ...], index: Tensor) -> None:
    """Write rows ``index`` (B, H, K) of each source (B, H, S, D) into the first K rows of its target."""
    from policies.kernels import rows

    rows.gather(sources, targets, index)


def blend_rows(values: Tensor, own: Tensor | None, dropped: Tensor, target: Tensor, added: Tensor) -> None:
    """Replace values in place by own * value + sum of added * dropped values where anything arrives.

    Args:
        values: (B, H, S, D).
        own: (B, H, S) fp32; None is one everywhere.
        dropped: Slots that go (B, H, E) int64.
        target: Slot that takes each of them in (B, H, E), sorted; one that is its own target is left alone.
        added: Weight of each dropped value (B, H, E) fp32.
    """
    from policies.kernels import rows

    rows.blend(values, own, dropped, target, added)


def attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    tail: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return softmax(QK/sqrt(D) + bias) V (B, Hq, N, D) and the log-sum-exp (B, Hq, N) fp32.

    Args:
        queries: (B, Hq, N, D) in half precision.
        keys: (B, H, S, D).
        values: (B, H, S, D).
        bias: Added to the logit of each slot, (B, H, S) fp32, or None.
        lengths: Slots in use at the start per head, (B, H) int32; the slots behind them, up to the last
            ``tail`` ones, are not read. None: all of them are in use.
        tail: Slots at the end that every head uses.
    """
    from policies.kernels import flash

    return flash.attention(queries, keys, values, bias=bias, lengths=lengths, tail=tail)


def log_sum(queries: Tensor, keys: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """Return the log-sum-exp of each row's logits, (BHG, R) fp32.

    Args:
        queries: (BHG, R, D), G groups of rows for each of the BH heads.
        keys: (BH, S, D).
        bias: (BH, S) fp32 or None.
    """
    from policies.kernels import columns

    return columns.log_sum(queries, keys, bias=bias)


def column_sums(queries: Tensor, keys: Tensor, log_sums: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """Return the sum over rows of exp(QK/sqrt(D) + bias - log_sums), (BHG, S) fp32.

    Args:
        queries: (BHG, R, D), G groups of rows for each of the BH heads.
        keys: (BH, S, D).
        log_sums: (BHG, R) fp32, natural logarithm.
        bias: (BH, S) fp32 or None.
    """
    from policies.kernels import columns

    return columns.column_sums(queries, keys, log_sums, bias=bias)


def nearest(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each source vector its highest product with a target, and which; (BH, E) fp32 and int64.

    Args:
        source: (BH, E, P) fp32 of unit length.
        target: (BH, K, P) fp32 of unit length.
    """
    from policies.kernels import pairs

    return pairs.nearest(source, target)
