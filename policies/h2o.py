"""H2O: keep the slots that have received most attention so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor

from policies import history
from policies.base import Pass, Policy
from policies.cache import LayerCache


@dataclass
class H2O(Policy):
    """Heavy hitters: the sum of attention over all past queries, carried on with the survivors.

    Source: arXiv 2306.14048, Algorithm 1; the variant that really drops, as `utils_real_drop` of
        FMInference/H2O@ac75c2a does.
    Deviates: queries are those of the passes that the protocol observes (the paper: every query); the newest
        slots are protected by the protocol's ``recent`` (the paper: half of the budget); heads of a group are
        averaged.
    """

    name: ClassVar[str] = "h2o"
    source: ClassVar[str] = "arXiv 2306.14048, Algorithm 1"
    slot_state: ClassVar[Mapping[str, float]] = MappingProxyType({history.STATE: 0.0})
    reads_attention: ClassVar[bool] = True

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Add the attention of this pass."""
        if self.budget.tokens is not None:
            history.accumulate(cache, step, self.protocol)

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the accumulated attention mass, (B, H, S)."""
        return history.total(cache)
