"""Clips of 2 s against the rule of VBench-Long, and the codec step against a file written the usual way."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from ff_bench.footage import Held
from ff_bench.metrics import clips
from ff_bench.metrics.recoding import recoded
from ff_bench.video import recode


def moving(count: int, height: int = 48, width: int = 64, *, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(count, height, width, 3))
    return np.clip(128 + 400 * gaussian_filter(noise, (2, 3, 3, 0)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("count", "fps", "expected"),
    [
        (960, 16, [*range(0, 960, 32)]),
        (969, 16, [*range(0, 960, 32), 937]),  # a Wan video: the last clip reaches back
        (20, 16, [0]),
        (32, 16, [0]),
        (33, 16, [0, 1]),
        (100, 23.976, [0, 46, 54]),  # whole frames per second, rounded down
    ],
)
def test_clips_start_where_vbench_long_cuts(count: int, fps: float, expected: list[int]) -> None:
    assert clips.starts(count, fps) == expected


@given(st.integers(1, 200), st.floats(1, 30))
def test_cutting_a_stream_gives_the_clips_that_starts_names(count: int, fps: float) -> None:
    frames = np.arange(count, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 2, 2, 3), np.uint8)
    found = list(clips.cut(Held(frames).blocks(), fps))
    length = clips.clip_frames(fps)
    assert len(found) == len(clips.starts(count, fps))
    for clip, start in zip(found, clips.starts(count, fps), strict=True):
        assert np.array_equal(clip, frames[start : start + length])
    assert {int(frame) for clip in found for frame in clip[:, 0, 0, 0]} == set(range(count))


def test_below_one_frame_per_second_there_are_no_clips() -> None:
    with pytest.raises(ValueError, match="below 1"):
        clips.starts(100, 0.5)


def test_the_codec_step_is_that_of_a_video_file() -> None:
    frames = moving(34)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=16)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as container:
        through_file = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    through_memory = np.stack(list(recode(frames, 16)))
    assert np.array_equal(through_memory, through_file)
    loss = np.abs(through_memory.astype(int) - frames).mean()
    assert 0 < loss < 10


def test_the_codec_step_cannot_hold_odd_sides() -> None:
    with pytest.raises(ValueError, match="49x64 px cannot go through the codec step: sides must be even"):
        list(recode(moving(3, 64, 49), 16))


@pytest.mark.parametrize("beside_gpu", [False, True])
def test_clips_go_through_the_codec_side_by_side_and_come_back_in_order(beside_gpu: bool) -> None:
    parts = [moving(6, seed=seed) for seed in range(5)]
    pairs = list(recoded(iter(parts), 16, beside_gpu=beside_gpu))
    assert len(pairs) == len(parts)
    for part, (clip, through) in zip(parts, pairs, strict=True):
        assert np.array_equal(clip, part)
        assert np.array_equal(through, np.stack(list(recode(part, 16))))
