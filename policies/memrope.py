"""MemRoPE: a sink, two moving averages of everything that left, and the newest frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from policies.base import Pass, Policy
from policies.cache import LayerCache
from policies.merging import take_rows
from policies.positional import newest


@dataclass
class MemRope(Policy):
    """Behind the sink stand a long and a short memory of one frame each: moving averages of what leaves.

    Un-rotated keys and values are averaged and rotated anew. When slots leave, memory <- (1 - alpha) * memory
    + alpha * mean, the mean over all that leaves now, the same at every place of the frame; the first time
    the memory is the mean. With ``adaptive`` the mean is taken place by place, and the short memory's alpha
    goes from 0.1 to 5 times ``alpha_short`` with the norm of the change of the key there, as a share of the
    largest.

    Source: arXiv 2603.12513; YoungRaeKimm/MemRoPE@b89bf5b, wan/modules/causal_model.py.
    Deviates: room is made after the chunk, not before it; averages are taken in fp32 and rounded to the cache
        (the original: in the dtype of the model).

    Args:
        alpha_long: Weight of what leaves in the long memory (released: 0.01).
        alpha_short: Weight of what leaves in the short memory (released: 0.1).
        adaptive: Keep the layout of the frame, with a weight that follows motion (released: off).
    """

    alpha_long: float = 0.01
    alpha_short: float = 0.1
    adaptive: bool = False

    name: ClassVar[str] = "memrope"
    source: ClassVar[str] = "arXiv 2603.12513; YoungRaeKimm/MemRoPE@b89bf5b"
    pins: ClassVar[Mapping[str, object]] = MappingProxyType({"sink": "3f", "position": "contiguous"})

    def __post_init__(self) -> None:
        """Reject values outside their ranges."""
        for field, value in (("alpha_long", self.alpha_long), ("alpha_short", self.alpha_short)):
            if not 0 <= value <= 1:
                raise ValueError(f"policy.{field} is {value}; allowed: 0 to 1")

    def begin(self) -> None:
        """Check that the two memories fit the budget.

        Raises:
            ValueError: If they leave less than one latent frame free.
        """
        tokens, frame = self.budget.tokens, self.shape.frame_tokens
        needed = self._memory + 3 * frame + self.budget.recent
        if tokens is not None and tokens < needed:
            raise ValueError(
                f"budget.tokens is {tokens}; policy 'memrope' needs {needed}: sink {self._memory} + two "
                f"memories and one free latent frame of {frame} + recent {self.budget.recent}"
            )

    @property
    def _memory(self) -> int:
        """The first slot of the long memory."""
        return -(-self.budget.sink // self.unit) * self.unit

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the slot number, infinite for sink and memories, (B, H, S)."""
        stays = torch.arange(cache.size, device=cache.device) < self._memory + 2 * self.shape.frame_tokens
        return newest(cache).masked_fill(stays, torch.inf)

    def fold(self, caches: Sequence[LayerCache], kept: Tensor) -> None:
        """Move the memories towards what is about to go, which stands right behind them."""
        frame, first = self.shape.frame_tokens, self._memory
        start = first + 2 * frame
        leaving = slice(start, start + caches[0].size - kept.shape[2])
        for cache in caches:
            parts = [slice(first, first + frame), slice(first + frame, start)]
            means = [self._mean(cache, rows, leaving) for rows in (cache.keys, cache.values)]
            for part, is_short in zip(parts, (False, True), strict=True):
                weight = self._weight(cache, means[0], part, is_short=is_short)
                for rows, mean in zip((cache.keys, cache.values), means, strict=True):
                    memory = rows[:, :, part].float()
                    rows[:, :, part] = ((1 - weight) * memory + weight * mean).to(rows.dtype)
            cache.stats["has_memory"] = 1.0
            cache.rotate_again(start)

    def _mean(self, cache: LayerCache, rows: Tensor, leaving: slice) -> Tensor:
        """Return the mean of the rows that leave, (B, H, 1, D), or place by place (B, H, P, D), fp32."""
        frame, gone = self.shape.frame_tokens, rows[:, :, leaving].float()
        if not self.adaptive or gone.shape[2] < frame:
            return gone.mean(2, keepdim=True)
        mean = gone[:, :, : gone.shape[2] // frame * frame].unflatten(2, (-1, frame)).mean(2)
        place = cache.tokens[:, :, self._memory : self._memory + frame].long()
        return take_rows(mean, (place - cache.tokens[:, :, leaving.start, None]) % frame)

    def _weight(self, cache: LayerCache, mean: Tensor, part: slice, *, is_short: bool) -> Tensor | float:
        """Return the weight of what leaves: a number, or one for each place of the frame, (B, 1, P, 1)."""
        if not cache.stats.get("has_memory"):
            return 1.0
        if not is_short:
            return self.alpha_long
        if not self.adaptive or mean.shape[2] == 1:
            return self.alpha_short
        motion = (mean - cache.keys[:, :, part].float()).norm(dim=-1).mean(1)  # (B, P)
        share = motion / (motion.amax(-1, keepdim=True) + 1e-8)
        weight: Tensor = self.alpha_short * (0.1 + 4.9 * share)
        return weight[:, None, :, None]
