"""What every policy must do: `policies.checking`, and what holds for the policies of this package besides."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import pytest
import torch
from stream import BUDGET, GROUPED, SHAPE, Stream, make, run

import policies
from policies import checking
from policies.base import Budget, Policy, Protocol
from policies.cache import LayerCache
from policies.positions import MODES, NOTHING

ALL = policies.names()
BOUNDED = [name for name in ALL if not policies.load(name).is_full]
PLANNED = [name for name in BOUNDED if policies.load(name).plan is not Policy.plan]  # sizes differ by head
PLANNED_SIZES = {"pyramid_forcing": {61, 67}}  # 5 and 7 protected frames, of what is left 2/3 and 1/3
MERGING = ("memrope",)  # whose slots become means as soon as any slot leaves, whatever the fields
FOR_BUDGETS = (
    "scores are numbers", "holds its budget", "keeps slots in order", "protects sink and recent",
    "whole frames, shared layers", "keeps a prefix", "pays for its state", "bfloat16 keeps the same",
    "survives equal keys", "follows the protocol",
)  # fmt: skip
"""Properties that say nothing of a policy that keeps everything."""


def fields(name: str) -> dict[str, object]:
    """Return fields under which values are only moved, never changed."""
    return {
        "future_forcing": {"merge": "none"},
        "ema_sink": {"decay": 1.0},
        "keepkv": {"tau": 1.0},
        "tempcache": {"threshold": 1.0},
        "pyramid_forcing": {"patch": 1},
    }.get(name, {})


def held(cache: LayerCache) -> float:
    """Return slots per head, mean over heads."""
    return sum(cache.held) / cache.heads


def assert_same_sets(first: Stream, second: Stream) -> None:
    for one, other in zip(first.tokens, second.tokens, strict=True):
        for left, right in zip(one, other, strict=True):
            assert torch.equal(left, right)


@lru_cache(maxsize=1)
def subject(name: str) -> checking.Subject:
    moving = None if name in MERGING else lambda: make(name, **fields(name))
    return checking.Subject(lambda: make(name), moving)


def excused(name: str, one: checking.Property) -> bool:
    """Say whether a property asks for something that a policy does not claim, as planned."""
    policy = policies.load(name)
    if policy.is_full:
        return one.name in FOR_BUDGETS or (name, one.name) == ("full_eps", "budget of the video = full cache")
    return (
        (one.name == "scores are numbers" and policy.is_positional)
        or (one.name in ("whole frames, shared layers", "pays for its state") and name in PLANNED)
        or (one.name == "follows its heads" and name == "random")  # its hash contains the head
        or (one.name == "moves slots whole" and name in MERGING)
    )


@pytest.mark.parametrize("one", checking.PROPERTIES, ids=lambda one: one.name)
@pytest.mark.parametrize("name", ALL)  # the outer loop, so that one subject serves all of its properties
def test_every_policy_has_every_property(name: str, one: checking.Property) -> None:
    found = checking.examine(subject(name), one)
    expected = checking.NOT_APPLICABLE if excused(name, one) else checking.PASSED
    assert found.status == expected, found.reason


@pytest.mark.parametrize("shape", [SHAPE, GROUPED], ids=["mha", "gqa"])
@pytest.mark.parametrize("position", MODES)
@pytest.mark.parametrize("name", [name for name in BOUNDED if name not in PLANNED])
def test_sizes_order_and_protection(name: str, position: str, shape: object) -> None:
    stream = run(make(name), protocol=Protocol(position=position), shape=shape)
    for chunk, layers in enumerate(stream.tokens):
        seen = (chunk + 1) * SHAPE.chunk_tokens
        for tokens in layers:
            assert tokens.shape[-1] == min(seen, BUDGET.tokens)
            assert bool((tokens.diff(dim=-1) > 0).all())
            assert torch.equal(tokens[..., : BUDGET.sink], torch.arange(BUDGET.sink).expand(1, 2, -1).int())
            recent = torch.arange(seen - BUDGET.recent, seen).expand(1, 2, -1).int()
            assert torch.equal(tokens[..., -BUDGET.recent :], recent)
    assert all(bool(out.isfinite().all()) for out in stream.outputs)


@pytest.mark.parametrize("shape", [SHAPE, GROUPED], ids=["mha", "gqa"])
@pytest.mark.parametrize("position", MODES)
@pytest.mark.parametrize("name", PLANNED)
def test_planned_sizes_are_the_budget_in_sum(name: str, position: str, shape: object) -> None:
    stream = run(make(name), protocol=Protocol(position=position), shape=shape)
    sizes = set()
    for chunk, layers in enumerate(stream.tokens):
        seen = (chunk + 1) * SHAPE.chunk_tokens
        for tokens in layers:
            heads = [head[head < NOTHING] for head in tokens[0]]
            whole = chunk >= 3  # the widest head is full from here on
            total = sum(len(head) for head in heads)
            assert total <= SHAPE.heads * BUDGET.tokens
            assert not whole or total == SHAPE.heads * BUDGET.tokens
            assert seen > BUDGET.tokens or total == SHAPE.heads * seen
            for head in heads:
                assert bool((head.diff() > 0).all())
                assert head[: BUDGET.sink].tolist() == list(range(BUDGET.sink))
                assert head[-BUDGET.recent :].tolist() == list(range(seen - BUDGET.recent, seen))
                sizes.add(len(head))
    assert PLANNED_SIZES.get(name, {32, 96}) <= sizes
    assert all(bool(out.isfinite().all()) for out in stream.outputs)


@pytest.mark.parametrize("name", BOUNDED)
def test_frames_stay_whole_and_layers_share_one_set(name: str) -> None:
    stream = run(make(name), Budget(60, sink=5, recent=20), Protocol(unit="frame", share="layer"))
    for cache in stream.context.caches:
        assert cache.size == 56  # 7 whole frames of the 7.5 allowed
        frames = cache.frames.unflatten(2, (-1, SHAPE.frame_tokens))
        assert torch.equal(frames, frames[..., :1].expand_as(frames))
        assert torch.equal(cache.tokens[:, :1].expand_as(cache.tokens), cache.tokens)
        assert int(frames[0, 0, 0, 0]) == 0
        assert frames[0, 0, -3:, 0].tolist() == [15, 16, 17]


@pytest.mark.parametrize("name", BOUNDED)
def test_a_prefix_is_kept_in_full(name: str) -> None:
    stream = run(make(name), prefix=4)
    sizes = [(layers[0] < NOTHING).sum(-1).float().mean() for layers in stream.tokens]
    assert sizes == [24, 48, 72, 96, 64, 64]
    full = run(make("full"), Budget(None))
    calls = 5 * 2 * SHAPE.layers  # the first chunk after the prefix still sees all of it
    assert all(torch.equal(a, b) for a, b in zip(full.outputs[:calls], stream.outputs[:calls], strict=True))


@pytest.mark.parametrize("name", BOUNDED)
def test_charging_state_never_costs_more_bytes_than_the_budget(name: str) -> None:
    free = run(make(name), Budget(64), Protocol())
    paid = run(make(name), Budget(64), Protocol(charge_state=True))
    policy = paid.context.policy
    allowed = free.context.summary()["kv_bytes"]
    summary = paid.context.summary()
    slots = sum(sum(cache.held) for cache in paid.context.caches)
    used = summary["kv_bytes"] + 4 * len(policy.slot_state) * slots + policy.held_nbytes(SHAPE, 1)
    one_more = SHAPE.layers * SHAPE.heads * 4 * (2 * SHAPE.head_dim + len(policy.slot_state))
    assert used <= allowed < used + one_more


@pytest.mark.parametrize("name", [name for name in ALL if policies.load(name).is_positional])
@pytest.mark.parametrize("unit", ["token", "frame"])
def test_the_shift_is_the_selection_by_score(name: str, unit: str) -> None:
    policy = policies.load(name)
    slow = type("Slow", (policy,), {"is_positional": False})()
    assert_same_sets(run(policy(), protocol=Protocol(unit=unit)), run(slow, protocol=Protocol(unit=unit)))


@pytest.mark.parametrize("name", ALL)
def test_a_policy_says_what_it_is(name: str) -> None:
    policy = policies.load(name)
    assert policy.name == name and policy.source
    assert "Source:" in (policy.__doc__ or "") and "Deviates:" in (policy.__doc__ or "")
    known = {"sink", "recent", *(f.name for f in dataclasses.fields(Protocol))}
    assert set(policy.pins) <= known
    assert not known & {f.name for f in dataclasses.fields(policy)}


@pytest.mark.parametrize("position", ["absolute", "contiguous"])
@pytest.mark.parametrize("tokens", [64, 72])
@pytest.mark.parametrize("name", ["sliding_window", "attention_sink", "streaming_llm"])
def test_a_window_in_a_ring_is_a_window(name: str, tokens: int, position: str) -> None:
    budget, protocol = Budget(tokens, sink=0 if name == "sliding_window" else 24), Protocol(position=position)
    straight = run(make(name), budget, protocol, chunks=7)
    heads: list[int] = []
    ring = run(
        make(name), budget, protocol, chunks=7, capacity=tokens, before_finish=lambda c: heads.append(c._head)
    )
    assert any(heads)
    assert_same_sets(straight, ring)
    for one, other in zip(straight.outputs, ring.outputs, strict=True):
        torch.testing.assert_close(one, other)
    for a, b in zip(straight.context.caches, ring.context.caches, strict=True):
        for part in ("keys", "values", "rotated"):
            assert torch.equal(getattr(a, part), getattr(b, part))
