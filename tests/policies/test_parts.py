"""Rotation, positions, selection, cache and merging, each alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stream import SHAPE

from policies import merging
from policies.attention import mass
from policies.cache import LayerCache
from policies.positions import distances, time_indices
from policies.rope import Rope
from policies.selection import rest, select

# -- rotation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_rotation_is_a_complex_product(layout: str) -> None:
    rope = Rope((8, 4, 4), (1000.0, 100.0, 50.0), layout)
    x = torch.randn(3, 16, dtype=torch.float64).float()
    time, row, column = torch.tensor([0, 7, 900]), torch.tensor([1, 0, 3]), torch.tensor([2, 2, 0])
    angles = rope.angles(time, row, column)
    first, second = rope.pairs(x)
    expected = torch.complex(first, second) * torch.exp(1j * angles)
    turned = rope.pairs(rope.rotate(x, angles))
    torch.testing.assert_close(torch.complex(*turned), expected)
    assert float(angles[1, 0]) == 7.0  # the fastest time pair turns by one radian a frame
    assert float(angles[0, 4]) == 1.0 and float(angles[0, 6]) == 2.0
    torch.testing.assert_close(rope.rotate(rope.rotate(x, angles), -angles), x)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_turning_time_alone(layout: str, dtype: torch.dtype) -> None:
    rope = dataclasses.replace(SHAPE.rope, layout=layout)
    x = torch.randn(2, 5, 16).to(dtype)
    zero = torch.zeros(5, dtype=torch.int64)
    delta = torch.tensor([0, 1, -2, 40, 7])
    both = rope.rotate(x, rope.angles(delta, zero, zero))
    torch.testing.assert_close(rope.rotate_time(x, delta), both)


def test_dot_products_depend_on_the_difference_of_positions() -> None:
    query, key = torch.randn(16), torch.randn(16)
    zero = torch.zeros((), dtype=torch.int64)

    def at(x: torch.Tensor, time: int) -> torch.Tensor:
        return SHAPE.rope.rotate(x, SHAPE.rope.angles(torch.tensor(time), zero, zero))

    torch.testing.assert_close(
        at(query, 9) @ at(key, 4), at(query, 1005) @ at(key, 1000), atol=1e-4, rtol=1e-4
    )


def test_rope_errors_name_field_and_value() -> None:
    with pytest.raises(ValueError, match=r"rope\.layout is 'pairs'; allowed: half, interleaved"):
        Rope((2, 2, 2), (1.0, 1.0, 1.0), "pairs")
    with pytest.raises(ValueError, match=r"rope\.dims"):
        Rope((3, 2, 2), (1.0, 1.0, 1.0))


# -- positions ------------------------------------------------------------------------------------------

TOKENS = torch.tensor([[[0, 1, 8, 40, 41, 160, 161, 168]]], dtype=torch.int32)  # frames 0 0 1 5 5 20 20 21


def times(mode: str, **changes: int) -> tuple[list[int], list[int]]:
    numbers = {"first_frame": 22, "frames": 3, "frame_tokens": 8, "window": 12, "sink": 3} | changes
    context, chunk = time_indices(TOKENS, mode, **numbers)
    return context.flatten().tolist(), chunk.flatten().tolist()


def test_position_modes_by_hand() -> None:
    assert times("absolute") == ([0, 0, 1, 5, 5, 20, 20, 21], [22, 23, 24])
    assert times("contiguous") == ([0] * 8, [1, 2, 3])
    assert times("contiguous", frame_tokens=3) == ([0, 0, 0, 1, 1, 1, 2, 2], [3, 4, 5])
    assert times("frame_rank") == ([0, 0, 1, 2, 2, 3, 3, 4], [5, 6, 7])
    assert times("clamped") == ([13, 13, 13, 13, 13, 20, 20, 21], [22, 23, 24])
    assert times("sink_shifted") == ([21, 21, 22, 5, 5, 20, 20, 21], [22, 23, 24])
    with pytest.raises(ValueError, match=r"protocol\.position is 'slot'; allowed: absolute, contiguous"):
        times("slot")


def test_a_window_with_a_shifted_sink_is_contiguous() -> None:
    tokens = torch.cat([torch.arange(8), torch.arange(80, 104)]).view(1, 1, -1).int()
    numbers = {"first_frame": 13, "frames": 3, "frame_tokens": 8, "window": 12, "sink": 8}
    context, chunk = time_indices(tokens, "sink_shifted", **numbers)
    flat, follows = time_indices(tokens, "contiguous", **numbers)
    assert torch.equal(chunk[0] - context, (follows[0] - flat).expand_as(context))


def test_distances_count_context_and_chunk() -> None:
    context, chunk = torch.tensor([[[0, 5, 20, 21]]]), torch.tensor([22, 23, 24])
    largest, beyond = distances(context, chunk, frame_tokens=2, window=12)
    assert float(largest) == 24 and float(beyond) == pytest.approx(2 / 10)
    largest, beyond = distances(context[..., :0], chunk, frame_tokens=2, window=12)
    assert float(largest) == 2 and float(beyond) == 0


# -- selection ------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_select_against_sorting(data: st.DataObject) -> None:
    slots = data.draw(st.integers(1, 24))
    tokens = data.draw(st.integers(0, slots))
    sink = data.draw(st.integers(0, tokens))
    recent = data.draw(st.integers(0, tokens - sink))
    values = st.sampled_from([-float("inf"), -1.0, 0.0, 0.5, 1.0, float("inf")])  # many ties
    score = torch.tensor(data.draw(st.lists(values, min_size=2 * slots, max_size=2 * slots))).view(
        1, 2, slots
    )
    index = select(score, tokens, sink=sink, recent=recent)
    assert index.dtype == torch.int64 and index.shape == (1, 2, tokens)
    others = rest(index, slots)
    for head in range(2):
        protected = [*range(sink), *range(slots - recent, slots)]
        free = sorted(set(range(slots)) - set(protected), key=lambda i: (-float(score[0, head, i]), -i))
        expected = sorted({*protected, *free[: tokens - sink - recent]})
        assert index[0, head].tolist() == expected
        assert others[0, head].tolist() == sorted(set(range(slots)) - set(expected))


def test_select_refuses_too_many_protected_slots() -> None:
    with pytest.raises(ValueError, match="sink 3 \\+ recent 3 do not fit into 4 tokens"):
        select(torch.zeros(1, 1, 9), 4, sink=3, recent=3)


# -- cache ----------------------------------------------------------------------------------------------


QUARTER = (torch.zeros(1, 8), torch.ones(1, 8))
"""Cosines and sines of a quarter turn, alike for all tokens."""


def filled(count: int, capacity: int = 96) -> LayerCache:
    cache = LayerCache(SHAPE, layer=0, batch=2, capacity=capacity, dtype=torch.float32, device="cpu")
    cache.start_chunk()
    keys = torch.randn(2, 2, count, 16)
    cache.stage(keys, keys + 2, QUARTER)
    cache.append(keys, 100)
    cache.slot_state("tag").copy_(cache.tokens)
    return cache


@pytest.mark.parametrize("start,count", [(0, 1), (0, 24), (8, 24), (8, 56), (0, 72), (30, 0)])
def test_dropping_a_run_is_keeping_the_others(start: int, count: int) -> None:
    cache, other = filled(72), filled(72)
    for name in ("_keys", "_values", "_rotated"):
        getattr(other, name).copy_(getattr(cache, name))
    kept = torch.cat([torch.arange(start), torch.arange(start + count, 72)])
    cache.drop(start, count)
    other.keep(kept)
    for name in ("keys", "values", "rotated", "tokens"):
        assert torch.equal(getattr(cache, name), getattr(other, name))
    assert torch.equal(cache.slot_state("tag"), cache.tokens.float())
    assert cache.has_dropped is (count > 0)


def test_keep_gathers_per_head_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.cache._block_elements", lambda device: 64 * 5)  # several blocks
    cache = filled(72)
    before = {name: getattr(cache, name).clone() for name in ("keys", "values", "rotated")}
    index = torch.rand(2, 2, 72).argsort(-1)[..., :30].sort(-1).values
    address = cache.keys.data_ptr()
    cache.keep(index)
    assert cache.size == 30 and cache.keys.data_ptr() == address
    for name, tensor in before.items():
        assert torch.equal(getattr(cache, name), merging.take_rows(tensor, index))
    assert torch.equal(cache.tokens, (index + 100).int())


def test_cache_refuses_what_does_not_fit() -> None:
    cache = filled(90)
    with pytest.raises(ValueError, match="90 slots \\+ 24 of the chunk exceed the capacity of 96"):
        cache.stage(torch.zeros(2, 2, 24, 16), torch.zeros(2, 2, 24, 16), QUARTER)
    with pytest.raises(ValueError, match="24 keys to append, 0 staged"):
        cache.append(torch.zeros(2, 2, 24, 16), 0)


def test_bytes_by_hand() -> None:
    cache = filled(72)
    slots = 2 * 2 * 72
    assert cache.nbytes() == slots * 2 * 16 * 4
    assert cache.rotated_nbytes() == slots * 16 * 4
    cache.stats["extra"] = torch.zeros(10)
    assert cache.state_nbytes() == slots * (4 + 4) + 40


def test_new_slots_get_the_fill() -> None:
    cache = filled(24)
    cache.slot_state("votes", fill=1.0).fill_(5.0)
    cache.drop(0, 12)
    cache.start_chunk()
    keys = torch.zeros(2, 2, 24, 16)
    cache.stage(keys, keys, QUARTER)
    assert cache.staged_state("votes")[0, 0].tolist() == [5.0] * 12 + [1.0] * 24


# -- mass and merging -----------------------------------------------------------------------------------


def test_strided_mass_keeps_its_sum_and_visits_every_column() -> None:
    queries, keys = torch.randn(1, 2, 64, 16), torch.randn(1, 2, 40, 16)
    strided = mass(queries, keys, context=40, stride=8)
    torch.testing.assert_close(strided.sum(-1), torch.full((1, 2), 64.0))
    diagonal = mass(queries[:, :, [9 * i for i in range(8)]], keys, context=40)
    torch.testing.assert_close(strided, diagonal * 8)


def test_mass_of_nothing_is_empty() -> None:
    assert mass(
        torch.randn(1, 2, 6, 16), torch.randn(1, 2, 6, 16), context=0, denominator="context"
    ).shape == (1, 2, 0)


@pytest.mark.parametrize("count", [1, 127, 128, 129, 300])
def test_nearest_against_numpy(count: int) -> None:
    source, target = torch.randn(1, 2, 50, 6), torch.randn(1, 2, count, 6)
    cosine, index = merging.nearest(source, target, block=700)
    a, b = source[0].double().numpy(), target[0].double().numpy()
    a, b = a / np.linalg.norm(a, axis=-1, keepdims=True), b / np.linalg.norm(b, axis=-1, keepdims=True)
    similarity = a @ b.transpose(0, 2, 1)
    np.testing.assert_allclose(cosine[0].numpy(), similarity.max(-1), atol=1e-6)
    assert np.array_equal(index[0].numpy(), similarity.argmax(-1))


def test_slots_that_take_nothing_in_stay_bit_identical() -> None:
    values = torch.randn(1, 2, 20, 16)
    before = values.clone()
    dropped = torch.tensor([3, 4, 9]).expand(1, 2, 3)
    target = torch.tensor([7, 7, 9]).expand(1, 2, 3)
    own = torch.ones(1, 2, 20)
    own[..., 7] = 0.5
    added = torch.tensor([0.25, 0.25, 0.0]).expand(1, 2, 3)
    merging.blend_values(values, own, dropped, target, added)
    others = [i for i in range(20) if i != 7]
    assert torch.equal(values[:, :, others], before[:, :, others])
    torch.testing.assert_close(
        values[:, :, 7], before[:, :, 7] / 2 + before[:, :, 3] / 4 + before[:, :, 4] / 4
    )
