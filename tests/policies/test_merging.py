"""The affine merge: its theorem in float64, and a second implementation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from oracles import merging as oracle
from oracles import naive
from stream import SHAPE, make, run, tensors
from torch import Tensor

from policies import affine, merging
from policies.affine import Spread
from policies.base import Budget, Protocol
from policies.cache import LayerCache

DIM, RANK, SLOTS = 16, 5, 12


# -- the theorem ---------------------------------------------------------------------------------------


@dataclasses.dataclass
class Problem:
    """Queries on an affine subspace, and slots of which the first is nearly the last."""

    queries: Tensor  # (1, 1, 1, R, D) float64
    keys: Tensor  # (1, 1, S, D)
    values: Tensor
    basis: Tensor  # (D, r), orthonormal

    @property
    def rows(self) -> Tensor:
        return self.queries[0, 0, 0]

    def output(self, keys: Tensor, values: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attention output (R, D) and the log-sum of all weights (R,)."""
        logits = self.rows @ keys[0, 0].T / DIM**0.5 + bias[0, 0]
        return logits.softmax(-1) @ values[0, 0], logits.logsumexp(-1)


def problem(*, across: float = 0.0, along: float = 0.0) -> Problem:
    """The last key is the first, moved orthogonally to the space of queries and within it."""
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    basis = torch.linalg.qr(draw(DIM, RANK)).Q
    mean, keys, values = 2 * draw(DIM), 2 * draw(1, 1, SLOTS, DIM), draw(1, 1, SLOTS, DIM)
    inside, outside = basis @ draw(RANK), draw(DIM)
    outside -= basis @ (basis.T @ outside)
    keys[..., -1, :] = keys[..., 0, :] + across * outside + along * inside
    rows = mean + draw(300, RANK) @ basis.T
    return Problem(rows[None, None, None], keys, values, basis)


def errors(given: Problem, *, key: str, bias: str) -> tuple[float, float]:
    """Merge the last slot into its nearest; return the largest error of the output and of the log-sum."""
    none = torch.zeros(1, 1, SLOTS, dtype=torch.float64)
    exact = given.output(given.keys, given.values, none)
    mass = (given.rows @ given.keys[0, 0].T / DIM**0.5).softmax(-1).mean(0)[None, None]
    spread = Spread.of(given.queries, 1, ridge=1e-11)
    kept = torch.arange(SLOTS - 1)[None, None]
    groups = affine.pair(spread.project(given.keys), given.values, mass, kept, only_cheaper=False)
    assert groups.target.tolist() == [[[0]]]
    log_mass = groups.log_mass(none, key=key)
    keys = groups.mean(given.keys) if key == "tangent" else given.keys
    if bias == "absorbed":
        keys = keys + log_mass[..., None] * spread.carrier()[:, :, None] * DIM**0.5
    if bias != "explicit":
        log_mass = none
    mine = given.output(keys[:, :, :-1], groups.mean(given.values)[:, :, :-1], log_mass[:, :, :-1])
    output, log_sum = ((a - b).abs().max().item() for a, b in zip(exact, mine, strict=True))
    return output, log_sum


@pytest.mark.parametrize("key", ["tangent", "survivor"])
def test_keys_that_differ_across_the_queries_merge_exactly(key: str) -> None:
    given = problem(across=0.7)
    assert max(errors(given, key=key, bias="explicit")) < 1e-13
    assert errors(given, key=key, bias="none")[0] > 1e-3  # the mass of two is not that of one
    assert errors(problem(along=0.7), key=key, bias="explicit")[0] > 1e-4  # and the theorem is not empty


def test_the_log_mass_is_absorbed_by_the_key_where_the_mean_leaves_the_subspace() -> None:
    assert max(errors(problem(across=0.7), key="tangent", bias="absorbed")) < 1e-7


@pytest.mark.parametrize(("key", "order"), [("tangent", 2), ("survivor", 1)])
def test_order_of_the_log_mass_error(key: str, order: int) -> None:
    wide, narrow = (errors(problem(along=along), key=key, bias="explicit")[1] for along in (2e-2, 1e-2))
    assert wide / narrow == pytest.approx(2**order, rel=0.05)


