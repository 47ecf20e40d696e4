"""A folder of odd videos: each is scored as what it is or is a failed row that says why; the others go on."""

from __future__ import annotations

import json
import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ff_bench import cli, probe, records, runs, starts, video_kinds
from ff_bench.errors import UsageError
from ff_bench.models.facts import facts
from tests.ff_bench.test_foreign import make

FRAMES, SIDES = 6, (32, 48)


def film(
    path: Path, pixels: str = "bgr0", *, sides: tuple[int, int] = SIDES, frames: int = FRAMES,
    codec: str = "ffv1", times: list[int] | None = None,
) -> Path:  # fmt: skip
    """Write a moving pattern; times in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(16))
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = *sides, pixels
        container.start_encoding()
        for number in range(frames):
            image = np.full((*sides, 3), 20 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def raw(path: Path, header: str) -> None:
    frame = b"FRAME\n" + b"\x80" * (48 * 32 * 3 // 2)
    path.write_bytes(f"YUV4MPEG2 {header}\n".encode() + frame * 3)


def behind(path: Path, source: Path, mark: bytes, skip: int, value: bytes) -> None:
    """Copy a file with other bytes so many behind a mark."""
    content = source.read_bytes()
    place = content.index(mark) + skip
    path.write_bytes(content[:place] + value + content[place + len(value) :])


NAMES = (
    "new\nline.mkv", "quo\"te'.mkv", "--help.mkv", "-rf.mkv", "metrics=[x].mkv", "$(touch hacked).mkv",
    "%d.mkv", "\x1b[31mred.mkv", "\u202egnp.mkv", "a\\b.mkv", "file:x.mkv", f"{'x' * 240}.mkv", "<b>.mkv",
    " .mkv",
)  # fmt: skip
PIXELS = ("yuv420p10le", "gray", "gray16le", "yuva420p", "bgra")
GOOD = {"odd": (33, 47), "dot": (1, 1), "line": (1, 300)}
BROKEN = {
    "none.mkv": "it cannot be read", "none.y4m": "it holds no frame",
    "still.y4m": "its frame rate is not known", "rateless.y4m": "its frame rate is not known",
    "huge.y4m": "its header tells 65535 x 65535 pixels",
    "huge.gif": "it breaks off after 0 frames", "cut.mkv": "it breaks off after", "back.mp4": "goes back",
    "text.mp4": "it cannot be read", "empty.mp4": "the file is empty", "pipe.mp4": "it is no plain file",
    "loop.mp4": "there is no such file", "zero.mp4": "it is no plain file", "sound.mp4": "only audio",
    "list.mkv": "it is no container of videos", "picture.mp4": "it is no container of videos",
}  # fmt: skip


def write_broken(folder: Path) -> None:
    film(folder / "none.mkv", frames=0)
    for name, header in (("still", "W48 H32 F0:1"), ("rateless", "W48 H32"), ("huge", "W65535 H65535 F16:1")):
        raw(folder / f"{name}.y4m", header)
    (folder / "none.y4m").write_bytes(b"YUV4MPEG2 W48 H32 F16:1\n")
    behind(
        folder / "huge.gif", film(folder / "b.gif", "rgb8", codec="gif"), b"GIF89a", 6, b"\xff\xff\xff\xff"
    )
    behind(folder / "back.mp4", make(folder / "c.mp4", frames=12), b"stts", 16, struct.pack(">I", 0))
    (folder / "cut.mkv").write_bytes((folder / "good.mkv").read_bytes()[:-400])
    (folder / "text.mp4").write_text("hello\n" * 99)
    (folder / "empty.mp4").touch()
    os.mkfifo(folder / "pipe.mp4")
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "zero.mp4").symlink_to("/dev/zero")
    (folder / "list.mkv").write_text("ffconcat version 1.0\nfile good.mkv\n")
    film(folder / "d.png", "rgb24", codec="png", frames=1).rename(folder / "picture.mp4")
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for number in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_a_folder_of_odd_videos(
    clean: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FF_BENCH_CACHE", str(clean / "cache"))
    folder = clean / "in"
    folder.mkdir()
    good = film(folder / "good.mkv")
    film(folder / "one.mkv", frames=1)
    film(folder / "uneven.mkv", times=[0, 63, 125, 313, 375, 900])
    (folder / "wrong.gif").write_bytes(good.read_bytes())
    for name, sides in GOOD.items():
        film(folder / f"{name}.mkv", sides=sides)
    for pixels in PIXELS:
        film(folder / f"{pixels}.mkv", pixels)
    for name in NAMES:
        (folder / name).write_bytes(good.read_bytes())
    write_broken(folder)
    words = ["score", "in", "out=out", "metrics=[flicker,guards]", "device=cpu", "stages=[score]"]
    assert cli.main(words) == cli.FAILED
    shown = capsys.readouterr()
    told = json.loads(shown.out.splitlines()[-1])
    assert "Traceback" not in shown.out + shown.err and "\x1b[31m" not in shown.out + shown.err
    found = {}
    for path in (clean / "out").rglob(runs.MANIFEST):
        manifest = runs.read_manifest(path.parent)
        assert manifest is not None
        found[Path(manifest.source["path"]).name] = (manifest, records.rows_of(path.parent))
    assert len(found) == len(list(folder.iterdir()))
    for name, (manifest, rows) in found.items():
        if name in BROKEN:
            assert [row["status"] for row in rows] == ["failed"], name
            assert BROKEN[name] in rows[0]["reason"], (name, rows[0]["reason"])
        else:
            assert all(row["status"] != "failed" for row in rows) and manifest.frames, name
    assert told["broken"] == told["failed"] == len(BROKEN)
    assert found["uneven.mkv"][0].source["is_variable"]
    assert found["one.mkv"][0].frames == 1
    assert {path.name for path in clean.iterdir()} == {"in", "out", "cache"}


def test_frames_that_no_memory_holds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_kinds, "LARGEST_PIXELS", 1000)
    with pytest.raises(probe.Broken, match="its frames have 48 x 32 pixels, allowed are 1000 at most"):
        probe.examine(film(tmp_path / "a.mkv"))


@pytest.mark.parametrize(
    "text", ["ffconcat version 1.0\nfile good.mkv\n", "#EXTM3U\n#EXTINF:1,\ngood.mkv\n#EXT-X-ENDLIST\n"]
)
def test_a_list_of_other_files_is_no_video(tmp_path: Path, text: str) -> None:
    film(tmp_path / "good.mkv")
    (tmp_path / "list.mkv").write_text(text)
    with pytest.raises(probe.Broken):
        probe.examine(tmp_path / "list.mkv")


@pytest.mark.parametrize(
    ("latents", "told"),
    [
        (torch.zeros(()), "allowed are floats (F, C, h, w)"),
        (torch.zeros(3, 16, 4, 4, dtype=torch.int32), "holds int32 (3, 16, 4, 4)"),
        (torch.full((3, 16, 4, 4), torch.nan), "latents that are not finite"),
    ],
)
def test_latents_to_start_from_are_numbers(tmp_path: Path, latents: torch.Tensor, told: str) -> None:
    save_file({"latents": latents}, tmp_path / "a.safetensors")
    with pytest.raises(UsageError) as caught:
        starts.latent_frames(tmp_path / "a.safetensors", facts("self_forcing"))
    assert told in str(caught.value)


@pytest.mark.parametrize("name", ["list.mp4", "none.y4m", "text.png"])
def test_what_is_no_picture_starts_no_video(tmp_path: Path, name: str) -> None:
    film(tmp_path / "good.mkv")
    (tmp_path / name).write_bytes(
        {
            "list.mp4": b"ffconcat version 1.0\nfile good.mkv\n", "none.y4m": b"YUV4MPEG2 W48 H32 F16:1\n",
            "text.png": b"hello",
        }[name]
    )  # fmt: skip
    with pytest.raises(UsageError, match="cannot be read as a picture or clip"):
        starts.latent_frames(tmp_path / name, facts("self_forcing"))
