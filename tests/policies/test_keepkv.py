"""KeepKV against its formulas: pairs, votes, and the key that weighs what its parts did."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from oracles import naive
from stream import SHAPE, make, run, tensors

from policies.base import Budget, Protocol
from policies.cache import LayerCache

Array = np.ndarray
TIGHT = Budget(44, sink=4, recent=16)
SETUP = naive.Setup(
    rows=SHAPE.rows, columns=SHAPE.columns, dims=SHAPE.rope.dims, bases=SHAPE.rope.bases,
    tokens=44, sink=4, recent=16,
)  # fmt: skip


@dataclass
class Head:
    """One head: keys as the queries at hand read them, and the votes of each slot."""

    tokens: list[int]
    keys: Array
    values: Array
    votes: Array
    average: Array


def merged(before: Head, kept: list[int], query: Array, *, tau: float, key: str) -> tuple[Head, int]:
    """Merge with the formulas of the paper, one group at a time; also return how many were merged."""
    logits = before.keys @ query / math.sqrt(len(query))
    unit = before.keys / np.linalg.norm(before.keys, axis=1, keepdims=True)
    groups: dict[int, list[int]] = {i: [i] for i in kept}
    for j in sorted(set(range(len(before.tokens))) - set(kept)):
        cosines = unit[kept] @ unit[j]
        if cosines.max() >= tau:
            groups[kept[int(cosines.argmax())]].append(j)
    out = Head([before.tokens[i] for i in kept], *([] for _ in range(4)))
    for members in groups.values():
        weights = before.votes[members] * np.exp(logits[members])
        votes = before.votes[members].sum()
        mean = weights @ logits[members] / weights.sum()
        factor = math.log(weights.sum() / votes) / mean
        is_plain = key == "mean" or len(members) == 1 or abs(mean) < 1e-3
        factor = 1.0 if is_plain else min(max(factor, 0.5), 2.0)
        out.keys.append(factor * weights @ before.keys[members] / weights.sum())
        out.values.append(weights @ before.values[members] / weights.sum())
        out.votes.append(votes)
        out.average.append(before.average[members].sum())
    arrays = (np.array(x) for x in (out.keys, out.values, out.votes, out.average))
    return Head(out.tokens, *arrays), sum(len(members) - 1 for members in groups.values())


def snapshots(tau: float, chunks: int, key: str) -> tuple[list[LayerCache], list[list[Head]]]:
    """Return the caches at the end and every head before the last merge."""
    found: list[list[Head]] = []

    def note(cache: LayerCache) -> None:
        parts = (cache.rotated, cache.values, cache.slot_state("log_mass").exp(), cache.slot_state("average"))
        arrays = [part[0].double().numpy().copy() for part in parts]
        found.append([Head(cache.tokens[0, h].tolist(), *(x[h] for x in arrays)) for h in range(SHAPE.heads)])

    policy = make("keepkv", tau=tau, key=key)
    stream = run(policy, TIGHT, Protocol(position="absolute"), chunks=chunks, passes=1, before_finish=note)
    return stream.context.caches, found[-SHAPE.layers :]


@pytest.mark.parametrize("tau", [0.0, 0.4, 0.8])
@pytest.mark.parametrize("chunks", [2, 3])
@pytest.mark.parametrize("key", ["mean", "zip"])
def test_merges_votes_and_keys(tau: float, chunks: int, key: str) -> None:
    caches, before = snapshots(tau, chunks, key)
    count = 0
    for layer, cache in enumerate(caches):
        queries = (
            tensors(SHAPE, batch=1, number=(chunks - 1) * SHAPE.layers + layer + 1)[0][0].double().numpy()
        )
        for head, held in enumerate(before[layer]):
            first = (chunks - 1) * SHAPE.chunk_tokens
            turned = [
                naive.rotate(query, *naive.place(first + number, SETUP), SETUP)
                for number, query in enumerate(queries[head])
            ]
            kept = [held.tokens.index(token) for token in cache.tokens[0, head].tolist()]
            expected, merges = merged(held, kept, np.mean(turned, 0), tau=tau, key=key)
            count += merges
            for mine, theirs in (
                (cache.rotated, expected.keys), (cache.values, expected.values),
                (cache.slot_state("log_mass"), np.log(expected.votes)),
                (cache.slot_state("average"), expected.average),
            ):  # fmt: skip
                np.testing.assert_allclose(mine[0, head].numpy(), theirs, atol=2e-4)
    assert count > 0 or tau == 0.8


def test_zip_keeps_the_weight_for_the_mean_query() -> None:
    """Under ``zip`` a merged slot weighs p exp(s) as its parts did, unless its factor was held."""
    caches, before = snapshots(0.5, 2, "zip")
    checked = 0
    for layer, cache in enumerate(caches):
        queries = tensors(SHAPE, batch=1, number=SHAPE.layers + layer + 1)[0]
        token = torch.arange(SHAPE.chunk_tokens, 2 * SHAPE.chunk_tokens)
        at = SHAPE.rope.angles(token // 8, token % 8 // 4, token % 4)
        query = SHAPE.rope.rotate(queries, at).mean(2)[0].double().numpy()
        for head, held in enumerate(before[layer]):
            logits = held.keys @ query[head] / 4
            unit = held.keys / np.linalg.norm(held.keys, axis=1, keepdims=True)
            kept = cache.tokens[0, head].tolist()
            votes = cache.slot_state("log_mass")[0, head].exp().double().numpy()
            for place, slot in enumerate(kept):
                gone = [
                    j
                    for j in range(48)
                    if j not in kept and kept[int((unit[kept] @ unit[j]).argmax())] == slot
                ]
                parts = [slot, *(j for j in gone if unit[slot] @ unit[j] >= 0.5)]
                assert votes[place] == pytest.approx(len(parts), rel=1e-5)
                weights = np.exp(logits[parts])
                factor = math.log(weights.mean()) / (weights @ logits[parts] / weights.sum())
                if len(parts) > 1 and 0.5 < factor < 2:
                    checked += 1
                    mine = cache.rotated[0, head, place].double().numpy() @ query[head] / 4
                    assert votes[place] * math.exp(mine) == pytest.approx(weights.sum(), rel=1e-4)
    assert checked > 0


def test_a_slot_begins_with_its_first_attention_and_then_moves() -> None:
    seen = []
    run(
        make("keepkv", decay=0.75), Budget(96), chunks=3, passes=1,
        before_finish=lambda cache: seen.append(cache.slot_state("average").clone()),
    )  # fmt: skip
    mass = []
    run(
        make("h2o"), Budget(96), chunks=3, passes=1,
        before_finish=lambda cache: mass.append(cache.slot_state("mass").clone() / SHAPE.chunk_tokens),
    )  # fmt: skip
    first, second, third = (mass[i * SHAPE.layers] for i in range(3))
    a, b, c = first, second[..., :24] - first, third[..., :24] - second[..., :24]
    torch.testing.assert_close(seen[0], a)
    torch.testing.assert_close(seen[2 * SHAPE.layers][..., :24], 0.75 * (0.75 * a + 0.25 * b) + 0.25 * c)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [({"tau": 2.0}, r"policy\.tau is 2\.0; allowed: -1 to 1"), ({"decay": 1.0}, r"policy\.decay is 1\.0")],
)
def test_wrong_fields_get_a_sentence(fields: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make("keepkv", **fields)
