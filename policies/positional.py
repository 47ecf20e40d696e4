"""Scores that read positions only."""

from __future__ import annotations

import torch
from torch import Tensor

from policies.cache import LayerCache


def newest(cache: LayerCache) -> Tensor:
    """Return the slot number as score, (B, H, S) fp32: the newer, the higher."""
    slots = torch.arange(cache.size, dtype=torch.float32, device=cache.device)
    return slots.expand(cache.batch, cache.heads, -1)
