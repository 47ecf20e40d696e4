"""KeepKV: merge what leaves into a similar key, and count votes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from policies import affine, history, merging
from policies.base import Pass, Policy
from policies.cache import LayerCache
from policies.selection import rest

_AVERAGE = "average"
_SCALES = (0.5, 2.0)
"""Smallest and largest factor of a merged key."""


@dataclass
class KeepKV(Policy):
    """Keep the slots with the largest moving average of attention; fold the others with their votes.

    A slot has p votes and weighs p exp(s), s its logit. Those that go join the most similar key that stays:
    votes are added, key and value are means under p exp(s). With ``key=zip`` the key is scaled too, so that
    the merged slot weighs for the mean query exactly what its parts did (ZIP merging).

    Source: arXiv 2504.09936, electoral votes and ZIP merging; kkvcache/KeepKV@a25a2b5.
    Deviates: the logit is that under the mean query of the committing pass (the paper: one query at a time,
        then an average over past scores); several slots join one survivor at once; the default leaves the
        paper's factor out, as the released code does: under many queries it is a quotient of logits of any
        sign (with ``zip`` it is held in 0.5 to 2, and is 1 beside a logit of zero); the average over time
        starts with a slot's first pass, its weight is ours.

    Args:
        tau: Cosine of rotated keys from which a slot is merged, else it is dropped (paper: 0.8).
        decay: Weight of the past in the moving average of attention (ours: 0.9 a pass).
        key: ``mean`` (released code) or ``zip`` (paper).
    """

    tau: float = 0.8
    decay: float = 0.9
    key: str = "mean"

    name: ClassVar[str] = "keepkv"
    source: ClassVar[str] = "arXiv 2504.09936; kkvcache/KeepKV@a25a2b5"
    slot_state: ClassVar[Mapping[str, float]] = MappingProxyType({_AVERAGE: -1.0, affine.LOG_MASS: 0.0})
    reads_attention: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Reject values outside their ranges."""
        if not -1 <= self.tau <= 1:
            raise ValueError(f"policy.tau is {self.tau}; allowed: -1 to 1")
        if not 0 <= self.decay < 1:
            raise ValueError(f"policy.decay is {self.decay}; allowed: 0 or more, below 1")
        if self.key not in ("mean", "zip"):
            raise ValueError(f"policy.key is '{self.key}'; allowed: mean, zip")

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Move each slot's average towards the attention of this pass; a new slot begins with it."""
        if self.budget.tokens is None:
            return
        received = history.of_pass(cache, step, self.protocol) / step.queries.shape[2]
        average = cache.staged_state(_AVERAGE)[:, :, : received.shape[2]]
        average.copy_(torch.where(average < 0, received, torch.lerp(received, average, self.decay)))

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the moving average, (B, H, S); note the logits under the mean query and the positions."""
        query = step.rotated_queries.float().mean(2).unflatten(1, (cache.heads, -1)).mean(2)  # (B, H, D)
        logits = cache.rotated.float() @ query[..., None] * cache.shape.head_dim**-0.5
        cache.stats["logit"] = logits.squeeze(-1)
        cache.stats["times"] = affine.times_in_force(
            cache, step, self.protocol.position, sink=self.budget.sink
        )
        return cache.slot_state(_AVERAGE).clamp(min=0)

    def fold(self, caches: Sequence[LayerCache], kept: Tensor) -> None:
        """Merge what goes into the most similar key that stays, from a cosine of ``tau`` on."""
        for cache, own in zip(caches, kept.split(caches[0].batch), strict=True):
            logit, times = cache.stats.pop("logit"), cache.stats.pop("times")
            assert isinstance(logit, Tensor) and isinstance(times, Tensor)
            self._fold(cache, own, logit, times)

    def _fold(self, cache: LayerCache, kept: Tensor, logit: Tensor, times: Tensor) -> None:
        votes, average = cache.slot_state(affine.LOG_MASS), cache.slot_state(_AVERAGE)
        weight = logit + votes  # log of p exp(s), (B, H, S)
        groups = self._groups(cache, kept, (weight - weight.amax(-1, keepdim=True)).exp())
        receives = groups.receives()
        counted = torch.where(receives, groups.total(votes.exp()).log(), votes)
        rotated = groups.mean(cache.rotated)
        if self.key == "zip":
            wanted = weight - groups.own.log() - counted  # the logit at which the merged slot weighs the same
            found = groups.mean(logit[..., None]).squeeze(-1)
            rotated *= torch.where(found.abs() > 1e-3, wanted / found, 1.0).clamp(*_SCALES)[..., None]
        affine.write_keys(cache, rotated, receives[..., None], times)
        values = groups.mean(cache.values).to(cache.dtype)
        cache.values.copy_(torch.where(receives[..., None], values, cache.values))
        average.copy_(groups.total(average))
        votes.copy_(counted)

    def _groups(self, cache: LayerCache, kept: Tensor, weight: Tensor) -> affine.Groups:
        """Pair by cosine; shares follow from ``weight`` (B, H, S)."""
        dropped, keys = rest(kept, cache.size), cache.rotated
        cosine, place = merging.nearest(merging.take_rows(keys, dropped), merging.take_rows(keys, kept))
        is_merged = cosine >= self.tau
        return affine.group(
            weight,
            *merging.gathered(dropped, torch.where(is_merged, kept.gather(2, place), dropped), is_merged),
        )
