"""`greedy_error`: a reference that knows the future, not a policy. It says how small the error can be made.

Let query i of a later chunk give token j the true weight a_ij and have the true output o_i. Where the tokens
E are gone, its output is off by exactly

    -(sum over E of a_ij (v_j - o_i)) / (1 - sum over E of a_ij),

whatever else is there. So the error needs only what has gone: one vector and one mass per later query. At
each compression the slots whose removal adds least to the squared error go, a few at a time, so that the last
copy of something becomes dear once the others have gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ff_bench.analysis.streams import Truth
from policies.base import Pass, Policy
from policies.cache import LayerCache

NAME = "greedy_error"
_EPSILON = 1e-6


@dataclass
class Later:
    """Sampled queries of the whole video in one layer, and what they have lost.

    Attributes:
        queries: rotated at their true positions, (H, C, R, D): R of each of C chunks, groups joined.
        outputs: their true outputs, (H, C, R, D).
        log_sum: their log-sum-exp over all that the full cache holds, (H, C, R).
        lost: sum of a (v - o) over what has gone, (H, C, R, D).
        gone: sum of a over what has gone, (H, C, R).
    """

    queries: Tensor
    outputs: Tensor
    log_sum: Tensor
    lost: Tensor
    gone: Tensor


class GreedyError(Policy):
    """Keep, per head, the slots whose removal costs least true attention error of the chunks to come.

    Source: none, a reference of this package. Positions are the true ones of the full cache, whatever the
        position mode of the stream.
    Deviates: nothing.
    """

    name = NAME
    source = "a reference that knows the future"

    def __init__(self, found: Sequence[Truth], *, chunks: int = 16, rounds: int = 8) -> None:
        """Take the truth of the whole video.

        Args:
            found: what the full cache does, chunk by chunk.
            chunks: how many chunks to look ahead.
            rounds: in how many parts slots are removed, each judged after the ones before.
        """
        self.found, self.chunks, self.rounds = found, chunks, rounds

    def begin(self) -> None:
        """Lay out the later queries of each layer.

        Raises:
            ValueError: where what is kept is not chosen head by head and token by token.
        """
        if self.protocol.share != "head" or self.protocol.unit != "token":
            raise ValueError(
                f"protocol.share is '{self.protocol.share}' and protocol.unit is '{self.protocol.unit}'; "
                f"{NAME} allows head and token, leave it out with reference=false"
            )
        rows = min(truth.queries.shape[2] for truth in self.found)
        parts = [
            torch.stack([getattr(truth, name)[:, :, :rows] for truth in self.found], 2)
            for name in ("queries", "sampled", "log_sum")
        ]  # (L, Hq, C, R, ...)
        heads = self.shape.heads
        queries, outputs, log_sum = (
            part.unflatten(1, (heads, -1)).transpose(2, 3).flatten(3, 4) for part in parts
        )
        self._later = [
            Later(*of_layer, torch.zeros_like(of_layer[1]), torch.zeros_like(of_layer[2]))
            for of_layer in zip(queries, outputs, log_sum, strict=True)
        ]

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return 1 for what stays and 0 for what goes, (1, H, S); note what it costs the later queries."""
        assert self.budget.tokens is not None, "a full cache has no score"
        rope, later = self.shape.rope, self._later[step.layer]
        angles = rope.angles(cache.frames[0], cache.rows[0], cache.columns[0])
        keys = rope.rotate(cache.keys[0].float(), angles)  # (H, S, D)
        values = cache.values[0].float()
        begin = step.chunk + 1
        is_kept = self._choose(later, keys, values, begin)
        self._note(later, keys, values, begin, ~is_kept)
        return is_kept.float()[None]

    def _choose(self, later: Later, keys: Tensor, values: Tensor, begin: int) -> Tensor:
        """Return which slots stay, (H, S) bool."""
        budget, slots = self.budget, keys.shape[1]
        assert budget.tokens is not None, "a full cache drops nothing"
        is_kept = torch.ones(keys.shape[:2], dtype=torch.bool, device=keys.device)
        surplus = slots - budget.tokens
        some = _window(later, begin, begin + self.chunks)
        if surplus <= 0 or some.queries.shape[1] == 0:
            if surplus > 0:
                is_kept[:, budget.sink : budget.sink + surplus] = False
            return is_kept
        weight = _weights(some, keys)  # (H, R, S)
        own = (some.outputs * some.outputs).sum(-1)[..., None] + (values * values).sum(-1)[:, None]
        apart = (own - 2 * some.outputs @ values.mT).clamp(min=0)  # |v - o|^2
        lost, gone = some.lost.clone(), some.gone.clone()
        quota = -(-surplus // self.rounds)
        for start in range(0, surplus, quota):
            count = min(quota, surplus - start)
            cost = added_cost(weight, apart, lost, gone, some.outputs, values)
            cost[:, : budget.sink] = torch.inf
            cost[:, slots - budget.recent :] = torch.inf
            going = cost.masked_fill(~is_kept, torch.inf).topk(count, -1, largest=False).indices
            is_kept.scatter_(1, going, False)
            taken = torch.zeros_like(is_kept).scatter_(1, going, True)
            removed = weight * taken[:, None]
            total = removed.sum(-1)
            lost += removed @ values - total[..., None] * some.outputs
            gone += total
        return is_kept

    def _note(self, later: Later, keys: Tensor, values: Tensor, begin: int, is_gone: Tensor) -> None:
        """Add to all later queries what they lose, one chunk of them after the other."""
        for chunk in range(begin, later.queries.shape[1]):
            some = _window(later, chunk, chunk + 1)
            removed = _weights(some, keys) * is_gone[:, None]
            total = removed.sum(-1)
            later.lost[:, chunk] += removed @ values - total[..., None] * some.outputs
            later.gone[:, chunk] += total


def added_cost(
    weight: Tensor, apart: Tensor, lost: Tensor, gone: Tensor, outputs: Tensor, values: Tensor
) -> Tensor:
    """Return by how much removing each slot raises the squared error, summed over queries, (H, S).

    Args:
        weight: true weights a, (H, R, S).
        apart: squared distance of value and true output, (H, R, S).
        lost: sum of a (v - o) over what has gone, (H, R, D).
        gone: sum of a over what has gone, (H, R).
        outputs: true outputs, (H, R, D).
        values: (H, S, D).
    """
    along = lost @ values.mT - (lost * outputs).sum(-1)[..., None]  # lost . (v - o)
    before = lost.square().sum(-1)[..., None]
    rest = (1 - gone)[..., None].clamp(min=_EPSILON)
    after = (before + 2 * weight * along + weight.square() * apart) / (rest - weight).clamp(
        min=_EPSILON
    ).square()
    cost: Tensor = (after - before / rest.square()).sum(1)
    return cost


def _window(later: Later, begin: int, end: int) -> Later:
    """Join the rows of some chunks: (H, R, D) and (H, R)."""
    return Later(
        *(
            part[:, begin:end].flatten(1, 2)
            for part in (later.queries, later.outputs, later.log_sum, later.lost, later.gone)
        )
    )


def _weights(some: Later, keys: Tensor) -> Tensor:
    """Return the true weights of slots, (H, R, S)."""
    logits = some.queries @ keys.mT * keys.shape[-1] ** -0.5
    weights: Tensor = (logits - some.log_sum[..., None]).exp()
    return weights
