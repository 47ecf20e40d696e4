"""R-KV: keep slots that are read and that no later slot resembles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from policies import history
from policies.cache import LayerCache
from policies.redundancy import Redundancy, unit_keys

_BLOCKS = {"cuda": 2**26, "cpu": 2**19}  # cosines held at a time


@dataclass
class RKV(Redundancy):
    """lam x attention - (1 - lam) x redundancy; both are shares that sum to about one over the slots.

    Attention: of the newest queries, max-pooled along the slots. Redundancy: mean cosine with all other keys,
    where each key spares the newest of those beyond ``threshold``, then a softmax over the slots.

    Source: arXiv 2505.24133; Zefan-Cai/R-KV@cc5a9b9, rkv/compression/r1_kv.py and rkv/utils.py.
    Deviates: the window is in latent frames and at most the chunk (released: 8 tokens), and its slots are
        protected by the protocol's ``recent``. The protocol says over which slots attention sums to one
        (released: all but the window); heads of a group are averaged behind the softmax (released: highest
        logit before). A key that resembles no other spares none (released: it spares slot 0 by accident).

    Args:
        lam: Weight of attention against redundancy, 0 to 1 (released: 0.07).
        window: Newest latent frames whose queries are read (ours: 3, one chunk).
        kernel: Slots whose attention is max-pooled, odd (released: 7).
        threshold: Cosine beyond which keys resemble each other (released: 0.5).
    """

    lam: float = 0.07
    window: int = 3
    kernel: int = 7
    threshold: float = 0.5

    name: ClassVar[str] = "rkv"
    source: ClassVar[str] = "arXiv 2505.24133; Zefan-Cai/R-KV@cc5a9b9"

    def __post_init__(self) -> None:
        """Reject values outside their ranges."""
        if not 0 <= self.lam <= 1:
            raise ValueError(f"policy.lam is {self.lam}; allowed: 0 to 1")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"policy.threshold is {self.threshold}; allowed: 0 to 1")
        if self.window < 1:
            raise ValueError(f"policy.window is {self.window}; allowed: 1 or more latent frames")
        history.require_kernel(self.kernel)

    def alike(self, cache: LayerCache) -> Tensor:
        """See `Redundancy.alike`."""
        return mean_cosine(cache.rotated, threshold=self.threshold, used=cache.used)

    @property
    def queries(self) -> int:
        """See `Redundancy.queries`."""
        return self.window * self.shape.frame_tokens


def mean_cosine(
    keys: Tensor, *, threshold: float, used: Tensor | None = None, block: int | None = None
) -> Tensor:
    """Return each key's mean cosine with the others, less what those spare that it is the newest twin of.

    Args:
        keys: (B, H, S, D).
        threshold: Cosine beyond which two keys are twins.
        used: Which slots hold something, (B, H, S), or None for all of them.
        block: Rows of the Gram matrix held at a time; default as many as make a block.

    Returns:
        (B, H, S) fp32.
    """
    units = unit_keys(keys, used)
    batch, heads, slots, _ = units.shape
    number = torch.arange(slots, dtype=torch.int32, device=keys.device)
    total = torch.zeros(units.shape[:3], device=keys.device)
    rows = block or max(1, _BLOCKS.get(keys.device.type, 2**26) // (batch * heads * slots))
    for begin in range(0, slots, rows):
        cosines = units[:, :, begin : begin + rows] @ units.mT  # (B, H, rows, S)
        cosines.diagonal(begin, 2, 3).zero_()
        newest = torch.where(cosines > threshold, number, -1).amax(-1, keepdim=True)  # -1: no twin
        place = newest.clamp(min=0).long()
        spared = torch.where(newest < 0, cosines.gather(-1, place), 0.0)
        total += cosines.scatter_(-1, place, spared).sum(2)
    return total / (slots if used is None else used.sum(2, keepdim=True))
