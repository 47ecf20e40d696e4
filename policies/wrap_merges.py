"""Merges as wrappers around any policy that scores: CaM (values, by chance) and D2O (keys and values)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from policies import affine, history, merging
from policies.base import Pass, Shape
from policies.cache import LayerCache
from policies.random import Random
from policies.selection import rest
from policies.wrappers import Wrapper

_SALT = 15_485_863  # chance of its own: beside `random` the tokens that go would all draw low numbers


@dataclass
class CaM(Wrapper):
    """Add a share of each value that goes to the next slots in time that stay, or, by chance, not.

    With A the attention received so far, a slot that goes is merged with probability min(1, A / mean A of the
    next ``slots`` that stay), and each of these takes 1 / ``slots`` of its value; keys stay.

    Source: CaM, Cache Merging, ICML 2024; code @fc80e64; NVIDIA/kvpress, CAMPress.
    Deviates: attention is the sum over the observed passes (the paper's streaming form); chance is a hash of
        (seed, layer, head, token), so that a video is the same alone and in a batch; slots past the newest
        take nothing.

    Args:
        slots: Slots that share a value (kvpress: 32).
    """

    slots: int = 32

    name: ClassVar[str] = "cam"
    source: ClassVar[str] = "CaM, ICML 2024; NVIDIA/kvpress, CAMPress"
    kind: ClassVar[str] = "merge"

    def begin(self) -> None:
        """Start the policy inside and the chance."""
        super().begin()
        self._chance = Random()
        seeds = [seed + _SALT for seed in self.seeds]
        self._chance.start(self.shape, self.budget, self.protocol, seed=seeds, device=self.device)

    @property
    def merges(self) -> bool:
        """Whether anything is merged."""
        return True

    @property
    def states(self) -> Mapping[str, float]:
        """What each slot carries: its past attention, which the policy inside may hold already."""
        return {**self.inner.states, history.STATE: 0.0}

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Add the attention of this pass, unless the policy inside does."""
        super().observe(cache, step)
        if self.budget.tokens is not None and history.STATE not in self.inner.states:
            history.accumulate(cache, step, self.protocol)

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the score of the policy inside, (B, H, S); note what chance says of each slot."""
        cache.stats["chance"] = self._chance.score(cache, step)
        return super().score(cache, step)

    def fold(self, caches: Sequence[LayerCache], kept: Tensor) -> None:
        """Share the values that go among the next slots that stay."""
        for cache, own in zip(caches, kept.split(caches[0].batch), strict=True):
            chance = cache.stats.pop("chance")
            assert isinstance(chance, Tensor)
            self._fold(cache, own, chance)

    def _fold(self, cache: LayerCache, kept: Tensor, chance: Tensor) -> None:
        dropped, received = rest(kept, cache.size), history.total(cache)
        first = torch.searchsorted(kept.contiguous(), dropped.contiguous())  # (B, H, E), the next that stays
        last = (first + self.slots).clamp(max=kept.shape[2])
        sums = torch.nn.functional.pad(received.gather(2, kept).double().cumsum(2), (1, 0))
        mean = (sums.gather(2, last) - sums.gather(2, first)) / (last - first).clamp(min=1)
        is_merged = chance.gather(2, dropped) * mean < received.gather(2, dropped)
        for step in range(self.slots):
            place = first + step
            is_there = is_merged & (place < kept.shape[2])
            target = kept.gather(2, place.clamp(max=kept.shape[2] - 1))
            merging.blend_values(cache.values, None, dropped, target, is_there / self.slots)


@dataclass
class D2O(Wrapper):
    """Merge keys and values into the most similar key that stays, from a moving threshold of the cosine on.

    The threshold begins as the mean of the largest cosines and then moves half-way to each new mean. A group
    becomes its mean under exp(cosine), the survivor's being that of one.

    Source: arXiv 2406.13035, section 3.3 (token level); AIoT-MLSys-Lab/D2O@12c99d8.
    Deviates: weights are normalised (the code scales by the cosine, so that merged keys shrink); the
        threshold is of a head; no layer is exempt; the paper's sizes per layer are not part of it.
    """

    name: ClassVar[str] = "d2o"
    source: ClassVar[str] = "arXiv 2406.13035, section 3.3; AIoT-MLSys-Lab/D2O@12c99d8"
    kind: ClassVar[str] = "merge"

    @property
    def merges(self) -> bool:
        """Whether anything is merged."""
        return True

    def held_nbytes(self, shape: Shape, batch: int) -> int:
        """Return the bytes of the policy inside and of one threshold per layer and head."""
        return super().held_nbytes(shape, batch) + 4 * batch * shape.layers * shape.heads

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the score of the policy inside, (B, H, S); note where the slots stand."""
        cache.stats["times"] = affine.times_in_force(
            cache, step, self.protocol.position, sink=self.budget.sink
        )
        return super().score(cache, step)

    def fold(self, caches: Sequence[LayerCache], kept: Tensor) -> None:
        """Merge what goes into the most similar key that stays."""
        for cache, own in zip(caches, kept.split(caches[0].batch), strict=True):
            self._fold(cache, own)

    def _fold(self, cache: LayerCache, kept: Tensor) -> None:
        dropped, keys, times = rest(kept, cache.size), cache.rotated, cache.stats.pop("times")
        assert isinstance(times, Tensor)
        cosine, place = merging.nearest(merging.take_rows(keys, dropped), merging.take_rows(keys, kept))
        mean, before = cosine.mean(2, keepdim=True), cache.stats.get("threshold")
        threshold = mean if not isinstance(before, Tensor) else (before + mean) / 2
        cache.stats["threshold"] = threshold
        is_merged = cosine >= threshold
        weight = torch.full(keys.shape[:3], math.e, device=keys.device).scatter(2, dropped, cosine.exp())
        target = torch.where(is_merged, kept.gather(2, place), dropped)
        groups = affine.group(weight, *merging.gathered(dropped, target, is_merged))
        receives = groups.receives()[..., None]
        affine.write_keys(cache, groups.mean(keys), receives, times)
        values = groups.mean(cache.values).to(cache.dtype)
        cache.values.copy_(torch.where(receives, values, cache.values))
