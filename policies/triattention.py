"""TriAttention: keep the keys with the highest expected logit under the mean query of the frames to come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as functional
from torch import Tensor

from policies import statistics
from policies.base import Pass, Policy, Shape
from policies.cache import LayerCache

_MEAN, _SIZE = "query_mean", "query_size"


@dataclass
class TriAttention(Policy):
    """Expected logit at 1, 2, 4, ... frames ahead, and a norm term for what the mean query leaves out.

    With channel pairs as complex numbers: the mean over offsets t of Re sum_f mean(q_f) conj(k_f)
    exp(i w_f d_t), where d_t is the time from key to query, plus sum_f (mean|q_f| - |mean(q_f)|) |k_f|. Row
    and column differences are taken as 0: the query stands at the key's own place. There is no exponential
    and no softmax.

    Source: arXiv 2604.04921; WeianMao/triattention@c3744ee, longlive/kv_compression.py (the video port).
    Deviates: query statistics are measured on the running model, over all queries of the observed passes so
        far (the original: a file made offline from other videos). Times are those under which keys stand, of
        their own frames (the port takes survivors for contiguous). Offset 1 is the first frame after the
        chunk. The sets are per layer and head, chosen after every chunk.

    Args:
        furthest: Largest offset, latent frames; offsets are the powers of two up to it (released: 128).
        standardise: Whether scores are centred and scaled per query head over the slots (released: true);
            changes sets only where heads share one, or a group of query heads a key.
    """

    furthest: int = 128
    standardise: bool = True

    name: ClassVar[str] = "triattention"
    source: ClassVar[str] = "arXiv 2604.04921; WeianMao/triattention@c3744ee"

    def __post_init__(self) -> None:
        """Reject values outside their ranges."""
        if self.furthest < 1:
            raise ValueError(f"policy.furthest is {self.furthest}; allowed: 1 or more latent frames")

    def begin(self) -> None:
        """Put the offsets on the device."""
        powers = range(self.furthest.bit_length())
        self._offsets = torch.tensor([2**power for power in powers], device=self.device)

    def held_nbytes(self, shape: Shape, batch: int) -> int:
        """Return the bytes of the mean query and of the mean size of its pairs."""
        return 4 * batch * shape.layers * shape.query_heads * (shape.head_dim + shape.head_dim // 2)

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Update the mean of the un-rotated queries and of the sizes of their channel pairs."""
        if self.budget.tokens is None:
            return
        rows = statistics.observed(step, self.protocol)
        share = statistics.counted(cache, rows.shape[2])
        statistics.update_mean(cache, _MEAN, rows, share)
        statistics.update_mean(cache, _SIZE, torch.hypot(*self.shape.rope.pairs(rows)), share)

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the highest score over the query heads of a group, (B, H, S)."""
        rope, groups = self.shape.rope, (cache.heads, -1)
        mean = statistics.statistic(cache, _MEAN)
        spread = statistics.statistic(cache, _SIZE) - torch.hypot(*rope.pairs(mean))  # (B, Hq, D/2)
        ahead = rope.turn(mean, *self._mean_turn(step.times)).unflatten(1, groups)  # (B, H, G, D)
        sizes = torch.hypot(*rope.pairs(cache.keys.float()))  # (B, H, S, D/2)
        scores: Tensor = ahead @ self._keys_in_time(cache).mT + spread.unflatten(1, groups) @ sizes.mT
        if self.standardise:
            scores = standardised(scores, cache.used)
        return scores.amax(2)

    def _mean_turn(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean cosines and sines over the offsets, ([B, Hq,] D/2); rows and columns do not turn."""
        rope, group = self.shape.rope, self.shape.query_heads // self.shape.heads
        cos, sin = (part.mean(-2) for part in rope.time_turn(times[..., -1:] + self._offsets))
        still = (0, self.shape.head_dim // 2 - rope.time_pairs)
        cos = functional.pad(cos, still, value=1.0)
        sin = functional.pad(sin, still)
        if times.ndim > 1:
            cos, sin = (part.repeat_interleave(group, 1) for part in (cos, sin))
        return cos, sin

    def _keys_in_time(self, cache: LayerCache) -> Tensor:
        """Return the keys turned in time alone, as they stand, (B, H, S, D) fp32."""
        keys, count = cache.keys.float().clone(), self.shape.rope.time_pairs
        pairs = zip(self.shape.rope.pairs(keys), self.shape.rope.pairs(cache.rotated), strict=True)
        for still, turned in pairs:
            still[..., :count] = turned[..., :count]
        return keys


def standardised(scores: Tensor, used: Tensor | None) -> Tensor:
    """Return scores (B, H, G, S) with mean 0 and deviation 1 over the slots that hold something."""
    weights = torch.ones_like(scores) if used is None else used[:, :, None].float()
    count = weights.sum(-1, keepdim=True)
    centred = scores - (scores * weights).sum(-1, keepdim=True) / count
    deviation = ((centred.square() * weights).sum(-1, keepdim=True) / count).sqrt()
    return centred / deviation.clamp(min=1e-6)
