"""Attention of the newest chunk against redundancy: what policies share that keep what is read and unlike."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from policies import history
from policies.base import Pass, Policy
from policies.cache import LayerCache


class Redundancy(Policy):
    """lam x attention - (1 - lam) x redundancy; a policy says whose queries are read and what is redundant.

    Attributes:
        lam: Weight of attention against redundancy, 0 to 1.
        kernel: Slots whose attention is max-pooled, odd.
    """

    lam: float
    kernel: int
    reads_attention: ClassVar[bool] = True

    @property
    @abstractmethod
    def queries(self) -> int | None:
        """Newest queries of a chunk whose attention is read; None for all."""

    @abstractmethod
    def alike(self, cache: LayerCache) -> Tensor:
        """Return how much each slot resembles others, (B, H, S) fp32."""

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Note the attention of noisy passes, where the protocol shows them."""
        if self.budget.tokens is not None:
            history.note_noisy(cache, step, self.protocol, queries=self.queries)

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return attention against redundancy, (B, H, S)."""
        received = history.of_chunk(cache, step, self.protocol, queries=self.queries)
        attention = history.pooled(received, "max", self.kernel)
        return self.lam * attention - (1 - self.lam) * share(self.alike(cache), cache.used)


def unit_keys(keys: Tensor, used: Tensor | None) -> Tensor:
    """Return keys (B, H, S, D) at unit length, fp32; zero where a slot holds nothing."""
    units = functional.normalize(keys.float(), dim=-1)
    return units if used is None else units * used[..., None]


def share(scores: Tensor, used: Tensor | None) -> Tensor:
    """Return the softmax of scores (B, H, S) over the slots that hold something."""
    return (scores if used is None else scores.masked_fill(~used, -torch.inf)).softmax(-1)
