"""Knorm: keep the keys with the smallest norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from policies.base import Pass, Policy
from policies.cache import LayerCache


@dataclass
class Knorm(Policy):
    """Minus the Euclidean norm of the key, in fp32: most norms taken in bfloat16 tie.

    Source: arXiv 2406.11430; NVIDIA/kvpress@8bb29b9, knorm_press.py.
    Deviates: room is made after every chunk; all layers take part (the original leaves the first two whole).
    """

    name: ClassVar[str] = "knorm"
    source: ClassVar[str] = "arXiv 2406.11430"

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return minus the norm of each key, (B, H, S); a rotation does not change it."""
        norms: Tensor = cache.keys.float().norm(dim=-1)
        return -norms