def test_a_group_is_the_same_whatever_the_order_of_its_merges() -> None:
    generator = torch.Generator().manual_seed(3)
    mass = torch.rand(1, 1, 4, generator=generator, dtype=torch.float64)
    keys = torch.randn(1, 1, 4, DIM, generator=generator, dtype=torch.float64)
    before = torch.rand(1, 1, 4, generator=generator, dtype=torch.float64)

    def merge(order: list[list[int]]) -> list[Tensor]:
        held, part, bias = mass.clone(), keys.clone(), before.clone()
        for slots in order:
            dropped = torch.tensor(slots)[None, None]
            taken = torch.ones_like(dropped, dtype=torch.bool)
            groups = affine.group(held, dropped, torch.zeros_like(dropped), taken)
            bias, part, held = groups.log_mass(bias, key="tangent"), groups.mean(part), groups.total(held)
        return [bias[..., 0], part[..., 0, :], held[..., 0]]

    for order in ([[1], [2], [3]], [[3], [1, 2]]):
        for one, other in zip(merge([[1, 2, 3]]), merge(order), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


def test_predicted_costs_are_those_of_gaussian_queries() -> None:
    given = problem(along=0.15)
    generator = torch.Generator().manual_seed(1)
    scatter = torch.randn(20000, RANK, generator=generator, dtype=torch.float64) @ given.basis.T
    given = dataclasses.replace(given, queries=given.rows.mean(0) + 0.5 * scatter[None, None, None])
    none = torch.zeros(1, 1, SLOTS, dtype=torch.float64)
    exact, _ = given.output(given.keys, given.values, none)
    mass = (given.rows @ given.keys[0, 0].T / DIM**0.5).softmax(-1).mean(0)[None, None]
    spread, kept = Spread.of(given.queries, 1, ridge=0.0 + 1e-9), torch.arange(SLOTS - 1)[None, None]
    projected = spread.project(given.keys)
    groups = affine.pair(projected, given.values, mass, kept, only_cheaper=False)
    squared = (projected[0, 0, 0] - projected[0, 0, -1]).square().sum()[None, None, None]
    costs = affine.costs(squared, given.values, mass, dropped=groups.dropped, target=groups.target)
    parts = (groups.mean(given.keys), groups.mean(given.values), groups.log_mass(none, key="tangent"))
    merged, _ = given.output(*(x[:, :, :-1] for x in parts))
    evicted, _ = given.output(given.keys[:, :, :-1], given.values[:, :, :-1], none[:, :, :-1])
    for predicted, mine in zip(costs, (merged, evicted), strict=True):
        measured = (mine - exact).square().sum(-1).mean().item()
        assert 0.3 < predicted.item() / measured < 3  # to leading order, weights held constant
    assert costs[0] < costs[1]


# -- pairing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [None, 1, 700])
def test_closest_against_all_distances(block: int | None) -> None:
    generator = torch.Generator().manual_seed(4)
    source, target = (torch.randn(2, 3, n, 8, generator=generator) for n in (37, 300))
    squared, index = merging.closest(source, target, block=block)
    everything = torch.cdist(source.double(), target.double()).square()
    assert torch.equal(index, everything.argmin(-1))
    torch.testing.assert_close(squared.double(), everything.amin(-1), rtol=1e-5, atol=1e-5)


# -- a second implementation ---------------------------------------------------------------------------


@pytest.mark.parametrize("position", ["absolute"])
@pytest.mark.parametrize("key", ["tangent", "survivor"])
@pytest.mark.parametrize("bias", ["explicit", "absorbed", "none"])
@pytest.mark.parametrize("where", ["all", "cheaper"])
def test_the_merge_against_float64(position: str, key: str, bias: str, where: str) -> None:
    settings = naive.Setup(
        rows=SHAPE.rows, columns=SHAPE.columns, dims=SHAPE.rope.dims, bases=SHAPE.rope.bases,
        tokens=44, sink=4, recent=16, position=position,
    )  # fmt: skip
    before: list[LayerCache] = []

    def snapshot(cache: LayerCache) -> None:
        copy = {
            name: getattr(cache, name)[0].double().numpy().copy() for name in ("keys", "values", "tokens")
        }
        copy["log_mass"] = cache.staged_state("log_mass")[0].double().numpy().copy()
        before.append(copy)

    stream = run(
        make("future_forcing", merge="affine", key=key, bias=bias, merge_where=where, ridge=0.02),
        Budget(44, sink=4, recent=16), Protocol(position=position), chunks=3, passes=1,
        before_finish=snapshot,
    )  # fmt: skip
    taken = 0
    for layer, cache in enumerate(stream.context.caches):
        held = before[-SHAPE.layers + layer]
        queries = tensors(SHAPE, batch=1, number=2 * SHAPE.layers + layer + 1)[0][0].double().numpy()
        for head in range(SHAPE.heads):
            slots = oracle.Slots(
                [int(x) for x in held["tokens"][head]], held["keys"][head], held["values"][head],
                held["log_mass"][head],
            )  # fmt: skip
            kept = [slots.tokens.index(int(token)) for token in cache.tokens[0, head]]
            rows = oracle.future_rows(queries[head], settings, last_time=3 * SHAPE.chunk_frames - 1)
            mine, merges = oracle.merged(
                slots, kept, rows, settings, ridge=0.02, key=key, bias=bias, only_cheaper=where == "cheaper"
            )
            taken += merges
            np.testing.assert_allclose(cache.keys[0, head].numpy(), mine.keys, atol=2e-4)
            np.testing.assert_allclose(cache.values[0, head].numpy(), mine.values, atol=2e-4)
            np.testing.assert_allclose(
                cache.slot_state("log_mass")[0, head].numpy(), mine.log_mass, atol=2e-4
            )
    assert taken == 4 * 24 if where == "all" else taken > 0
