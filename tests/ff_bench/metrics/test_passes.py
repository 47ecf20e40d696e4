"""One pass feeds every signal; blocks do not show in what is measured, an obstacle stops one signal only."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from ff_bench.errors import Unavailable
from ff_bench.footage import BLOCK, Footage, Held, Streamed
from ff_bench.metrics import passes, shelf, signals
from ff_bench.metrics.clips import starts
from ff_bench.metrics.shelf import Shelf
from ff_bench.metrics.signals import CLIPS, HEADS
from ff_bench.video import recode

FPS = 4


class _Marks:
    """A signal that notes the first pixel of every frame."""

    version: ClassVar[int] = 1
    weights: ClassVar[tuple[str, ...]] = ()
    libraries: ClassVar[tuple[str, ...]] = ()
    reads_prompt: ClassVar[bool] = False

    def __init__(self, device: torch.device) -> None:
        pass

    def measure(self, frames: Tensor, *, fps: float, prompt: str, lead: int = 0) -> dict[str, Tensor]:
        return {"marks": frames[lead:, 0, 0, 0].float()}


class Marks(_Marks):
    name: ClassVar[str] = "marks"
    reads: ClassVar[str] = CLIPS


class Heads(_Marks):
    name: ClassVar[str] = "heads"
    reads: ClassVar[str] = HEADS


class Stops(_Marks):
    name: ClassVar[str] = "stops"
    reads: ClassVar[str] = CLIPS

    def measure(self, frames: Tensor, *, fps: float, prompt: str, lead: int = 0) -> dict[str, Tensor]:
        raise Unavailable("frames of this kind cannot be measured")


class Absent(_Marks):
    name: ClassVar[str] = "absent"
    reads: ClassVar[str] = CLIPS

    def __init__(self, device: torch.device) -> None:
        raise Unavailable("weights are not here")


@pytest.fixture(autouse=True)
def own_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {**signals.SIGNALS}
    known |= {kind.name: f"{__name__}:{kind.__name__}" for kind in (Marks, Heads, Stops, Absent)}
    monkeypatch.setattr(signals, "SIGNALS", known)
    kinds = {kind.name: kind for kind in (Marks, Heads, Stops, Absent)}
    for module in (passes, shelf):
        found = module.kind
        monkeypatch.setattr(module, "kind", lambda name, found=found: kinds.get(name) or found(name))
    passes.loaded.cache_clear()


def film(count: int) -> np.ndarray:
    ramp = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(ramp, (count, 16, 16, 3)).copy()


def measured(footage: Footage, *keys: str, fps: float = FPS, folder: Path | None = None) -> Shelf:
    found = Shelf(folder, "0" * 64)
    passes.measure(footage, keys, found, fps=fps, device="cpu")
    return found


def test_clips_overlap_at_the_end_and_heads_are_their_first_frames() -> None:
    found = measured(Held(film(21)), "strict/marks", "strict/heads")
    expected = [frame for start in starts(21, FPS) for frame in range(start, start + 8)]
    assert found.get("strict/marks")["marks"].tolist() == expected
    assert found.get("strict/marks")["marks_counts"].tolist() == [8, 8, 8]
    assert found.get("strict/heads")["marks"].tolist() == [0, 8, 13]


def test_the_view_compat_sees_what_the_codec_leaves() -> None:
    frames = film(16)
    found = measured(Held(frames), "compat/marks", "compat/heads", "strict/marks")
    through = [np.stack(list(recode(frames[part], FPS))) for part in (slice(0, 8), slice(8, 16))]
    assert found.get("compat/marks")["marks"].tolist() == [int(f[0, 0, 0]) for clip in through for f in clip]
    heads = np.stack(list(recode([clip[0] for clip in through], FPS)))
    assert found.get("compat/heads")["marks"].tolist() == heads[:, 0, 0, 0].tolist()
    assert found.get("strict/marks")["marks"].tolist() == [*range(16)]


@pytest.mark.parametrize("count", [1, BLOCK, BLOCK + 1, 3 * BLOCK - 1])
def test_blocks_do_not_show_in_what_reads_the_whole_video(count: int) -> None:
    frames = np.random.default_rng(count).integers(0, 256, (count, 12, 10, 3), dtype=np.uint8)
    found = measured(Held(frames), "frames/difference", "frames/levels")
    change = np.abs(frames[1:].astype(int) - frames[:-1]).mean((1, 2, 3)) / 255
    np.testing.assert_allclose(found.get("frames/difference")["change"], [0, *change], atol=1e-12)
    brightness = frames.mean((1, 2, 3)) / 255
    np.testing.assert_allclose(found.get("frames/levels")["brightness"], brightness, atol=1e-12)


def test_an_obstacle_stops_one_signal_only() -> None:
    found = measured(Held(film(9)), "strict/stops", "strict/absent", "strict/marks")
    assert len(found.get("strict/marks")["marks"]) == 16
    with pytest.raises(Unavailable, match="of this kind"):
        found.get("strict/stops")
    with pytest.raises(Unavailable, match="not here"):
        found.get("strict/absent")


def test_odd_sides_and_slow_videos_are_obstacles_of_what_cannot_take_them() -> None:
    odd = film(9)[:, :15]
    found = measured(Held(odd), "compat/marks", "strict/marks", "frames/difference")
    with pytest.raises(Unavailable, match="sides must be even"):
        found.get("compat/marks")
    assert found.has("strict/marks")
    slow = measured(Held(film(9)), "strict/marks", "frames/difference", fps=0.5)
    with pytest.raises(Unavailable, match="below 1"):
        slow.get("strict/marks")
    assert slow.has("frames/difference")


def test_a_single_clip_has_no_heads() -> None:
    found = measured(Held(film(5)), "strict/heads")
    assert dict(found.get("strict/heads")) == {}


def test_footage_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    broken = Streamed(40, (16, 16), lambda: iter([film(33)]))
    with pytest.raises(ValueError, match="33 frames, not 40"):
        measured(broken, "strict/marks", "frames/levels", folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_shelf_keeps_signals_and_refuses_other_frames_and_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measured(Held(film(16)), "strict/marks", folder=tmp_path)
    again = Shelf(tmp_path, "0" * 64)
    assert np.array_equal(again.get("strict/marks")["marks"], first.get("strict/marks")["marks"])
    assert again.state("strict/marks") == "strict/marks v1"
    assert not Shelf(tmp_path, "1" * 64).has("strict/marks")
    monkeypatch.setattr(Marks, "version", 2)
    assert not Shelf(tmp_path, "0" * 64).has("strict/marks")
    (tmp_path / "strict-marks.safetensors").write_bytes(b"torn")
    assert not Shelf(tmp_path, "0" * 64).has("strict/marks")


def test_a_signal_that_reads_the_prompt_is_valid_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Marks, "reads_prompt", True)
    found = Shelf(tmp_path, "0" * 64, "a cat")
    passes.measure(Held(film(16)), ["strict/marks"], found, fps=FPS, device="cpu")
    assert Shelf(tmp_path, "0" * 64, "a cat").has("strict/marks")
    assert not Shelf(tmp_path, "0" * 64, "a dog").has("strict/marks")
