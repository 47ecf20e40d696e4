"""KeyDiff: keep the keys that are least like the mean key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as functional
from torch import Tensor

from policies.base import Pass, Policy
from policies.cache import LayerCache


@dataclass
class KeyDiff(Policy):
    """Minus the cosine between a key and the mean of all keys at unit length; keys as they stand (rotated).

    Source: arXiv 2504.15364; NVIDIA/kvpress@8bb29b9, keydiff_press.py.
    Deviates: blocks are chunks; the protocol's sink and recent slots stay whatever their score (paper: none).
    """

    name: ClassVar[str] = "keydiff"
    source: ClassVar[str] = "arXiv 2504.15364"

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return minus the cosine to the anchor, (B, H, S)."""
        units = functional.normalize(cache.rotated.float(), dim=-1)  # (B, H, S, D)
        used = cache.used
        anchor = (units if used is None else units * used[..., None]).sum(2)  # its length does not matter
        return -(units @ functional.normalize(anchor, dim=-1)[..., None]).squeeze(-1)
