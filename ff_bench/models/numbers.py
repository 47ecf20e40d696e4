"""Whether tensors of a file are weights: numbers of a format that networks have, and finite all of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ff_bench.errors import UsageError, shown

FORMATS = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
)  # fmt: skip
"""Formats that stand for numbers by themselves; others are codes, and mean nothing without their scales."""


def refuse_formats(weights: Mapping[str, Tensor], what: object) -> None:
    """Refuse tensors that hold something else than floating-point numbers, or less than they promise.

    Args:
        weights: as a file has them.
        what: begins the sentence, such as the path of the file.

    Raises:
        UsageError: with how many there are, and the first of them.
    """
    lacks = {name: _lack(value) for name, value in sorted(weights.items())}
    wrong = [name for name, lack in lacks.items() if lack]
    if wrong:
        raise UsageError(
            f"{what} does not fit: {len(wrong)} tensors are no weights, the first is {shown(wrong[0])}, "
            f"which {lacks[wrong[0]]}"
        )


def _lack(value: Tensor) -> str:
    """Say why a tensor is no weight; empty where it is one."""
    if value.dtype not in FORMATS:
        return f"holds {str(value.dtype).removeprefix('torch.')}, allowed are floating-point numbers"
    if value.layout != torch.strided or value.is_meta:
        return "is not stored number by number"
    if not value.numel():
        return f"has no number, its shape is {tuple(value.shape)}"
    # A few numbers that stand for a large tensor would ask for more memory than any file has.
    if value.untyped_storage().nbytes() < value.numel() * value.element_size():
        return f"promises more numbers than the file has, its shape is {tuple(value.shape)}"
    return ""


def refuse_infinite(weights: Mapping[str, Tensor], what: object) -> None:
    """Refuse weights with NaN or infinity: whatever such a network draws would be a wrong number.

    Args:
        weights: where they stay, in the format that they are used in; one pass over them, waited for once.
        what: begins the sentence, such as the path of the file.

    Raises:
        UsageError: with how many tensors there are, and the first of them.
    """
    named = sorted(weights)
    if not named:
        return
    sums = torch.stack([weights[name].sum(dtype=torch.float32) for name in named])
    is_finite = torch.isfinite(sums).tolist()  # a sum is not where a summand is not
    wrong = [name for name, fine in zip(named, is_finite, strict=True) if not fine]
    if wrong:
        raise UsageError(
            f"{what} is damaged: {len(wrong)} tensors hold NaN or infinity, the first is {shown(wrong[0])}"
        )
