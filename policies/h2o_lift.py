"""H2O by lift: keep the slots that receive most attention relative to an even share, whatever their age."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from policies import history
from policies.base import Pass, Policy
from policies.cache import LayerCache

_LIFT, _TIMES = "lift", "opportunities"


@dataclass
class H2OLift(Policy):
    """Heavy hitters by the mean over passes of attention times the number of keys that shared it.

    One is an even share. A sum over queries grows with age, and attention shrinks as the cache fills; the
    mean over the passes that could read a slot removes the first, the number of keys the second.

    Source: ours, after arXiv 2306.14048, Algorithm 1.
    Deviates: from H2O by the two normalisations. A slot that no query could read yet (under the denominator
        ``context`` a new one) counts as even. Queries are those of the passes that the protocol observes; the
        newest slots are protected by the protocol's ``recent``; heads of a group are averaged.
    """

    name: ClassVar[str] = "h2o_lift"
    source: ClassVar[str] = "ours, after arXiv 2306.14048, Algorithm 1"
    slot_state: ClassVar[Mapping[str, float]] = MappingProxyType({_LIFT: 0.0, _TIMES: 0.0})
    reads_attention: ClassVar[bool] = True

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Add the lift of this pass to every slot that it could read."""
        if self.budget.tokens is None:
            return
        received = history.of_pass(cache, step, self.protocol)
        count = received.shape[2]
        used = cache.used
        keys = count if used is None else used[:, :, :count].sum(2, keepdim=True)
        cache.staged_state(_LIFT)[:, :, :count] += received * keys / step.queries.shape[2]
        cache.staged_state(_TIMES)[:, :, :count] += 1.0

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the mean lift per opportunity, (B, H, S)."""
        times = cache.slot_state(_TIMES)
        return torch.where(times > 0, cache.slot_state(_LIFT) / times.clamp(min=1.0), 1.0)
