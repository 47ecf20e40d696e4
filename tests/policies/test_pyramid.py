"""Pyramid Forcing against a float64 reference written from its formulas, and what holds for its kinds."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from oracles import naive, video
from oracles.pyramid import Pyramid
from stream import SHAPE, Stream, make, run, tensors
from torch import Tensor

from policies import checking, merging
from policies.base import Budget, Protocol
from policies.context import Context
from policies.positions import NOTHING
from policies.pyramid_forcing import short_share

FOUR = dataclasses.replace(SHAPE, heads=4, query_heads=4, layers=1)
ABSOLUTE = Protocol(position="absolute")
CHUNKS = 9


def compared(fields: dict[str, object], counts: tuple[int, int], tokens: int) -> tuple[Stream, Pyramid]:
    """Run a policy and its oracle; compare outputs, sets, keys, values and rotated keys."""
    budget = Budget(tokens, sink=8, recent=24)
    settings = naive.Setup(
        rows=FOUR.rows, columns=FOUR.columns, dims=FOUR.rope.dims, bases=FOUR.rope.bases, tokens=tokens,
        sink=8, recent=24,
    )  # fmt: skip
    numbers = {name: fields[name] for name in ("period", "patch") if name in fields}
    oracle = Pyramid(settings, *counts, chunk_frames=FOUR.chunk_frames, **numbers)
    stream = run(make("pyramid_forcing", **fields), budget, ABSOLUTE, shape=FOUR, chunks=CHUNKS)
    layers, outputs = video.rollout(
        lambda number: tuple(x[0].double().numpy() for x in tensors(FOUR, batch=1, number=number)),
        oracle.evict, settings, layers=FOUR.layers, heads=FOUR.heads, chunks=CHUNKS, passes=2,
        tokens=FOUR.chunk_tokens, seen=oracle.seen,
    )  # fmt: skip
    for mine, theirs in zip(stream.outputs, outputs, strict=True):
        np.testing.assert_allclose(mine[0].numpy(), theirs, atol=5e-5)
    for cache, layer in zip(stream.context.caches, layers, strict=True):
        for number, head in enumerate(layer):
            held = cache.tokens[0, number]
            assert held[held < NOTHING].tolist() == [slot["token"] for slot in head.slots]
            for name, rows in (("key", cache.keys), ("value", cache.values)):
                expected = np.stack([slot[name] for slot in head.slots])
                np.testing.assert_allclose(rows[0, number, : len(head.slots)].numpy(), expected, atol=5e-5)
    return stream, oracle


@pytest.mark.parametrize(
    "wave,veil,period,patch,tokens",
    [
        (0.5, 0.25, 6, 2, 69),
        (0.5, 0.25, 4, 2, 80),
        (0.5, 0.25, 6, 1, 80),
        (0.25, 0.5, 6, 2, 87),  # two Veil heads need a budget that leaves nothing to rounding
        (0.25, 0.5, 4, 2, 74),
        (0.25, 0.5, 4, 1, 80),
        (0.0, 0.0, 6, 2, 80),
    ],
)
def test_each_kind_keeps_sees_and_merges_its_own(
    wave: float, veil: float, period: int, patch: int, tokens: int
) -> None:
    counts = int(4 * wave), int(4 * veil)
    fields = {"wave": wave, "veil": veil, "patch": patch, "period": period}
    stream, oracle = compared(fields, counts, tokens)
    kinds, cache = oracle.kinds[0], stream.context.caches[0]
    assert (kinds.count("wave"), kinds.count("veil")) == counts
    merged = cache.slot_state("merged")[0].amax(-1)
    assert [float(n) > 1 for n in merged] == [kind == "veil" and patch > 1 for kind in kinds]
    hidden = (cache.slot_state("log_mass")[0] < 0).any(-1)
    assert hidden.tolist() == [kind == "wave" for kind in kinds]
    assert sum(cache.held) == 4 * tokens


def test_released_sizes_come_back_at_their_budget() -> None:
    wan = dataclasses.replace(SHAPE, heads=12, query_heads=12, rows=4, columns=4, window_frames=21)
    policy = make("pyramid_forcing")
    frames = (5 * (1 + 8 + 4) + 6 * (3 + 4 + 4) + (3 + 1 + 4)) * 16
    budget = Budget(-(-frames // 12), sink=16, recent=48)
    stream = run(policy, budget, Protocol(position="clamped"), shape=wan, chunks=10)
    for cache in stream.context.caches:
        sizes = sorted(int(n) for n in (cache.tokens[0] < NOTHING).sum(-1))
        rounding = 12 * -(-frames // 12) - frames
        assert sizes == sorted([8 * 16 + rounding] + [11 * 16] * 6 + [13 * 16] * 5)


def test_kinds_are_spread_over_layers_in_the_released_numbers() -> None:
    policy = make("pyramid_forcing")
    for layers, heads, total in ((30, 12, (156, 32)), (6, 4, (10, 2)), (40, 40, (693, 142))):
        shape = dataclasses.replace(SHAPE, layers=layers, heads=heads, query_heads=heads)
        policy.start(shape, Budget(80, sink=8, recent=24), ABSOLUTE, seed=0, device="cpu")
        counts = [policy._counts(layer) for layer in range(layers)]
        assert tuple(map(sum, zip(*counts, strict=True))) == total
        assert all(max(own) - min(own) <= 1 for own in zip(*counts, strict=True))


def test_a_wave_head_sees_four_frames_of_its_phase() -> None:
    stream = run(make("pyramid_forcing"), Budget(9 * 8 + 4, sink=8, recent=24), ABSOLUTE, chunks=12)
    cache = stream.context.caches[0]
    wave = int((cache.slot_state("log_mass")[0] < 0).any(-1).nonzero())
    frames, hidden = cache.frames[0, wave], cache.slot_state("log_mass")[0, wave] < 0
    held = frames[: cache.held[int(cache.stats["ranks"][0, wave])]]
    middle = [int(f) for f in held.unique() if 1 <= f < 32]
    assert all(f % 3 == 0 for f in middle)
    assert [f for f in middle if not bool(hidden[frames == f].any())] == [f for f in middle if f % 6 == 0]


@pytest.mark.parametrize("period,is_short", [(3, True), (5, True), (8, False), (12, False)])
def test_the_leading_period_is_found_under_a_trend(period: int, is_short: bool) -> None:
    time = torch.arange(25.0)
    series = torch.stack([5 + 0.3 * time + (2 * math.pi * time / period).cos(), -time])
    share = short_share(series, 6.4)
    assert bool(share[0] > 0.5) == is_short
    assert 0 <= float(share[1]) <= 1  # nothing left but rounding


def test_a_steady_head_is_no_wave_however_it_beats() -> None:
    policy = make("pyramid_forcing", wave=0.5, veil=0.25)
    policy.start(FOUR, Budget(80, sink=8, recent=24), ABSOLUTE, seed=0, device="cpu")
    turn = 2 * math.pi * torch.arange(24.0)
    series = [4 + (turn / 3).cos(), (turn / 12 + 0.1).cos(), (turn / 4 + 0.1).cos() - 4, (turn / 5).cos()]
    assert policy._places(torch.stack(series)[None], 2).tolist() == [[1, 2, 0, 3]]  # Anchor, Wave, Veil, Wave


def by_runs(values: Tensor, own: Tensor, dropped: Tensor, target: Tensor, added: Tensor) -> None:
    """Blend as an accelerator does: the first of a run of equal targets does it all, or goes alone."""
    parts = (x.flatten(0, 1) for x in (values, own, dropped, target, added))
    for rows, own_weights, sources, targets, weights in zip(*parts, strict=True):
        assert bool((targets.diff() >= 0).all())
        for slot in targets.unique().tolist():
            run_of = (targets == slot).nonzero().squeeze(1)
            if int(sources[run_of[0]]) != slot:
                arriving = (rows[sources[run_of]] * weights[run_of, None]).sum(0)
                rows[slot] = rows[slot] * own_weights[slot] + arriving


def test_blending_run_by_run_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"wave": 0.25, "veil": 0.5}
    budget = Budget(87, sink=8, recent=24)
    together = run(make("pyramid_forcing", **fields), budget, ABSOLUTE, shape=FOUR, chunks=CHUNKS, batch=2)
    monkeypatch.setattr(merging, "blend_values", by_runs)
    alone = run(make("pyramid_forcing", **fields), budget, ABSOLUTE, shape=FOUR, chunks=CHUNKS, batch=2)
    assert float(together.context.caches[0].slot_state("merged").max()) > 1
    for one, other in zip(together.outputs, alone.outputs, strict=True):
        torch.testing.assert_close(one, other)


def test_merging_asks_the_device_for_nothing() -> None:
    policy = make("pyramid_forcing", wave=0.25, veil=0.5)
    context = Context(policy, FOUR, Budget(87, sink=8, recent=24), ABSOLUTE, batch=2, device="meta")
    rows = torch.zeros(2, 4, FOUR.chunk_tokens, FOUR.head_dim, device="meta")  # asking for a value fails
    for chunk in range(CHUNKS):
        context.start_chunk(chunk, chunk * FOUR.chunk_frames)
        context.start_pass(torch.zeros(2, FOUR.chunk_frames, device="meta"), commit=True)
        context.attend(0, rows, rows, rows)
        context.finish_chunk()
    assert sum(context.caches[0].held) == 4 * 87


def test_kinds_are_each_videos_own() -> None:
    budget = Budget(80, sink=8, recent=24)
    stream = run(make("pyramid_forcing"), budget, ABSOLUTE, batch=4, shape=FOUR, chunks=5)
    ranks = stream.context.caches[0].stats["ranks"]
    assert len({tuple(row) for row in ranks.tolist()}) > 1
    assert all(sorted(row) == [0, 1, 2, 3] for row in ranks.tolist())


@pytest.mark.parametrize("fields", [{"wave": 0.5, "veil": 0.5}, {"wave": 0.0, "veil": 0.5}], ids=str)
@pytest.mark.parametrize("one", checking.PROPERTIES, ids=lambda one: one.name)
def test_properties_hold_with_veil_heads(one: checking.Property, fields: dict[str, object]) -> None:
    subject = checking.Subject(
        lambda: make("pyramid_forcing", **fields), lambda: make("pyramid_forcing", **{**fields, "patch": 1})
    )
    planned = one.name in ("whole frames, shared layers", "pays for its state")
    found = checking.examine(subject, one)
    assert found.status == (checking.NOT_APPLICABLE if planned else checking.PASSED), found.reason


@pytest.mark.parametrize(
    "fields,sentence",
    [
        ({"wave": 0.6}, "policy.wave is 0.6; allowed: 0 to 0.5"),
        ({"veil": -0.1}, "policy.veil is -0.1; allowed: 0 to 0.5"),
        ({"period": 0}, "policy.period is 0; allowed: 1 or more"),
        ({"steady": 0.4}, "policy.steady is 0.4; allowed: 0.5 to 1"),
        ({"longest_period": 1.0}, "policy.longest_period is 1.0; allowed: 2 or more"),
    ],
)
def test_wrong_fields_get_one_sentence(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make("pyramid_forcing", **fields)


def test_a_small_budget_has_fewer_first_frames_or_is_refused() -> None:
    stream = run(make("pyramid_forcing", wave=0.0, veil=0.0), Budget(48, sink=8, recent=24), ABSOLUTE)
    frames = [0] * 8 + [1] * 8 + [n for n in range(14, 18) for _ in range(8)]
    assert stream.context.caches[0].frames.tolist() == [[frames, frames]]
    with pytest.raises(ValueError, match=r"budget\.tokens is 47; policy 'pyramid_forcing' needs 48: sink 8"):
        run(make("pyramid_forcing", near_frames=5), Budget(47, sink=8, recent=24))
