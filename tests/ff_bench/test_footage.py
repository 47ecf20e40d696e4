"""Frames in blocks: nothing is lost or held, and footage that is not what it says is told."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff_bench.footage import BLOCK, Held, Streamed, regroup


def numbered(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 3), np.uint8)


@given(st.lists(st.integers(1, 40), max_size=8), st.integers(1, 17))
def test_regroup_keeps_order_and_sizes(sizes: list[int], size: int) -> None:
    everything = np.arange(sum(sizes))
    pieces = iter(np.split(everything, np.cumsum(sizes)[:-1])) if sizes else iter([])
    blocks = list(regroup(pieces, size))
    assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
    assert all(1 <= len(block) <= size for block in blocks)
    assert np.array_equal(np.concatenate([*blocks, everything[:0]]), everything)


def test_held_and_streamed_frames_are_the_same() -> None:
    frames = numbered(2 * BLOCK + 5)
    streamed = Streamed(len(frames), (4, 6), lambda: iter([frames[:3], frames[3:]]))
    held = Held(frames)
    assert held.size == streamed.size
    assert held.count == streamed.count
    assert np.array_equal(np.concatenate(list(held.blocks())), frames)
    assert [len(block) for block in streamed.blocks()] == [BLOCK, BLOCK, 5]
    assert np.array_equal(streamed.frames, frames)


@pytest.mark.parametrize(("there", "told"), [(9, "more frames, not 8"), (7, "7 frames, not 8")])
def test_another_number_of_frames_is_an_error(there: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        list(Streamed(8, (4, 6), lambda: iter([numbered(there)])).blocks())


def test_what_the_source_finds_at_its_end_is_not_lost() -> None:
    def pieces() -> Iterator[np.ndarray]:
        yield numbered(8)
        raise ValueError("record does not hold the frames")

    with pytest.raises(ValueError, match="does not hold"):
        list(Streamed(8, (4, 6), pieces).blocks())
