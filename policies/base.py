"""What a policy is, and the order of steps that frees slots; what it is told is in `policies.terms`.

A policy gives scores; everything that must be equal for a fair comparison (sizes, protected slots, unit, one
set per head or per layer, ties) happens here, in final methods that no policy overrides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, final

import torch
from torch import Tensor

from policies.returns import checked_ranks, checked_scores
from policies.selection import select, select_by_head
from policies.terms import CHOICES, Budget, Pass, Protocol, Segment, Shape

if TYPE_CHECKING:
    from policies.cache import LayerCache

__all__ = ["CHOICES", "Budget", "Pass", "Policy", "Protocol", "Segment", "Shape"]


class Policy:
    """Base of all policies; a policy is a dataclass whose fields are its hyper-parameters.

    Override ``score``; where needed ``begin`` (prepare), ``observe`` (note a pass), ``plan`` (sizes) and
    ``fold`` (merge).
    """

    name: ClassVar[str]
    source: ClassVar[str]
    pins: ClassVar[Mapping[str, object]] = MappingProxyType({})
    is_full: ClassVar[bool] = False
    is_positional: ClassVar[bool] = False  # the score is the slot number: room is made by one shift
    reads_attention: ClassVar[bool] = False  # observe reads the attention of its pass
    widest_head: ClassVar[float] = 1.0  # largest size that plan gives a head, in budgets
    folds_by_head: ClassVar[bool] = False  # fold takes heads that keep sizes of their own
    slot_state: ClassVar[Mapping[str, float]] = MappingProxyType({})  # name -> value of a new slot

    shape: Shape
    budget: Budget
    protocol: Protocol
    seeds: tuple[int, ...]
    device: torch.device

    @final
    def start(
        self,
        shape: Shape,
        budget: Budget,
        protocol: Protocol,
        *,
        seed: int | Sequence[int],
        device: torch.device | str,
    ) -> None:
        """Take what is fixed for a rollout and check that the budget leaves something to decide.

        Args:
            shape: The model.
            budget: Slots per layer and head.
            protocol: What is equal for all policies.
            seed: One for all videos side by side, or one for each.
            device: Where the caches stand.

        Raises:
            ValueError: If sink and recent leave less than one latent frame of the budget.
        """
        budget.require_free_frame(shape.frame_tokens)
        self.check(protocol)
        self.shape, self.budget, self.protocol = shape, budget, protocol
        self.seeds = (seed,) if isinstance(seed, int) else tuple(seed)
        self.device = torch.device(device)
        self.begin()

    def tell(self, prompts: Sequence[str]) -> None:
        """Take the prompts of the videos side by side, before the start; a reference may read them.

        Default: nothing. A policy knows of a video what its cache holds.
        """

    def check(self, protocol: Protocol) -> None:
        """Check fields against the protocol, before a rollout; default: nothing.

        Raises:
            ValueError: If a field asks for what the protocol does not give.
        """

    def begin(self) -> None:
        """Prepare what one rollout needs, and check fields against the model; default: nothing.

        Raises:
            ValueError: If a field does not fit the model or the budget.
        """

    def plan(self, caches: Sequence[LayerCache]) -> Tensor | None:
        """Return slots per (layer, head), an int tensor on the CPU, or None for the budget everywhere."""
        return None

    def ranks(self, cache: LayerCache) -> Tensor | None:
        """Return which of the sizes of its layer's plan each head takes, (B, H) int64, or None for its own.

        With it heads of different kinds get different sizes in every video, though a plan is one for all: it
        says how many heads of a layer get which size, and the ranks say which heads these are.
        """
        return None

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Note what is needed of one pass; called after attention, before the chunk is appended."""

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return (B, H, S) fp32, higher is kept; S includes the chunk that was just appended."""
        raise NotImplementedError(f"policy '{type(self).__name__}' has no score")

    def fold(self, caches: Sequence[LayerCache], kept: Tensor) -> None:
        """Move something of the slots about to go into those that stay; default: nothing.

        Args:
            caches: L layers of the same size.
            kept: Slots that stay, (LB, H, K), the layers one after the other along the batch; filled up with
                slot 0 where a head keeps fewer (`folds_by_head`).
        """

    def absorb(self, cache: LayerCache, start: int, count: int) -> None:
        """Move something of the slots [start, start + count), which a positional policy is about to drop.

        Default: nothing.
        """

    @property
    def merges(self) -> bool:
        """Whether ``fold`` moves anything, under these fields."""
        return type(self).fold is not Policy.fold

    @property
    def states(self) -> Mapping[str, float]:
        """What each slot carries under these fields, name -> value of a new slot, fp32."""
        return self.slot_state

    @property
    def recompute_frames(self) -> int:
        """Latent frames whose keys and values are made anew before each chunk; 0 keeps them."""
        return 0

    def held_nbytes(self, shape: Shape, batch: int) -> int:
        """Return the bytes held across chunks outside the slots, all layers; known before the start."""
        return 0

    def state_nbytes(self) -> int:
        """Return the bytes that the policy object itself holds across chunks."""
        return 0

    def view(
        self, cache: LayerCache, *, first_frame: int, frames: int, commit: bool
    ) -> Sequence[Segment] | None:
        """Return the parts of the context that one pass sees, or None for all of it where it stands.

        Args:
            cache: The layer.
            first_frame: First absolute latent frame of the pass.
            frames: Latent frames of the pass.
            commit: Whether the pass is the one that commits.
        """
        return None

    @final
    def select(self, scores: Tensor, tokens: int) -> Tensor:
        """Return the slots that stay, after unit, share and protection.

        Args:
            scores: (B, H, S) fp32 of one layer, or of several stacked along the batch.
            tokens: Slots to keep.

        Returns:
            (B, H or 1, K) int64, increasing; K is ``tokens`` in whole units.
        """
        unit = self.unit
        keep, sink, recent = tokens // unit, -(-self.budget.sink // unit), -(-self.budget.recent // unit)
        index = select(self._reduced(scores, unit), keep, sink=sink, recent=recent)
        if unit > 1:
            offsets = torch.arange(unit, device=index.device)
            index = (index[..., None] * unit + offsets).flatten(2)
        return index

    @final
    def shift(self, cache: LayerCache, tokens: int) -> None:
        """Bring one layer of a positional policy down to its size by one shift."""
        unit = self.unit
        keep, sink = tokens // unit, -(-self.budget.sink // unit)
        self.absorb(cache, sink * unit, cache.size - keep * unit)
        reads = type(self).absorb is not Policy.absorb or type(self).view is not Policy.view
        cache.drop(sink * unit, cache.size - keep * unit, may_wrap=not reads)

    @final
    def apply(self, caches: Sequence[LayerCache], index: Tensor) -> None:
        """Fold what goes into the slots of ``index`` (LB, H or 1, K) of L layers, then keep these alone."""
        index = index.expand(-1, self.shape.heads, -1)
        self.fold(caches, index.clone() if self.merges else index)  # a fold may write to what it is given
        for cache, own in zip(caches, index.split(caches[0].batch), strict=True):
            cache.keep(own)

    @final
    def apply_by_head(self, cache: LayerCache, score: Tensor, sizes: Sequence[int]) -> None:
        """Keep another number of slots in every head of one layer.

        Args:
            cache: The layer.
            score: (B, H, S) fp32, minus infinity where a slot holds nothing.
            sizes: Slots that each head keeps.

        Raises:
            ValueError: If the policy merges heads of one size alone, or the protocol asks for one set per
                layer.
        """
        if self.merges and not self.folds_by_head:
            raise ValueError(
                f"policy '{self.name}' merges, its plan must be the same for all heads of a layer"
            )
        if self.protocol.share == "layer" or self.unit > 1:
            raise ValueError(f"policy '{self.name}': sizes per head need protocol.share=head and unit=token")
        ranks = checked_ranks(self, self.ranks(cache), cache)
        index = select_by_head(score, sizes, sink=self.budget.sink, recent=self.budget.recent, ranks=ranks)
        if self.merges:
            self.fold([cache], index.clone())
        cache.keep(index, sizes, ranks)

    @property
    def unit(self) -> int:
        """Slots that stay or go together."""
        return self.shape.frame_tokens if self.protocol.unit == "frame" else 1

    @final
    def checked_score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the score of one layer.

        Raises:
            ValueError: If it is anything else than (B, H, S) fp32 where the cache is.
        """
        score = checked_scores(self, self.score(cache, step), cache)
        used = cache.used
        return score if used is None else score.masked_fill(~used, -torch.inf)

    def _reduced(self, score: Tensor, unit: int) -> Tensor:
        """Average scores over the tokens of a unit and, where one set serves a layer, over heads."""
        if unit > 1:
            score = score.reshape(*score.shape[:2], -1, unit).mean(3)
        return score.mean(1, keepdim=True) if self.protocol.share == "layer" else score
