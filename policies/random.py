"""Random: the honest lower bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from policies.base import Pass, Policy
from policies.cache import LayerCache

_MIX = (-4658895280553007687, -7723592293110705685)  # splitmix64 multipliers as signed 64-bit integers
_STRIDES = (-7046029254386353131, 6364136223846793005, 1442695040888963407)  # for seed, layer, head


@dataclass
class Random(Policy):
    """Keep a uniform sample of everything seen: each token has one priority for life (reservoir sampling).

    The priority is a hash of (seed, layer, head, token), so that a video is the same alone and in a batch.

    Source: none; the reservoir is Vitter 1985 with fixed priorities.
    Deviates: nothing.
    """

    name: ClassVar[str] = "random"
    source: ClassVar[str] = "reservoir sampling with fixed priorities"

    def begin(self) -> None:
        """Put one number per seed on the device, so that nothing is sent there later."""
        numbers = [_wrap(seed * _STRIDES[0]) for seed in self.seeds]
        self._videos = torch.tensor(numbers, device=self.device)[:, None, None]  # (B or 1, 1, 1)

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the priority in [0, 1), (B, H, S)."""
        heads = torch.arange(cache.heads, device=cache.device)[:, None] * _STRIDES[2]
        return priority(cache.tokens.long() + heads + self._videos + _wrap(cache.layer * _STRIDES[1]))


def priority(numbers: Tensor) -> Tensor:
    """Hash int64 numbers to fp32 in [0, 1) with 24 bits (finaliser of splitmix64)."""
    for shift, multiplier in ((30, _MIX[0]), (27, _MIX[1])):
        numbers = (numbers ^ _shift_right(numbers, shift)) * multiplier
    numbers = numbers ^ _shift_right(numbers, 31)
    return (numbers & 0xFFFFFF).float() / 2**24


def _shift_right(numbers: Tensor, bits: int) -> Tensor:
    """Shift right without carrying the sign."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


def _wrap(number: int) -> int:
    """Reduce a Python integer to signed 64 bits."""
    return (number + 2**63) % 2**64 - 2**63
