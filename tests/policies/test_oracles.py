"""The policies against a second, naive implementation in float64, and against kvpress where installed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from oracles import naive
from stream import SHAPE, Stream, make, run, tensors
from torch import nn

from policies.attention import attend, mass
from policies.base import Budget, Protocol

TIGHT = Budget(44, sink=4, recent=16)
CHUNKS = 4


def setup(position: str, **fields: object) -> naive.Setup:
    return naive.Setup(
        rows=SHAPE.rows,
        columns=SHAPE.columns,
        dims=SHAPE.rope.dims,
        bases=SHAPE.rope.bases,
        tokens=TIGHT.tokens,
        sink=TIGHT.sink,
        recent=TIGHT.recent,
        position=position,
        **fields,
    )


def reference(evict: object, settings: naive.Setup) -> tuple[dict[tuple[int, int], naive.Head], list, int]:
    """Run the oracle over the same tensors as ``stream.run`` with one pass per chunk."""
    heads = {(layer, head): naive.Head() for layer in range(SHAPE.layers) for head in range(SHAPE.heads)}
    outputs, number, merged = [], 0, 0
    for chunk in range(CHUNKS):
        for layer in range(SHAPE.layers):
            number += 1
            parts = [x[0].double().numpy() for x in tensors(SHAPE, batch=1, number=number)]
            first = chunk * SHAPE.chunk_tokens
            for head in range(SHAPE.heads):
                own = (part[head] for part in parts)
                outputs.append(naive.run_chunk(heads[layer, head], *own, first=first, setup=settings))
        merged += sum(evict(head, settings) or 0 for head in heads.values())
    return heads, outputs, merged


def assert_equal(stream: Stream, heads: dict[tuple[int, int], naive.Head], outputs: list) -> None:
    mine = torch.cat([out[0] for out in stream.outputs])
    np.testing.assert_allclose(mine.numpy(), np.stack(outputs), atol=2e-5)
    for (layer, head), held in heads.items():
        cache = stream.context.caches[layer]
        assert cache.tokens[0, head].tolist() == [slot["token"] for slot in held.slots]
        received = [slot["mass"] for slot in held.slots]
        np.testing.assert_allclose(cache.state["mass"][0, head, : cache.size].numpy(), received, atol=2e-5)
        values = np.stack([slot["value"] for slot in held.slots])
        np.testing.assert_allclose(cache.values[0, head].numpy(), values, atol=2e-5)


@pytest.mark.parametrize("position", ["absolute", "contiguous"])
def test_h2o_sets_and_accumulators(position: str) -> None:
    stream = run(make("h2o"), TIGHT, Protocol(position=position), chunks=CHUNKS, passes=1)
    assert_equal(stream, *reference(naive.evict_h2o, setup(position))[:2])


@pytest.mark.parametrize("position", ["absolute", "contiguous"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"tau": 0.3}, {"lam": 1.0, "horizon": 2}, {"lam": 0.0, "tau": -1.0}, {"window": 5}, {"window": 1}],
)
def test_future_forcing_scores_sets_and_merged_values(position: str, fields: dict[str, float]) -> None:
    stream = run(
        make("future_forcing", **fields), TIGHT, Protocol(position=position), chunks=CHUNKS, passes=1
    )
    heads, outputs, merged = reference(naive.evict_future_forcing, setup(position, **fields))
    assert merged > 0
    assert_equal(stream, heads, outputs)


def test_attention_and_mass_against_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (
        torch.randn(2, h, n, 16, generator=generator) for h, n in ((4, 7), (2, 30), (2, 30))
    )
    log_mass = torch.rand(2, 2, 30, generator=generator)
    twice = [x.double().repeat_interleave(2, 1) for x in (keys, values)]
    logits = queries.double() @ twice[0].mT / 4 + log_mass.double().repeat_interleave(2, 1)[:, :, None]
    weights = logits.softmax(-1)
    out, _ = attend(queries, keys, values, log_mass=log_mass)
    torch.testing.assert_close(out.double(), weights @ twice[1], atol=1e-5, rtol=1e-5)
    exact = weights.sum(2).unflatten(1, (2, 2)).mean(2)
    for block in (None, 1, 3):
        mine = mass(queries, keys, context=20, log_mass=log_mass, block=block)
        torch.testing.assert_close(mine.double(), exact, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(mine.sum(-1), torch.full((2, 2), 7.0))
    context = logits[..., :20].softmax(-1).sum(2).unflatten(1, (2, 2)).mean(2)
    mine = mass(queries, keys, context=20, denominator="context", log_mass=log_mass)
    torch.testing.assert_close(mine.double(), context, atol=1e-5, rtol=1e-5)


# -- kvpress, an optional oracle ------------------------------------------------------------------------


def stub(heads: int, dim: int) -> nn.Module:
    """Return a module with what a press looks up."""
    module = nn.Module()
    names = {"num_attention_heads": heads, "num_key_value_heads": heads, "num_hidden_layers": 1}
    module.config = type("Config", (), names)()
    module.head_dim, module.layer_idx = dim, 0
    module.q_proj = nn.Identity()
    return module


def test_mass_equals_observed_attention_of_kvpress() -> None:
    kvpress = pytest.importorskip("kvpress")
    generator = torch.Generator().manual_seed(1)
    count = 24
    queries, keys, values = (torch.randn(1, 2, count, 16, generator=generator) for _ in range(3))
    is_seen = torch.ones(count, count).tril().bool()
    weights = (queries @ keys.mT / 4).masked_fill(~is_seen, -torch.inf).softmax(-1)
    theirs = kvpress.ObservedAttentionPress(0.5).score(stub(2, 16), None, keys, values, weights, {})
    # causal attention, one query at a time: query n sees n + 1 slots
    mine = torch.zeros(1, 2, count)
    for n in range(count):
        mine[..., : n + 1] += mass(queries[:, :, n : n + 1], keys[:, :, : n + 1], context=n + 1)
    mine /= torch.arange(count, 0, -1)  # queries that could see the slot
    torch.testing.assert_close(mine, theirs)


def test_sink_and_window_equal_streaming_llm_of_kvpress() -> None:
    kvpress = pytest.importorskip("kvpress")
    stream = run(make("streaming_llm"), Budget(44, sink=4), chunks=3, passes=1)
    seen = 3 * SHAPE.chunk_tokens
    keys = torch.zeros(1, 2, seen, 16)
    press = kvpress.StreamingLLMPress(compression_ratio=1 - 44 / seen, n_sink=4)
    scores = press.score(stub(2, 16), None, keys, keys, None, {})
    theirs = scores.topk(44, -1).indices.sort(-1).values
    for cache in stream.context.caches:
        assert torch.equal(cache.tokens.long(), theirs)


def test_group_queries_count_once_each() -> None:
    shape = dataclasses.replace(SHAPE, query_heads=4)
    stream = run(make("h2o"), Budget(10_000), Protocol(), shape=shape, chunks=2, passes=1)
    for cache in stream.context.caches:
        torch.testing.assert_close(cache.slot_state("mass").sum(-1), torch.full((1, 2), 48.0))
