"""Records are exact and reproducible; previews play."""

from __future__ import annotations

import hashlib
from pathlib import Path

import av
import numpy as np
import pytest

from ff_bench.video import frames_sha256, read_record, write_record, write_video


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(7, 64, 64, 3), (3, 33, 47, 3), (1, 2, 2, 3)])
def test_record_reads_back_bit_exactly(tmp_path: Path, shape: tuple[int, ...]) -> None:
    frames = noise(*shape)
    path = write_record(tmp_path / "deep" / "record.mkv", frames, 16)
    again = read_record(path)
    assert again.dtype == np.uint8
    np.testing.assert_array_equal(again, frames)
    assert frames_sha256(again) == hashlib.sha256(frames.tobytes()).hexdigest()
    assert [found.name for found in path.parent.iterdir()] == ["record.mkv"]


def test_equal_frames_give_equal_records(tmp_path: Path) -> None:
    frames = noise(5, 32, 32, 3)
    first, second = (write_record(tmp_path / name, frames, 16) for name in ("a.mkv", "b.mkv"))
    assert first.read_bytes() == second.read_bytes()


def test_hash_does_not_depend_on_memory_layout() -> None:
    frames = noise(4, 8, 8, 3)
    assert frames_sha256(np.asfortranarray(frames)) == frames_sha256(frames)


@pytest.mark.parametrize(
    ("side", "scale", "expected"), [(64, None, 256), (63, None, 252), (15, 1, 16), (480, None, 480)]
)
def test_preview_plays_in_browsers(tmp_path: Path, side: int, scale: int | None, expected: int) -> None:
    path = write_video(tmp_path / "video.mp4", noise(4, side, side, 3), 16, scale=scale)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.pix_fmt == "yuv420p"
        assert (stream.height, stream.width) == (expected, expected)
        context = stream.codec_context
        assert {context.colorspace, context.color_primaries, context.color_trc} == {1}
        assert sum(1 for _ in container.decode(stream)) == 4
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_preview_shows_the_frames(tmp_path: Path) -> None:
    flat = np.zeros((4, 16, 16, 3), np.uint8)
    flat[..., 0], flat[..., 1], flat[..., 2] = 200, 80, 40
    shown = read_record(write_video(tmp_path / "v.mp4", flat, 16))
    assert np.abs(shown.astype(int) - [200, 80, 40]).max() <= 4


def test_wrong_arrays_are_refused(tmp_path: Path) -> None:
    for frames in (np.zeros((2, 8, 8, 3)), noise(0, 8, 8, 3), noise(2, 8, 8)):
        with pytest.raises(ValueError, match="expected uint8"):
            write_record(tmp_path / "a.mkv", frames, 16)
    with pytest.raises(ValueError, match="fps=0"):
        write_record(tmp_path / "a.mkv", noise(1, 8, 8, 3), 0)
    with pytest.raises(ValueError, match="scale=0"):
        write_video(tmp_path / "a.mp4", noise(1, 8, 8, 3), 16, scale=0)
    assert not list(tmp_path.iterdir())
