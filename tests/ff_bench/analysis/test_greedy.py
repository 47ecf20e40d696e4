"""The reference that knows the future: its cost is the true change of the error, and the last copy stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ff_bench.analysis.greedy import GreedyError, Later, added_cost
from policies.base import Budget, Protocol
from policies.context import Context
from tests.ff_bench.tiny import tiny_model


def problem(slots: int = 9) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return queries (1, R, D), keys and values (1, S, D), true outputs (1, R, D), float64."""
    generator = torch.Generator().manual_seed(3)
    queries, keys, values = (
        torch.randn(1, count, 4, generator=generator, dtype=torch.float64) for count in (5, slots, slots)
    )
    return queries, keys, values, (queries @ keys.mT / 2).softmax(-1) @ values


def squared_error(is_kept: Tensor) -> float:
    queries, keys, values, outputs = problem()
    logits = (queries @ keys.mT / 2).masked_fill(~is_kept, -torch.inf)
    return float((logits.softmax(-1) @ values - outputs).square().sum())


@pytest.mark.parametrize("gone_before", [(), (2,), (0, 5)])
def test_the_cost_of_a_slot_is_the_true_change_of_the_squared_error(gone_before: tuple[int, ...]) -> None:
    queries, keys, values, outputs = problem()
    weight = (queries @ keys.mT / 2).softmax(-1)
    apart = (values[:, None] - outputs[:, :, None]).square().sum(-1)
    taken = torch.zeros(9, dtype=torch.float64)
    taken[list(gone_before)] = 1
    removed = weight * taken
    lost = removed @ values - removed.sum(-1)[..., None] * outputs
    cost = added_cost(weight, apart, lost, removed.sum(-1), outputs, values)
    for slot in range(9):
        if slot not in gone_before:
            after = taken.clone()
            after[slot] = 1
            change = squared_error(after == 0) - squared_error(taken == 0)
            assert cost[0, slot].item() == pytest.approx(change, rel=1e-6)


def test_of_equal_slots_one_stays() -> None:
    """Eight copies of one slot, each worth little alone, and two slots of some weight; three may stay."""
    shape = tiny_model().shape
    policy = GreedyError((), rounds=64)
    policy.shape, policy.budget = shape, Budget(3)
    keys = torch.zeros(2, 10, 64)
    keys[:, :8, 0], keys[:, 8, 1], keys[:, 9, 2] = 8.0, 8.0, 8.0
    values = torch.zeros(2, 10, 64)
    values[:, :8, 0], values[:, 8, 1], values[:, 9, 2] = 1.0, 1.0, 1.0
    queries = torch.zeros(2, 1, 3, 64)
    queries[:, 0, 0, 0], queries[:, 0, 1, 1], queries[:, 0, 2, 2] = 8.0, 8.0, 8.0
    logits = queries[:, 0] @ keys.mT / 8
    outputs = (logits.softmax(-1) @ values)[:, None]
    zero = torch.zeros_like(outputs)
    later = Later(queries, outputs, logits.logsumexp(-1)[:, None], zero, zero[..., 0])
    is_kept = policy._choose(later, keys, values, 0)
    assert is_kept[:, :8].sum(1).tolist() == [1, 1]
    assert is_kept[:, 8:].all()


def test_it_chooses_head_by_head_and_token_by_token_only() -> None:
    with pytest.raises(ValueError, match="reference=false"):
        Context(GreedyError(()), tiny_model().shape, Budget(512), Protocol(share="layer"))
