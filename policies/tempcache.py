"""TempCache: of a key that comes again frame after frame keep the last, with the weight and mean of all."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from policies import merging
from policies.base import Pass, Policy
from policies.cache import LayerCache
from policies.positional import newest
from policies.selection import rest

_HEIR, _MASS = "heir", "log_mass"


@dataclass
class TempCache(Policy):
    """Group keys along time; what goes first are the older ones of a group, folded into the newest.

    The heir of a key is the most similar un-rotated key of the next frame, if the cosine is at least
    ``threshold``. Where m slots become one, its value is their mean and log m is added to its logit, which is
    exact for equal keys. When there are no more slots with heirs the oldest go.

    Source: arXiv 2602.01801, Lemma 5.1; no code is published.
    Deviates: correspondence is the exact nearest key from a frame to the next (the paper: approximate, from
        each current query to the keys of the frame before); slots are folded when the budget asks for room,
        not before; its sparse attention is not part of it.

    Args:
        threshold: Cosine from which a key is taken for the same (the paper's correspondence recall is
            0.90 at 0.9).
    """

    threshold: float = 0.9

    name: ClassVar[str] = "tempcache"
    source: ClassVar[str] = "arXiv 2602.01801, Lemma 5.1"
    slot_state: ClassVar[Mapping[str, float]] = MappingProxyType({_HEIR: -1.0, _MASS: 0.0})

    def __post_init__(self) -> None:
        """Reject values outside their ranges."""
        if not -1 <= self.threshold <= 1:
            raise ValueError(f"policy.threshold is {self.threshold}; allowed: -1 to 1")

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Find the heirs of the frame before the chunk and of the chunk's frames but the last."""
        if self.budget.tokens is None or not step.commit:
            return
        frame, heirs = self.shape.frame_tokens, cache.staged_state(_HEIR)
        frames = list(step.keys.split(frame, 2))  # (B, H, P, D) each
        begin, start = step.frames, cache.size
        if self.budget.recent >= frame and cache.size >= frame:  # else that frame may have holes
            frames.insert(0, cache.keys[:, :, -frame:])
            begin, start = begin - 1, start - frame
        for number, (older, newer) in enumerate(itertools.pairwise(frames)):
            cosine, place = merging.nearest(older, newer)
            token = place + (begin + number + 1) * frame
            slots = slice(start + number * frame, start + (number + 1) * frame)
            heirs[:, :, slots] = torch.where(cosine >= self.threshold, token, -1).float()

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the slot number, lower by the size where there is an heir, (B, H, S)."""
        return newest(cache) - cache.size * (cache.slot_state(_HEIR) >= 0)

    def fold(self, caches: Sequence[LayerCache], kept: Tensor) -> None:
        """Move values and weight of the slots that go to the newest of their group that stays."""
        for cache, index in zip(caches, kept.split(caches[0].batch), strict=True):
            is_kept = torch.zeros_like(cache.tokens, dtype=torch.bool).scatter_(2, index, True)
            dropped = rest(index, cache.size)  # (B, H, E)
            target = self._last_heirs(cache, is_kept).gather(2, dropped)
            is_merged = is_kept.gather(2, target)
            target = torch.where(is_merged, target, dropped)  # the others go with themselves
            dropped, target, is_merged = merging.gathered(dropped, target, is_merged)
            weight = cache.slot_state(_MASS).exp()
            arriving = weight.gather(2, dropped) * is_merged
            whole = weight[..., None].clone()
            merging.blend_values(whole, None, dropped, target, is_merged.float())
            whole = whole.squeeze(3)
            merging.blend_values(
                cache.values, weight / whole, dropped, target, arriving / whole.gather(2, target)
            )
            cache.slot_state(_MASS).copy_(whole.log())

    def _last_heirs(self, cache: LayerCache, is_kept: Tensor) -> Tensor:
        """Return for each slot the first kept one along its line of heirs, or the last that is held."""
        heirs, tokens = cache.slot_state(_HEIR).int(), cache.tokens.contiguous()
        slots = torch.arange(cache.size, device=cache.device).expand_as(tokens)
        found = torch.searchsorted(tokens, heirs.contiguous()).clamp(max=cache.size - 1)
        has_next = (heirs >= 0) & (tokens.gather(2, found) == heirs) & ~is_kept
        line = torch.where(has_next, found, slots)
        for _ in range((cache.size // self.shape.frame_tokens).bit_length()):  # each doubles the steps
            line = line.gather(2, line)
        return line
