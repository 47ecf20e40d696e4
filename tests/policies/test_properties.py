"""What every policy must do, from one list."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from stream import BUDGET, CHUNKS, SHAPE, Stream, make, run

import policies
from policies.base import Budget, Protocol
from policies.cache import LayerCache
from policies.positions import MODES, time_indices

ALL = policies.names()
BOUNDED = [name for name in ALL if not policies.load(name).is_full]
GROUPED = dataclasses.replace(SHAPE, query_heads=4)
VIDEO = CHUNKS * SHAPE.chunk_tokens


def fields(name: str) -> dict[str, object]:
    """Return fields under which values are only moved, never changed."""
    return {"future_forcing": {"merge": "none"}, "ema_sink": {"decay": 1.0}}.get(name, {})


def assert_same_sets(first: Stream, second: Stream) -> None:
    for one, other in zip(first.tokens, second.tokens, strict=True):
        for left, right in zip(one, other, strict=True):
            assert torch.equal(left, right)


@pytest.mark.parametrize("tokens", [VIDEO, VIDEO + 5, None])
@pytest.mark.parametrize("position", MODES)
@pytest.mark.parametrize("name", [name for name in ALL if name != "full_eps"])
def test_a_budget_of_the_video_is_bit_identical_to_full(name: str, position: str, tokens: int | None) -> None:
    protocol = Protocol(position=position)
    full = run(make("full"), Budget(None), protocol)
    mine = run(make(name), Budget(tokens), protocol)
    assert all(torch.equal(a, b) for a, b in zip(full.outputs, mine.outputs, strict=True))
    for a, b in zip(full.context.caches, mine.context.caches, strict=True):
        assert torch.equal(a.keys, b.keys) and torch.equal(a.values, b.values)
        assert torch.equal(a.rotated, b.rotated) and torch.equal(a.tokens, b.tokens)


@pytest.mark.parametrize("shape", [SHAPE, GROUPED], ids=["mha", "gqa"])
@pytest.mark.parametrize("position", MODES)
@pytest.mark.parametrize("name", BOUNDED)
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


@pytest.mark.parametrize("protocol", [{}, {"share": "layer"}, {"unit": "frame"}, {"position": "contiguous"}])
@pytest.mark.parametrize("name", ALL)
def test_a_video_is_the_same_alone_and_in_a_batch(name: str, protocol: dict[str, str]) -> None:
    both = run(make(name), protocol=Protocol(**{"position": "absolute", **protocol}), batch=2)
    for element in range(2):
        alone = run(
            make(name),
            protocol=Protocol(**{"position": "absolute", **protocol}),
            batch=2,
            edit=lambda x, e=element: x[e : e + 1],
        )
        for one, other in zip(alone.tokens, both.tokens, strict=True):
            for left, right in zip(one, other, strict=True):
                assert torch.equal(left[0], right[element])
        for one, other in zip(alone.outputs, both.outputs, strict=True):
            torch.testing.assert_close(one[0], other[element])


@pytest.mark.parametrize("name", [name for name in ALL if name != "random"])  # whose hash contains the head
def test_permuting_heads_permutes_the_result(name: str) -> None:
    straight, turned = run(make(name)), run(make(name), edit=lambda x: x.flip(1))
    for one, other in zip(straight.tokens, turned.tokens, strict=True):
        for left, right in zip(one, other, strict=True):
            assert torch.equal(left.flip(1), right)
    for one, other in zip(straight.outputs, turned.outputs, strict=True):
        torch.testing.assert_close(one.flip(1), other)


@pytest.mark.parametrize("unit", ["token", "frame"])
@pytest.mark.parametrize("position", MODES)
@pytest.mark.parametrize("name", ALL)
def test_everything_of_a_slot_moves_together(name: str, position: str, unit: str) -> None:
    def tag(cache: LayerCache) -> None:
        chunk = slice(cache.size - SHAPE.chunk_tokens, cache.size)
        numbers = cache.tokens[:, :, chunk].float()
        cache.slot_state("tag")[:, :, chunk] = numbers
        cache.values[:, :, chunk, 0] = numbers
        cache.keys[:, :, chunk, 1] = numbers / 100

    stream = run(
        make(name, **fields(name)), protocol=Protocol(position=position, unit=unit), before_finish=tag
    )
    for cache in stream.context.caches:
        numbers = cache.tokens.float()
        assert torch.equal(cache.slot_state("tag"), numbers)
        assert torch.equal(cache.values[..., 0], numbers)
        assert torch.equal(cache.keys[..., 1], numbers / 100)


@pytest.mark.parametrize("position", MODES)
@pytest.mark.parametrize("name", ALL)
def test_rotated_keys_stand_at_the_times_of_the_mode(name: str, position: str) -> None:
    stream = run(make(name), protocol=Protocol(position=position))
    stream.context.start_chunk(CHUNKS, CHUNKS * SHAPE.chunk_frames)
    for cache in stream.context.caches:
        times, _ = time_indices(
            cache.tokens,
            position if cache.has_dropped else "absolute" if position != "clamped" else position,
            first_frame=CHUNKS * SHAPE.chunk_frames,
            frames=SHAPE.chunk_frames,
            frame_tokens=SHAPE.frame_tokens,
            window=SHAPE.window_frames,
            sink=BUDGET.sink,
        )
        angles = SHAPE.rope.angles(times, cache.rows, cache.columns)
        torch.testing.assert_close(cache.rotated, SHAPE.rope.rotate(cache.keys, angles))


@pytest.mark.parametrize("name", BOUNDED)
def test_bf16_keeps_nearly_the_same_slots(name: str) -> None:
    shape = dataclasses.replace(SHAPE, rows=8, columns=16)  # 384 tokens a chunk
    budget = Budget(600, recent=128)
    wide, narrow = (
        run(make(name), budget, shape=shape, chunks=2, dtype=dtype, edit=lambda x: (x / 4).bfloat16().float())
        for dtype in (torch.float32, torch.bfloat16)
    )
    for left, right in zip(wide.tokens[-1], narrow.tokens[-1], strict=True):
        for a, b in zip(left.flatten(0, 1), right.flatten(0, 1), strict=True):
            assert torch.isin(a, b).float().mean() >= 0.99


@pytest.mark.parametrize("name", ALL)
def test_two_runs_are_equal(name: str) -> None:
    first, second = run(make(name)), run(make(name))
    assert all(torch.equal(a, b) for a, b in zip(first.outputs, second.outputs, strict=True))
    assert_same_sets(first, second)


@pytest.mark.parametrize("name", BOUNDED)
def test_equal_keys_give_no_nan(name: str) -> None:
    stream = run(make(name), edit=torch.ones_like)
    for cache in stream.context.caches:
        assert bool(cache.values.isfinite().all())
        assert cache.size == BUDGET.tokens


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
    assert [layers[0].shape[-1] for layers in stream.tokens] == [24, 48, 72, 96, 64, 64]
    full = run(make("full"), Budget(None))
    calls = 5 * 2 * SHAPE.layers  # the first chunk after the prefix still sees all of it
    assert all(torch.equal(a, b) for a, b in zip(full.outputs[:calls], stream.outputs[:calls], strict=True))


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("change", [{"passes": "all"}, {"denominator": "context"}, {"query_stride": 5}])
def test_the_protocol_reaches_every_policy(name: str, change: dict[str, object]) -> None:
    stream = run(make(name), protocol=Protocol(**change))
    assert all(cache.size == BUDGET.tokens for cache in stream.context.caches)
    assert all(bool(out.isfinite().all()) for out in stream.outputs)


@pytest.mark.parametrize("name", BOUNDED)
def test_charging_state_never_costs_more_bytes_than_the_budget(name: str) -> None:
    free = run(make(name), Budget(64), Protocol())
    paid = run(make(name), Budget(64), Protocol(charge_state=True))
    policy = paid.context.policy
    allowed = free.context.summary()["kv_bytes"]
    summary = paid.context.summary()
    slots = sum(cache.size * cache.heads for cache in paid.context.caches)
    used = summary["kv_bytes"] + 4 * len(policy.slot_state) * slots + policy.held_nbytes(SHAPE, 1)
    assert used <= allowed
    assert paid.context.budget.tokens == (64 if not policy.slot_state else 62)


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
