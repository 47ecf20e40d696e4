"""Wrappers around policies: sizes per head and per layer, merges by chance and by cosine."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from stream import BUDGET, CHUNKS, SHAPE, Stream, make, run

import policies
from policies.base import Budget, Policy, Protocol
from policies.cache import LayerCache
from policies.positions import MODES, NOTHING
from policies.random import Random
from policies.wrap_budgets import head_sizes, layer_frames
from policies.wrappers import wrapped

VIDEO = CHUNKS * SHAPE.chunk_tokens
SETS = [["cam"], ["d2o"], ["adakv"], ["pyramidkv"], ["cam", "pyramidkv"], ["d2o", "pyramidkv"]]
WRAP = pytest.mark.parametrize("names", SETS, ids="+".join)
LAYERS = dataclasses.replace(SHAPE, layers=4)


def around(names: list[str], inner: str = "h2o", **fields: object) -> Policy:
    return wrapped(make(inner, **fields), names)


# -- what every policy must do -------------------------------------------------------------------------


@WRAP
@pytest.mark.parametrize("inner", ["h2o", "random", "sliding_window"])
def test_a_budget_of_the_video_is_bit_identical_to_full(names: list[str], inner: str) -> None:
    full, mine = run(make("full"), Budget(None)), run(around(names, inner), Budget(VIDEO))
    assert all(torch.equal(a, b) for a, b in zip(full.outputs, mine.outputs, strict=True))


@WRAP
@pytest.mark.parametrize("inner", ["h2o", "random", "expected_attention"])
def test_sizes_sum_to_the_budget_and_protected_slots_stay(names: list[str], inner: str) -> None:
    stream = run(around(names, inner), shape=LAYERS)
    for chunk, layers in enumerate(stream.tokens):
        seen, total = (chunk + 1) * SHAPE.chunk_tokens, 0
        for tokens in layers:
            for head in tokens[0]:
                held = head[head < NOTHING]
                total += len(held)
                assert bool((held.diff() > 0).all())
                assert held[: BUDGET.sink].tolist() == list(range(BUDGET.sink))
                assert held[-BUDGET.recent :].tolist() == list(range(seen - BUDGET.recent, seen))
        assert total <= LAYERS.layers * LAYERS.heads * BUDGET.tokens
    assert total == LAYERS.layers * LAYERS.heads * BUDGET.tokens
    assert all(bool(out.isfinite().all()) for out in stream.outputs)


@pytest.mark.parametrize("names", [["cam"], ["d2o"], ["pyramidkv"]], ids="+".join)
@pytest.mark.parametrize("inner", ["h2o", "random"])
def test_a_video_is_the_same_alone_and_in_a_batch(names: list[str], inner: str) -> None:
    both = run(around(names, inner), batch=2, seed=[7, 8])
    for element in range(2):
        alone = run(around(names, inner), batch=2, edit=lambda x, e=element: x[e : e + 1], seed=[7 + element])
        for one, other in zip(alone.outputs, both.outputs, strict=True):
            torch.testing.assert_close(one[0], other[element])


@WRAP
def test_two_runs_are_equal_and_equal_keys_give_no_nan(names: list[str]) -> None:
    first, second = run(around(names)), run(around(names))
    assert all(torch.equal(a, b) for a, b in zip(first.outputs, second.outputs, strict=True))
    same = run(around(names), edit=torch.ones_like)
    assert all(bool(out.isfinite().all()) for out in same.outputs)


@WRAP
def test_state_is_charged(names: list[str]) -> None:
    stream = run(around(names), protocol=Protocol(charge_state=True), shape=LAYERS)
    slots = sum(sum(cache.held) for cache in stream.context.caches)
    policy = stream.context.policy
    held = slots * (128 + 4 * len(policy.states)) + policy.held_nbytes(LAYERS, 1)
    assert held <= 64 * 128 * LAYERS.layers * LAYERS.heads


def test_a_wrapper_keeps_what_its_policy_would() -> None:
    plain = run(make("random"))
    for names in (["cam"], ["d2o"]):
        mine = run(around(names, "random"))
        for one, other in zip(plain.tokens, mine.tokens, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# -- the rules -----------------------------------------------------------------------------------------


def test_adakv_follows_the_rule_of_its_authors() -> None:
    scores: list[torch.Tensor] = []

    class Watched(Random):
        def score(self, cache: LayerCache, step: object) -> torch.Tensor:
            scores.append(super().score(cache, step).clone())
            return scores[-1]

    stream = run(wrapped(Watched(), ["adakv"]), Budget(44, sink=4, recent=16), chunks=2, passes=1)
    for layer, tokens in enumerate(stream.tokens[-1]):
        free = scores[-SHAPE.layers + layer][0, :, 4:-16].double().numpy()
        best = sorted(((value, head) for head in range(2) for value in free[head]), reverse=True)[: 2 * 24]
        won = np.array([sum(head == h for _, head in best) for h in range(2)])
        expected = np.round(0.8 * won + 0.2 * 24)
        held = [int((head < NOTHING).sum()) - 20 for head in tokens[0]]
        assert sum(held) == 48
        assert np.abs(np.array(held) - expected).max() <= 1


@pytest.mark.parametrize(
    ("won", "room", "expected"),
    [
        ([57, 7], [99, 99], [52, 12]),  # 0.8 * 57 + 6.4 = 52.0 and 0.8 * 7 + 6.4 = 12.0
        ([64, 0], [99, 99], [58, 6]),  # 57.6 and 6.4: the larger fraction takes the rest
        ([64, 0], [40, 99], [40, 24]),  # what a head cannot hold goes to the other
        ([32, 32], [10, 20], [10, 20]),
    ],
)
def test_sizes_per_head(won: list[int], room: list[int], expected: list[int]) -> None:
    assert head_sizes(won, room, base=32, floor=0.2) == expected


def test_sizes_per_layer_fall_linearly_and_keep_the_mean() -> None:
    for base, layers in ((48.0, 4), (6.0, 30), (9.7, 30), (1.0, 6), (1.5, 5), (3.0, 1)):
        frames = layer_frames(base, layers, beta=20)
        assert sum(frames) == int(base * layers + 1e-9) and min(frames) >= 1
        assert frames == sorted(frames, reverse=True) and max(frames) <= 2 * base
    assert layer_frames(48.0, 4, beta=20) == [94, 63, 33, 2]  # 93.6, 63.2, 32.8, 2.4


def test_pyramidkv_holds_its_sizes_chunk_after_chunk() -> None:
    stream = run(around(["pyramidkv"]), shape=LAYERS)
    sizes = [[cache.shape[-1] for cache in layers] for layers in stream.tokens]
    assert sizes[:2] == [[24] * 4, [48] * 4]
    assert sizes[3:] == [sizes[-1]] * (CHUNKS - 3)
    free = [(size - 32) // SHAPE.frame_tokens for size in sizes[-1]]
    assert free == layer_frames(4.0, 4, beta=20)


def snapshots(policy: Policy, **settings: object) -> tuple[Stream, list[dict[str, np.ndarray]]]:
    """Run two chunks of one pass, the second of which makes slots leave; return what was held before."""
    before = []

    def note(cache: LayerCache) -> None:
        found = {
            name: getattr(cache, name)[0].double().numpy().copy() for name in ("rotated", "values", "tokens")
        }
        found["mass"] = cache.slot_state("mass")[0].double().numpy().copy()
        found["chance"] = cache.stats["chance"][0].numpy().copy() if "chance" in cache.stats else None
        before.append(found)

    stream = run(policy, Budget(44, sink=4, recent=16), chunks=2, passes=1, before_finish=note, **settings)
    return stream, before[-SHAPE.layers :]


@pytest.mark.parametrize("slots", [5, 32])
def test_cam_against_its_formula(slots: int) -> None:
    policy = around(["cam"])
    policy.slots = slots
    stream, before = snapshots(policy)
    merges = 0
    for cache, held in zip(stream.context.caches, before, strict=True):
        for head in range(SHAPE.heads):
            kept = cache.tokens[0, head].tolist()
            values = held["values"][head].copy()
            for token in sorted(set(range(48)) - set(kept)):
                receivers = [k for k in kept if k > token][:slots]
                mean = np.mean([held["mass"][head, k] for k in receivers])
                if held["chance"][head, token] < min(1.0, held["mass"][head, token] / mean):
                    merges += 1
                    for receiver in receivers:
                        values[receiver] += held["values"][head, token] / slots
            np.testing.assert_allclose(cache.values[0, head].numpy(), values[kept], atol=1e-5)
    assert 0 < merges < 4 * SHAPE.layers * SHAPE.heads


def test_d2o_against_its_formula() -> None:
    stream, before = snapshots(around(["d2o"]))
    merges = 0
    for cache, held in zip(stream.context.caches, before, strict=True):
        for head in range(SHAPE.heads):
            keys, values = held["rotated"][head], held["values"][head]
            unit = keys / np.linalg.norm(keys, axis=1, keepdims=True)
            kept = cache.tokens[0, head].tolist()
            gone = sorted(set(range(48)) - set(kept))
            cosines = unit[gone] @ unit[kept].T
            threshold = cosines.max(1).mean()
            groups: dict[int, list[tuple[float, int]]] = {k: [(1.0, k)] for k in kept}
            for row, token in zip(cosines, gone, strict=True):
                if row.max() >= threshold:
                    groups[kept[int(row.argmax())]].append((row.max(), token))
                    merges += 1
            for place, (_, members) in enumerate(groups.items()):
                weights = np.array([math.exp(cosine) for cosine, _ in members])
                weights /= weights.sum()
                slots = [token for _, token in members]
                np.testing.assert_allclose(cache.values[0, head, place], weights @ values[slots], atol=1e-5)
                np.testing.assert_allclose(cache.rotated[0, head, place], weights @ keys[slots], atol=1e-5)
    assert merges > 0


@pytest.mark.parametrize("position", MODES)
def test_merged_keys_stand_rotated_at_their_times(position: str) -> None:
    from policies.placing import times_of

    for policy in (around(["d2o"]), make("keepkv", tau=0.0)):
        stream, first = run(policy, protocol=Protocol(position=position)), CHUNKS * SHAPE.chunk_frames
        stream.context.start_chunk(CHUNKS, first)
        for cache in stream.context.caches:
            times, _ = times_of(
                cache, cache.tokens, position, shape=SHAPE, sink=BUDGET.sink, first_frame=first, frames=3
            )
            moved = SHAPE.rope.rotate(cache.keys, SHAPE.rope.angles(times, cache.rows, cache.columns))
            torch.testing.assert_close(cache.rotated, moved, atol=2e-6, rtol=1e-5)


# -- sentences -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inner", "names", "sentence"),
    [
        (
            "future_forcing",
            ["adakv"],
            "policy.wrap is 'adakv'; allowed: pyramidkv or none, as 'future_forcing'",
        ),
        ("future_forcing", ["cam"], "policy.wrap is 'cam'; allowed: none, as policy 'future_forcing' merges"),
        ("ema_sink", ["cam"], "policy 'ema_sink' moves slots by its own rule"),
        ("full", ["cam"], "policy 'full' keeps everything"),
        ("recompute", ["d2o"], "policy 'recompute' makes its context anew"),
        ("h2o", ["cam", "d2o"], "policy.wrap is [cam,d2o]; allowed: at most one merge"),
        ("h2o", ["ada"], "policy.wrap is 'ada'; allowed: cam, d2o, adakv, pyramidkv"),
    ],
)
def test_what_cannot_be_wrapped_gets_a_sentence(inner: str, names: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        around(names, inner)


def test_adakv_needs_heads_tokens_and_one_video() -> None:
    for field, value in (("share", "layer"), ("unit", "frame")):
        with pytest.raises(
            ValueError, match=rf"protocol\.{field} is '{value}'; allowed with policy.wrap=adakv"
        ):
            run(around(["adakv"]), protocol=Protocol(**{field: value}))
    with pytest.raises(ValueError, match=r"batch is 2; allowed with policy\.wrap=adakv: 1"):
        run(around(["adakv"]), batch=2)


def test_a_policy_without_merging_fields_can_be_wrapped() -> None:
    inner = make("future_forcing", merge="none")
    stream = run(wrapped(inner, ["adakv"]))
    assert sum(stream.context.caches[0].held) == SHAPE.heads * BUDGET.tokens


@pytest.mark.parametrize("name", list(policies.WRAPPERS))
def test_a_wrapper_says_what_it_is(name: str) -> None:
    wrapper = type(around([name]))
    assert wrapper.name == name and wrapper.source
    assert "Source:" in (wrapper.__doc__ or "") and "Deviates:" in (wrapper.__doc__ or "")
