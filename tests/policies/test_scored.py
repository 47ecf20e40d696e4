"""Policies that only score, against float64 references from their formulas and analytic values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from oracles import naive, scored
from stream import GROUPED, SHAPE, Stream, make, record, run, tensors
from torch import Tensor

from policies.base import Budget, Pass, Protocol
from policies.cache import LayerCache
from policies.redundancy import share
from policies.rkv import mean_cosine
from policies.triattention import standardised

TIGHT = Budget(44, sink=4, recent=16)
CHUNKS = 4
ATTENTION = ("h2o_lift", "tova", "snapkv", "rkv", "flowcache")
CASES: list[tuple[str, dict[str, object]]] = [
    ("h2o_lift", {}),
    ("tova", {}),
    ("knorm", {}),
    ("keydiff", {}),
    ("snapkv", {}),
    ("snapkv", {"window": 1, "kernel": 3, "pooling": "max"}),
    ("snapkv", {"window": 9, "kernel": 1}),
    ("rkv", {}),
    ("rkv", {"lam": 0.9, "window": 2, "kernel": 1, "threshold": 0.2}),
    ("flowcache", {}),
    ("flowcache", {"query_granularity": "frame", "lam": 0.8, "kernel": 3}),
    ("flowcache", {"query_granularity": "token", "lam": 1.0}),
    ("expected_attention", {}),
    ("expected_attention", {"phases": 8, "horizon": 2, "epsilon": 0.01}),
    ("expected_attention", {"average": "inside", "phases": 3}),
    ("expected_attention", {"covariance": False, "value_norm": False}),
    ("triattention", {}),
    ("triattention", {"furthest": 5, "standardise": False}),
]


def toy(position: str, *, tokens: int, sink: int, recent: int) -> naive.Setup:
    return naive.Setup(
        rows=SHAPE.rows, columns=SHAPE.columns, dims=SHAPE.rope.dims, bases=SHAPE.rope.bases,
        tokens=tokens, sink=sink, recent=recent, position=position,
    )  # fmt: skip


def reference(
    name: str, position: str, passes: int, **fields: object
) -> tuple[list[list[scored.Seen]], list[np.ndarray], list[np.ndarray]]:
    """Run an oracle over the tensors of ``stream.run``; return heads by layer, outputs and scores."""
    setup = toy(position, tokens=TIGHT.tokens, sink=TIGHT.sink, recent=TIGHT.recent)
    layers = [[scored.Seen() for _ in range(SHAPE.heads)] for _ in range(SHAPE.layers)]
    outputs, scores, number = [], [], 0
    for chunk in range(CHUNKS):
        for layer, heads in enumerate(layers):
            numbers = [number + 1 + index * SHAPE.layers + layer for index in range(passes)]
            parts = [[x[0].double().numpy() for x in tensors(SHAPE, batch=1, number=n)] for n in numbers]
            for head, seen in enumerate(heads):
                own = [tuple(x[head] for x in part) for part in parts]
                first = chunk * SHAPE.chunk_tokens
                outputs.append(scored.run_chunk(seen, own, first=first, setup=setup))
            found = getattr(scored, name)(heads, setup, **fields)
            if len(heads[0].head.slots) > TIGHT.tokens:
                scores.append(np.stack(found))
                for seen, score in zip(heads, found, strict=True):
                    scored.evict(seen, score, setup)
        number += passes * SHAPE.layers
    return layers, outputs, scores


def assert_equal(
    stream: Stream,
    mine: list[tuple[Tensor, LayerCache, Pass]],
    oracle: tuple[list[list[scored.Seen]], list[np.ndarray], list[np.ndarray]],
) -> None:
    layers, _, scores = oracle
    assert len(mine) == len(scores) == (CHUNKS - 1) * SHAPE.layers
    for (score, _, _), theirs in zip(mine, scores, strict=True):
        np.testing.assert_allclose(score[0].numpy(), theirs, atol=2e-5, rtol=1e-4)
    for cache, heads in zip(stream.context.caches, layers, strict=True):
        for head, seen in enumerate(heads):
            assert cache.tokens[0, head].tolist() == [slot["token"] for slot in seen.head.slots]


@pytest.mark.parametrize("position", ["absolute", "contiguous"])
@pytest.mark.parametrize(("name", "fields"), CASES)
def test_scores_and_sets_of_the_formula(name: str, fields: dict[str, object], position: str) -> None:
    policy = make(name, **fields)
    mine = record(policy)
    stream = run(policy, TIGHT, Protocol(position=position), chunks=CHUNKS, passes=1)
    assert_equal(stream, mine, reference(name, position, 1, **fields))


@pytest.mark.parametrize("name", sorted({name for name, _ in CASES} - {"knorm", "keydiff"}))
def test_all_passes_of_a_chunk_count_alike(name: str) -> None:
    policy = make(name)
    mine = record(policy)
    stream = run(policy, TIGHT, Protocol(position="absolute", passes="all"), chunks=CHUNKS, passes=3)
    assert_equal(stream, mine, reference(name, "absolute", 3))


@pytest.mark.parametrize("name", ATTENTION)
def test_the_context_alone_as_denominator(name: str) -> None:
    policy = make(name)
    mine = record(policy)
    protocol = Protocol(position="absolute", denominator="context")
    stream = run(policy, TIGHT, protocol, chunks=CHUNKS, passes=1)
    assert_equal(stream, mine, reference(name, "absolute", 1, denominator="context"))


@pytest.mark.parametrize(("name", "reduce"), [("expected_attention", np.mean), ("triattention", np.max)])
def test_heads_of_a_group_ask_one_key_each(name: str, reduce: Callable[..., np.ndarray]) -> None:
    policy = make(name)
    mine = record(policy)
    run(policy, Budget(40), Protocol(position="absolute"), shape=GROUPED, chunks=2, passes=1)
    setup = toy("absolute", tokens=40, sink=0, recent=0)
    by_head = [scored.Seen() for _ in range(GROUPED.query_heads)]
    for chunk in range(2):
        number = 1 + chunk * SHAPE.layers  # the first layer
        queries, keys, values = (x[0].double().numpy() for x in tensors(GROUPED, batch=1, number=number))
        for head, seen in enumerate(by_head):
            own = (queries[head], keys[head // 2], values[head // 2])
            scored.run_chunk(seen, [own], first=chunk * SHAPE.chunk_tokens, setup=setup)
    theirs = getattr(scored, name)(by_head, setup)
    for head in range(GROUPED.heads):
        expected = reduce(theirs[2 * head : 2 * head + 2], axis=0)
        np.testing.assert_allclose(mine[0][0][0, head].numpy(), expected, atol=2e-5, rtol=1e-4)


# -- analytic values --------------------------------------------------------------------------------------


def test_even_attention_is_a_lift_of_one_at_any_age() -> None:
    policy = make("h2o_lift")
    mine = record(policy)
    run(policy, Budget(64, recent=24), Protocol(), edit=torch.zeros_like)
    for score, _, _ in mine:
        torch.testing.assert_close(score, torch.ones_like(score))


def test_expected_attention_is_the_mean_over_drawn_queries() -> None:
    policy = make("expected_attention", horizon=1, phases=1, value_norm=False)
    mine, kept = record(policy), []
    run(
        policy, Budget(16), Protocol(), chunks=1, passes=1, edit=lambda x: x / 2,
        before_finish=lambda cache: kept.append(cache.rotated.double()),
    )  # fmt: skip
    score, _, step = mine[0]
    queries = step.queries.double()  # (1, H, N, D)
    centred = queries - queries.mean(2, keepdim=True)
    root = torch.linalg.cholesky(centred.mT @ centred / queries.shape[2])
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 2, 200_000, SHAPE.head_dim, generator=generator, dtype=torch.float64)
    drawn = queries.mean(2, keepdim=True) + noise @ root.mT
    angles = SHAPE.rope.angles(torch.tensor(3), torch.tensor(0), torch.tensor(0))  # the frame behind, token 0
    logits = SHAPE.rope.rotate(drawn, angles).double() @ kept[0].mT / 4
    weights = logits.exp().mean(2)
    torch.testing.assert_close(score.double(), weights / weights.sum(-1, keepdim=True), atol=2e-3, rtol=0.05)


def test_a_twin_that_came_later_is_spared() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0][:5]
    keys = torch.cat([keys, keys[:1]])[None, None]  # slot 5 repeats slot 0, the others are orthogonal
    alike = mean_cosine(keys, threshold=0.5)
    torch.testing.assert_close(alike, torch.zeros(1, 1, 6), atol=1e-6, rtol=0)  # each spares the other
    three = torch.cat([keys, keys[:, :, :1]], 2)  # slots 0, 5 and 6 are alike: 6 is spared by both
    alike = mean_cosine(three, threshold=0.5)[0, 0]
    torch.testing.assert_close(alike, torch.tensor([2.0, 0, 0, 0, 0, 1.0, 0]) / 7, atol=1e-6, rtol=0)


@pytest.mark.parametrize("block", [1, 3, 7, 100])
def test_redundancy_does_not_depend_on_the_block(block: int) -> None:
    keys = torch.randn(2, 3, 20, 8, generator=torch.Generator().manual_seed(1))
    whole = mean_cosine(keys, threshold=0.3)
    torch.testing.assert_close(mean_cosine(keys, threshold=0.3, block=block), whole)


def test_empty_slots_change_nothing() -> None:
    keys = torch.randn(1, 2, 12, 8, generator=torch.Generator().manual_seed(2))
    used = torch.arange(12).expand(1, 2, -1) < 9
    alone = mean_cosine(keys[:, :, :9], threshold=0.3)
    torch.testing.assert_close(mean_cosine(keys, threshold=0.3, used=used)[:, :, :9], alone)
    torch.testing.assert_close(share(keys[..., 0], used)[:, :, :9], keys[:, :, :9, 0].softmax(-1))
    scores = keys[..., 0][:, :, None]
    torch.testing.assert_close(standardised(scores, used)[..., :9], standardised(scores[..., :9], None))


@pytest.mark.parametrize("name", ["expected_attention", "triattention"])
@pytest.mark.parametrize("passes", ["clean", "all"])
def test_statistics_are_as_large_as_they_say(name: str, passes: str) -> None:
    policy = make(name)
    stream = run(policy, protocol=Protocol(passes=passes), shape=GROUPED, batch=2)
    stats = [x for cache in stream.context.caches for x in cache.stats.values() if isinstance(x, Tensor)]
    assert sum(x.nbytes for x in stats) == policy.held_nbytes(GROUPED, 2)


@pytest.mark.parametrize("name", ["tova", "snapkv", "rkv", "flowcache"])
def test_attention_of_a_chunk_leaves_nothing_behind(name: str) -> None:
    stream = run(make(name), protocol=Protocol(passes="all"))
    assert not any(cache.stats for cache in stream.context.caches)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("expected_attention", "horizon", 0),
        ("expected_attention", "phases", 0),
        ("expected_attention", "average", "middle"),
        ("expected_attention", "epsilon", -1.0),
        ("triattention", "furthest", 0),
        ("snapkv", "window", 0),
        ("snapkv", "kernel", 4),
        ("snapkv", "pooling", "mean"),
        ("rkv", "lam", 2.0),
        ("rkv", "threshold", -0.1),
        ("rkv", "window", 0),
        ("rkv", "kernel", 0),
        ("flowcache", "lam", -0.1),
        ("flowcache", "query_granularity", "row"),
        ("flowcache", "kernel", 2),
    ],
)
def test_a_value_that_makes_no_sense_is_named(name: str, field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"policy\.{field} is '?{value}'?; allowed: "):
        make(name, **{field: value})
