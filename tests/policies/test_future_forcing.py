"""Fields of Future Forcing: every variant does what every policy must do, and each ablation what it says."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from stream import BUDGET, CHUNKS, SHAPE, Stream, make, run, tensors
from torch import Tensor

from policies.base import Budget, Protocol
from policies.cache import LayerCache
from policies.placing import times_of
from policies.positions import MODES

VIDEO = CHUNKS * SHAPE.chunk_tokens
VARIANTS = [
    {"merge": "affine"},
    {"merge": "affine", "key": "survivor", "bias": "none", "merge_where": "all"},
    {"merge": "affine", "key": "survivor", "merge_where": "all"},
    {"merge": "affine", "bias": "absorbed", "merge_where": "all"},
    {"merge": "none"},
    {"merge": "none", "keep": "newest"},
    {"keep": "newest"},
]
VARIANT = pytest.mark.parametrize(
    "fields", VARIANTS, ids=["-".join(str(x) for x in variant.values()) for variant in VARIANTS]
)


# -- what every policy must do -------------------------------------------------------------------------


@VARIANT
def test_a_budget_of_the_video_is_bit_identical_to_full(fields: dict[str, str]) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        full = run(make("full"), Budget(None), dtype=dtype)
        mine = run(make("future_forcing", **fields), Budget(VIDEO), dtype=dtype)
        assert all(torch.equal(a, b) for a, b in zip(full.outputs, mine.outputs, strict=True))


@VARIANT
@pytest.mark.parametrize("change", [{}, {"share": "layer"}, {"unit": "frame"}, {"position": "contiguous"}])
def test_a_video_is_the_same_alone_and_in_a_batch(fields: dict[str, str], change: dict[str, str]) -> None:
    shape = dataclasses.replace(SHAPE, query_heads=4)
    kept = Protocol(**{"position": "absolute", **change})
    both = run(make("future_forcing", **fields), protocol=kept, batch=2, shape=shape)
    for element in range(2):
        alone = run(
            make("future_forcing", **fields), protocol=kept, batch=2, shape=shape,
            edit=lambda x, e=element: x[e : e + 1],
        )  # fmt: skip
        for one, other in zip(alone.outputs, both.outputs, strict=True):
            torch.testing.assert_close(one[0], other[element])


@VARIANT
def test_heads_are_alike_and_two_runs_equal(fields: dict[str, str]) -> None:
    first, second, turned = (
        run(make("future_forcing", **fields), edit=edit)
        for edit in (lambda x: x, lambda x: x, lambda x: x.flip(1))
    )
    assert all(torch.equal(a, b) for a, b in zip(first.outputs, second.outputs, strict=True))
    for one, other in zip(first.outputs, turned.outputs, strict=True):
        torch.testing.assert_close(one.flip(1), other)


@VARIANT
@pytest.mark.parametrize("position", MODES)
def test_keys_stand_rotated_at_their_times_and_attention_is_preserved(
    fields: dict[str, str], position: str
) -> None:
    stream = run(make("future_forcing", **fields), protocol=Protocol(position=position), batch=2)
    stream.context.start_chunk(CHUNKS, CHUNKS * SHAPE.chunk_frames)
    for cache in stream.context.caches:
        assert cache.size == BUDGET.tokens and bool((cache.tokens.diff(dim=-1) > 0).all())
        moved = SHAPE.rope.rotate(cache.keys, _angles(cache, position))
        torch.testing.assert_close(cache.rotated, moved, atol=2e-6, rtol=1e-5)
    assert all(bool(out.isfinite().all()) for out in stream.outputs)


def _angles(cache: LayerCache, position: str) -> Tensor:
    first = CHUNKS * SHAPE.chunk_frames
    times, _ = times_of(
        cache, cache.tokens, position, shape=SHAPE, sink=BUDGET.sink, first_frame=first, frames=3
    )
    return SHAPE.rope.angles(times, cache.rows, cache.columns)


@VARIANT
def test_equal_keys_give_no_nan(fields: dict[str, str]) -> None:
    stream = run(make("future_forcing", **fields), edit=torch.ones_like)
    for cache in stream.context.caches:
        assert all(bool(x.isfinite().all()) for x in (cache.keys, cache.values, *cache.state.values()))


def test_slots_that_are_the_same_are_counted() -> None:
    stream = run(
        make("future_forcing", merge="affine", merge_where="all"), edit=torch.ones_like, chunks=4, passes=1
    )
    shown = 4 * SHAPE.chunk_tokens  # with equal logits each head has seen as much mass as tokens
    for cache in stream.context.caches:
        assert cache.size == BUDGET.tokens
        weight = cache.slot_state("log_mass").exp().sum(-1)
        assert bool((weight <= shown * 1.001).all()) and bool((weight > BUDGET.tokens).all())


@pytest.mark.parametrize("stride", [1, 5])
@pytest.mark.parametrize("passes", ["clean", "all"])
def test_charging_and_protocol(stride: int, passes: str) -> None:
    for fields, tokens in (({"merge": "affine"}, 60), ({"merge": "affine", "bias": "absorbed"}, 62)):
        protocol = Protocol(passes=passes, query_stride=stride, charge_state=True)
        stream = run(make("future_forcing", **fields), protocol=protocol)
        assert stream.context.budget.tokens == tokens  # 128 bytes a slot, 4 more per state
        assert all(bool(out.isfinite().all()) for out in stream.outputs)


def test_the_ablation_without_score_keeps_the_window() -> None:
    mine = run(make("future_forcing", keep="newest", merge="none"))
    window = run(make("streaming_llm"))
    assert all(torch.equal(a, b) for a, b in zip(mine.outputs, window.outputs, strict=True))
    assert not mine.context.policy.states


def test_the_first_pass_feeds_the_proxy() -> None:
    protocol = Protocol(passes="all")
    seen = run(make("future_forcing", proxy_pass="first", lam=1.0, merge="none"), protocol=protocol, chunks=3)
    only = {}

    def first(number: int) -> Tensor:
        return tensors(SHAPE, batch=1, number=number)[0]

    for layer, cache in enumerate(seen.context.caches):  # three chunks of two passes over two layers
        number = 2 * 2 * SHAPE.layers + layer + 1
        only[layer] = first(number).unflatten(2, (-1, SHAPE.frame_tokens)).mean(2)
        scores = naive_future(only[layer], seen, layer)
        dropped = scores.shape[-1] - cache.size
        assert dropped == 8
        held = set(cache.tokens[0, 0].tolist())
        free = [t for t in range(BUDGET.sink, 72 - BUDGET.recent)]
        ranked = sorted(free, key=lambda t: float(scores[0, t]))
        assert held.isdisjoint(ranked[:dropped])
    with pytest.raises(ValueError, match=r"proxy_pass is 'first'; allowed with protocol\.passes=all"):
        run(make("future_forcing", proxy_pass="first"))


def naive_future(proxy: Tensor, stream: Stream, layer: int) -> Tensor:
    """Return the future attention of the 72 tokens of three chunks, (H, 72), all of them held."""
    keys = torch.cat(
        [
            tensors(SHAPE, batch=1, number=chunk * 2 * SHAPE.layers + SHAPE.layers + layer + 1)[1][0]
            for chunk in range(3)
        ],
        1,
    )
    token = torch.arange(72)
    at = SHAPE.rope.angles(token // 8, token % 8 // 4, token % 4)
    rotated = SHAPE.rope.rotate(keys, at)
    out = torch.zeros(SHAPE.heads, 72)
    for ahead in range(1, 7):
        cell = torch.arange(8)
        turned = SHAPE.rope.rotate(proxy[0], SHAPE.rope.angles(torch.tensor(8 + ahead), cell // 4, cell % 4))
        out += (turned @ rotated.mT / SHAPE.head_dim**0.5).softmax(-1).mean(1) / 6
    return out


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"keep": "all"}, "policy.keep is 'all'; allowed: score, newest"),
        ({"merge": "mean"}, "policy.merge is 'mean'; allowed: value, affine, none"),
        ({"bias": "log"}, "policy.bias is 'log'; allowed: explicit, absorbed, none"),
        ({"ridge": -1.0}, "policy.ridge is -1.0; allowed: 0 or more"),
    ],
)
def test_wrong_fields_get_a_sentence(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make("future_forcing", **fields)
