"""The policies of the video papers against float64 references written from their formulas."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from oracles import kinds, naive, video
from stream import SHAPE, Stream, make, run, tensors

from policies.base import Budget, Policy, Protocol, Shape
from policies.positions import NOTHING
from policies.rolling_sink import ping_pong
from policies.rope import Rope

FOUR = dataclasses.replace(SHAPE, heads=4, query_heads=4)
CHUNKS = 5


def setup(budget: Budget, position: str, shape: Shape = SHAPE) -> naive.Setup:
    assert budget.tokens is not None
    return naive.Setup(
        rows=shape.rows,
        columns=shape.columns,
        dims=shape.rope.dims,
        bases=shape.rope.bases,
        tokens=budget.tokens,
        sink=budget.sink,
        recent=budget.recent,
        position=position,
    )


def assert_equal(
    policy: Policy,
    evict: video.Evict,
    settings: naive.Setup,
    protocol: Protocol,
    *,
    shape: Shape = SHAPE,
    seen: Callable[[naive.Head, int], naive.Head] = lambda head, first: head,
) -> Stream:
    """Run a policy and its oracle over the same tensors and compare outputs, sets, keys and values."""
    stream, _ = both(policy, evict, settings, protocol, shape=shape, seen=seen, with_outputs=True)
    return stream


def both(
    policy: Policy,
    evict: video.Evict,
    settings: naive.Setup,
    protocol: Protocol,
    *,
    shape: Shape = SHAPE,
    seen: Callable[[naive.Head, int], naive.Head] = lambda head, first: head,
    with_outputs: bool = False,
) -> tuple[Stream, list[list[naive.Head]]]:
    """Compare what a policy and its oracle hold, and their outputs where slots have no weight."""
    budget = Budget(settings.tokens, sink=settings.sink, recent=settings.recent)
    stream = run(policy, budget, protocol, shape=shape, chunks=CHUNKS)
    heads, outputs = video.rollout(
        lambda number: tuple(x[0].double().numpy() for x in tensors(shape, batch=1, number=number)),
        evict,
        settings,
        layers=shape.layers,
        heads=shape.heads,
        chunks=CHUNKS,
        passes=2,
        tokens=shape.chunk_tokens,
        seen=seen,
    )
    for mine, theirs in zip(stream.outputs, outputs, strict=True) if with_outputs else ():
        np.testing.assert_allclose(mine[0].numpy(), theirs, atol=5e-5)
    for cache, layer in zip(stream.context.caches, heads, strict=True):
        for number, head in enumerate(layer):
            count = len(head.slots)
            tokens = cache.tokens[0, number]
            assert tokens[tokens < NOTHING].tolist() == [slot["token"] for slot in head.slots]
            for name, rows in (("key", cache.keys), ("value", cache.values)):
                expected = np.stack([slot[name] for slot in head.slots])
                np.testing.assert_allclose(rows[0, number, :count].numpy(), expected, atol=5e-5)
    return stream, heads


def test_infinity_rope_is_one_frame_of_sink_and_a_contiguous_window() -> None:
    settings = setup(Budget(44, sink=8, recent=16), "contiguous")
    assert_equal(make("infinity_rope"), video.window(settings), settings, Protocol(position="contiguous"))


@pytest.mark.parametrize("position", ["absolute", "contiguous"])
@pytest.mark.parametrize("max_reuse", [0, 1, 7])
def test_deep_forcing_picks_by_summed_logits(position: str, max_reuse: int) -> None:
    settings = setup(Budget(44, sink=4, recent=16), position)
    protocol = Protocol(position=position, passes="all", share="layer")
    policy = make("deep_forcing", max_reuse=max_reuse)
    stream = assert_equal(policy, video.deep_forcing(settings, max_reuse), settings, protocol)
    picks = stream.context.caches[0].slot_state("picks")[0, 0]
    middle = picks[4:-16]
    assert float(middle.min()) >= 1 and float(picks[:4].max()) == float(picks[-16:].max()) == 0
    assert (float(middle.max()) == 1) == (max_reuse == 1)


def test_deep_forcing_asks_with_the_first_pass_and_the_frame_before() -> None:
    budget, protocol = Budget(44, sink=4, recent=16), Protocol(passes="all", share="layer")
    other = Protocol(passes="clean", share="layer")
    both = [run(make("deep_forcing"), budget, p).tokens[-1][0] for p in (protocol, other)]
    assert not torch.equal(*both)


@pytest.mark.parametrize("budget", [Budget(48, sink=8, recent=8), Budget(53, sink=8, recent=16)])
@pytest.mark.parametrize("adaptive", [False, True])
def test_memrope_averages_what_leaves(adaptive: bool, budget: Budget) -> None:
    settings = setup(budget, "contiguous")
    policy = make("memrope", alpha_long=0.2, alpha_short=0.15, adaptive=adaptive)
    oracle = video.memrope(settings, 0.2, 0.15, adaptive)
    assert_equal(policy, oracle, settings, Protocol(position="contiguous"))


def test_memrope_begins_with_the_mean_and_forgets_it_slowly() -> None:
    budget = Budget(48, sink=8)
    caches = {alpha: run(make("memrope", alpha_long=alpha), budget).context.caches for alpha in (0.0, 0.01)}
    still, slow = (caches[alpha][0].values[0, 0, 8:16] for alpha in (0.0, 0.01))
    assert torch.equal(still, still[:1].expand_as(still))  # one mean at every place of the frame
    assert 0 < float((still - slow).abs().max()) < 0.1


@pytest.mark.parametrize("recent", [24, 8])
def test_rolling_sink_sees_the_first_frames_to_and_fro(recent: int) -> None:
    settings = setup(Budget(56, recent=recent), "absolute")
    evict, seen = video.rolling_sink(settings)
    protocol = Protocol(position="absolute", unit="frame")
    assert_equal(make("rolling_sink"), evict, settings, protocol, seen=seen)


def test_rolling_sink_never_leaves_the_window() -> None:
    stream = run(make("rolling_sink"), Budget(56, recent=24), Protocol(position="absolute"), chunks=12)
    assert stream.context.summary()["max_distance"] == 7 + 3 - 1  # held frames and the chunk
    assert [ping_pong(frame, 3) for frame in range(8)] == [0, 1, 2, 2, 1, 0, 0, 1]


@pytest.mark.parametrize("position", ["absolute", "contiguous"])
def test_rolling_sink_counts_time_as_the_protocol_does(position: str) -> None:
    stream = run(make("rolling_sink"), Budget(56, recent=24), Protocol(position=position))
    context = stream.context
    cache = context.caches[0]
    context.start_chunk(CHUNKS, 3 * CHUNKS)
    parts = context.policy.view(cache, first_frame=3 * CHUNKS, frames=3, commit=False)
    assert parts is not None
    base = 3 * CHUNKS - 7 if position == "absolute" else 0
    assert [part.time for part in parts] == [*range(base, base + 4), None]


@pytest.mark.parametrize("redundancy", [2.0, 0.0])
def test_relax_forcing_keeps_what_is_like_the_sink_and_unlike_the_tail(redundancy: float) -> None:
    settings = setup(Budget(48, sink=16, recent=8), "contiguous")
    protocol = Protocol(position="contiguous", unit="frame", share="layer")
    policy = make("relax_forcing", redundancy=redundancy)
    assert_equal(policy, video.relax_forcing(settings, redundancy), settings, protocol)


@pytest.mark.parametrize("threshold", [0.2, 0.4])
def test_tempcache_folds_groups_into_their_newest_key(threshold: float) -> None:
    settings = setup(Budget(44, sink=4, recent=16), "absolute")
    policy = make("tempcache", threshold=threshold)
    stream, heads = both(
        policy, video.tempcache(settings, threshold), settings, Protocol(position="absolute")
    )
    sizes = [[slot.get("size", 1) for slot in head.slots] for layer in heads for head in layer]
    assert max(map(max, sizes)) >= 3
    masses = torch.cat([cache.slot_state("log_mass")[0] for cache in stream.context.caches])
    np.testing.assert_allclose(masses.exp().numpy(), np.array(sizes), rtol=1e-5)


def test_tempcache_is_exact_where_keys_come_again() -> None:
    flat = dataclasses.replace(SHAPE, rope=Rope((0, 8, 8), (1.0, 100.0, 100.0)))

    def again(x: torch.Tensor) -> torch.Tensor:  # every frame has the keys of the first, values are its own
        if x.shape[2] != SHAPE.chunk_tokens:
            return x
        still = torch.randn(x.shape[0], x.shape[1], 8, x.shape[3], generator=torch.Generator().manual_seed(1))
        return still.repeat(1, 1, 3, 1) if float(x.std()) > 1.5 else x

    full = run(make("full"), Budget(None), Protocol(), shape=flat, edit=again)
    mine = run(make("tempcache"), Budget(16, recent=8), Protocol(), shape=flat, edit=again)
    for one, other in zip(full.outputs, mine.outputs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    masses = [cache.slot_state("log_mass").exp().sum(-1) for cache in mine.context.caches]
    torch.testing.assert_close(torch.stack(masses), torch.full((2, 1, 2), 18.0 * 8))


@pytest.mark.parametrize("dummies,count", [(0.5, 2), (0.25, 1)])
def test_dummy_forcing_gives_what_dummies_save_to_the_others(dummies: float, count: int) -> None:
    settings = setup(Budget(40, recent=8), "absolute", FOUR)
    oracle = kinds.dummy_forcing(settings, count)
    policy = make("dummy_forcing", dummies=dummies)
    stream = assert_equal(policy, oracle, settings, Protocol(position="absolute"), shape=FOUR)
    held = [int((head < NOTHING).sum()) for head in stream.context.caches[1].tokens[0]]
    wide = (4 * 40 - count * 8) // (4 - count)
    assert sorted(held) == [8] * count + [wide] * (4 - count)


@pytest.mark.parametrize("patches", [6, 1, 8])
def test_forcing_kv_keeps_what_changed_in_dynamic_heads(patches: int) -> None:
    settings = setup(Budget(61, sink=8, recent=8), "absolute", FOUR)
    oracle = kinds.forcing_kv(settings, 1, 4, 3, patches)
    policy = make("forcing_kv", patches=patches)
    stream = assert_equal(policy, oracle, settings, Protocol(position="absolute"), shape=FOUR)
    held = [[int((head < NOTHING).sum()) for head in cache.tokens[0]] for cache in stream.context.caches]
    assert held[0] == [61] * 4  # the first layer is not split
    assert sorted(held[1]) == [16, 76, 76, 76]


@pytest.mark.parametrize("name", ["dummy_forcing", "forcing_kv"])
def test_kinds_of_heads_are_each_videos_own(name: str) -> None:
    stream = run(make(name), Budget(56, recent=8), batch=4, chunks=7)
    cache = stream.context.caches[1]
    narrow = (cache.tokens < NOTHING).sum(-1).argmin(-1)
    assert set(narrow.tolist()) == {0, 1}
    assert sum(cache.held) == 2 * 56


@pytest.mark.parametrize(
    "name,fields,sentence",
    [
        ("deep_forcing", {"max_reuse": -1}, "policy.max_reuse is -1; allowed: 0 or more"),
        ("memrope", {"alpha_long": 1.5}, "policy.alpha_long is 1.5; allowed: 0 to 1"),
        ("dummy_forcing", {"dummies": 0.6}, "policy.dummies is 0.6; allowed: 0 to 0.5"),
        ("forcing_kv", {"patches": 0}, "policy.patches is 0; allowed: 1 or more"),
    ],
)
def test_wrong_fields_get_one_sentence(name: str, fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make(name, **fields)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ValueError, match=r"budget\.tokens is 40; policy 'memrope' needs 48"):
        run(make("memrope"), Budget(40, sink=8, recent=16))
    with pytest.raises(ValueError, match=r"policy\.patches is 9; allowed: 1 to the 8 tokens"):
        run(make("forcing_kv", patches=9))
