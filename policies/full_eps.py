"""Full cache after the smallest possible change: the floor of every difference between two videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from policies.base import Pass, Policy
from policies.cache import LayerCache


@dataclass
class FullEps(Policy):
    """Keep everything; the values of the first committed chunk are one unit in the last place larger.

    Source: none; a control. A difference to ``full`` no larger than its own is chaos, not policy.
    Deviates: nothing.
    """

    name: ClassVar[str] = "full_eps"
    source: ClassVar[str] = "control"
    is_full: ClassVar[bool] = True

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Move the values of the first committed chunk up by one unit in the last place."""
        if step.commit and cache.size == 0:
            values = cache.staged_values
            values.copy_(torch.nextafter(values, torch.full_like(values, torch.inf)))
