"""Budgets as wrappers: sizes per head (AdaKV) or per layer (PyramidKV) around any policy that scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from policies.base import Pass, Protocol
from policies.cache import LayerCache
from policies.wrappers import Wrapper

_WINS = "wins"


@dataclass
class AdaKV(Wrapper):
    """Give a head slots by how many of the best of its layer are its own, above a floor.

    Of the free slots of a layer, sink and recent aside, head h wins those of the layer's best H * base scores
    that are its own; it keeps round((1 - floor) * won + floor * base), and the sum is that of the budget.

    Source: arXiv 2407.11550, Algorithm 1; FFY0/AdaKV, floor_alpha.
    Deviates: a head holds at most twice the budget, so that storage stays bounded, the others share the
        rest;
        remainders go to the largest fractions, so that the sum is met; one video at a time, as a cache has
        one size per head.

    Args:
        floor: Share of the uniform size that every head keeps (published: 0.2).
    """

    floor: float = 0.2

    name: ClassVar[str] = "adakv"
    source: ClassVar[str] = "arXiv 2407.11550, Algorithm 1"
    kind: ClassVar[str] = "budget"
    widest_head: ClassVar[float] = 2.0

    def refuse(self) -> None:
        """Reject a policy that merges: heads of a layer would have survivors of different number."""
        super().refuse()
        if self.inner.merges:
            raise ValueError(
                f"policy.wrap is 'adakv'; allowed: pyramidkv or none, as '{self.inner.name}' merges"
            )

    def check(self, protocol: Protocol) -> None:
        """Reject one set per layer and whole frames: heads keep sets of their own size."""
        super().check(protocol)
        for field, needed in (("share", "head"), ("unit", "token")):
            value = getattr(protocol, field)
            if value != needed:
                raise ValueError(f"protocol.{field} is '{value}'; allowed with policy.wrap=adakv: {needed}")

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the score of the policy inside; note how many of the layer's best slots each head has."""
        if cache.batch > 1:
            raise ValueError(f"batch is {cache.batch}; allowed with policy.wrap=adakv: 1")
        score = super().score(cache, step)
        clean, used = score.nan_to_num(0.0, torch.inf, -torch.inf), cache.used
        if used is not None:
            clean = clean.masked_fill(~used, -torch.inf)
        free = clean[:, :, self.budget.sink : cache.size - self.budget.recent].flatten(1)
        best = free.topk(min(self._base * cache.heads, free.shape[1]), -1).indices
        head = best // (free.shape[1] // cache.heads)
        wins = torch.zeros(1, cache.heads, dtype=torch.int64, device=cache.device)
        cache.stats[_WINS] = wins.scatter_add_(1, head, torch.ones_like(head))
        return score

    @property
    def _base(self) -> int:
        return (self.budget.tokens or 0) - self.budget.sink - self.budget.recent

    def plan(self, caches: Sequence[LayerCache]) -> Tensor | None:
        """Return sizes per (layer, head); reads the wins of all layers, which waits for the device once."""
        wins = torch.cat([x for cache in caches if isinstance(x := cache.stats.pop(_WINS), Tensor)]).tolist()
        window = self.budget.sink + self.budget.recent
        most = int((self.budget.tokens or 0) * self.widest_head)
        sizes = []
        for cache, won in zip(caches, wins, strict=True):
            room = [min(held, most) - window for held in cache.held]
            free = head_sizes(won, room, base=self._base, floor=self.floor)
            sizes.append([window + size for size in free])
        return torch.tensor(sizes)


def head_sizes(won: Sequence[int], room: Sequence[int], *, base: int, floor: float) -> list[int]:
    """Return free slots per head: near (1 - floor) * won + floor * base, in all base per head.

    Args:
        won: Slots of each head among the layer's best.
        room: Free slots that a head has or may have at most.
        base: Free slots per head of the budget.
        floor: Share of ``base`` that every head keeps.
    """
    wanted = [(1 - floor) * count + floor * base for count in won]
    sizes = [min(int(size), most) for size, most in zip(wanted, room, strict=True)]
    left = min(base * len(won), sum(room)) - sum(sizes)
    order = sorted(range(len(won)), key=lambda head: int(wanted[head]) - wanted[head])
    while left > 0:
        open_heads = [head for head in order if sizes[head] < room[head]]
        share = -(-left // len(open_heads))
        for head in open_heads:
            more = min(share, room[head] - sizes[head], left)
            sizes[head] += more
            left -= more
    assert sum(sizes) == min(base * len(won), sum(room)), (sizes, won, room)
    return sizes


@dataclass
class PyramidKV(Wrapper):
    """Give early layers more slots than late ones, linear in depth, the mean that of the budget.

    Of the free slots of the budget (sink and recent aside, every layer has these) the last layer has
    base / beta and the first 2 * base - base / beta. Sizes are made once, in whole latent frames.

    Source: arXiv 2406.02069, section 4.2; Zefan-Cai/KVCache-Factory, PyramidKVCluster.
    Deviates: sizes come from the constant budget (the original's, from the current length, would become
        uniform once the context stands at the budget) and are whole frames; until a context exceeds the
        budget nothing is dropped, as in the original.

    Args:
        beta: How much less than the mean the last layer has (published: 20).
    """

    beta: float = 20.0

    name: ClassVar[str] = "pyramidkv"
    source: ClassVar[str] = "arXiv 2406.02069, section 4.2"
    kind: ClassVar[str] = "budget"
    widest_head: ClassVar[float] = 2.0

    def begin(self) -> None:
        """Make the sizes, (L, H)."""
        super().begin()
        shape, window = self.shape, self.budget.sink + self.budget.recent
        free = (self.budget.tokens or 0) - window
        if self.budget.tokens is None:
            return
        frames = layer_frames(free / shape.frame_tokens, shape.layers, beta=self.beta)
        sizes = [window + count * shape.frame_tokens for count in frames]
        self._sizes = torch.tensor(sizes)[:, None].expand(-1, shape.heads)

    def plan(self, caches: Sequence[LayerCache]) -> Tensor | None:
        """Return the sizes once a context has exceeded the budget."""
        tokens = self.budget.tokens or 0
        is_over = any(cache.has_dropped or cache.size > tokens for cache in caches)
        return self._sizes if is_over else None


def layer_frames(base: float, layers: int, *, beta: float) -> list[int]:
    """Return whole latent frames per layer, falling with depth, each at least one, in all base per layer."""
    least = base / beta
    step = 2 * (base - least) / max(1, layers - 1)
    wanted = [2 * base - least - layer * step if layers > 1 else base for layer in range(layers)]
    frames = [max(1, int(size)) for size in wanted]
    left = int(base * layers + 1e-9) - sum(frames)
    order = sorted(range(layers), key=lambda layer: (int(wanted[layer]) - wanted[layer], layer))
    for layer in order[: max(0, left)]:
        frames[layer] += 1
    while sum(frames) > base * layers + 1e-9:  # the floor of one frame gave too much to the last layers
        frames[frames.index(max(frames))] -= 1
    return sorted(frames, reverse=True)
