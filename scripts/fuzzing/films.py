"""Fuzzed videos: whole files of many kinds, and files whose header, clock or ending tells something else."""

from __future__ import annotations

import random
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ff_bench.probe import Broken, examine
from fuzzing import odd
from fuzzing.judge import Target, Wrong

KINDS = (
    (".mkv", "ffv1", ("bgr0", "bgra", "gray", "gray16le", "yuv420p10le", "yuva420p", "yuv444p16le")),
    (".mp4", "libx264", ("yuv420p", "yuv444p", "yuv420p10le")),
    (".avi", "mjpeg", ("yuvj420p",)), (".gif", "gif", ("rgb8", "pal8", "gray")),
    (".mov", "png", ("rgba", "gray", "rgb48be")), (".nut", "rawvideo", ("yuv420p", "rgb24")),
)  # fmt: skip
"""Endings, codecs and pixel formats."""
MARKS = (
    b"avc1",
    b"stts",
    b"mdhd",
    b"strf",
    b"strh",
    b"avih",
    b"tkhd",
    b"\x44\x89",
    b"\xb0",
    b"\xba",
    b"GIF89a",
)
"""What stands before numbers of a header: sizes, clocks, lengths."""
RAW = ("W48 H32 F16:1", "W48 H32 F0:0", "W48 H32", "W65535 H65535 F16:1", "W-4 H4 F16:1", "W48 H32 F1:9", "")
LISTS = (
    "ffconcat version 1.0\nfile one.mkv\n", "#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n",
    "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n", "v=0\nm=video 5004 RTP/AVP 96\n",
)  # fmt: skip


def film(draw: random.Random, folder: Path) -> None:
    """Decode a video that is whole; its frames must be counted right, or why not be said."""
    ending, codec, formats = draw.choice(KINDS)
    frames, fps = draw.choice((0, 1, 2, 5)), draw.choice((1, 16, 25, 240, Fraction(24000, 1001)))
    sides = draw.choice(((16, 24), (17, 23), (1, 1), (1, 40), (2, 2)))
    path = folder / f"one{ending}"
    try:
        _write(path, codec, draw.choice(formats), sides=sides, frames=frames, fps=Fraction(fps))
    except (av.FFmpegError, ValueError):  # the codec does not take these sides or pixels
        return
    if draw.random() < 0.3:
        path = path.rename(folder / f"other{draw.choice(('.mp4', '.mkv', '.gif', '.txt'))}")
    found = examine(path)
    if found.frames != frames or (found.height, found.width) != sides:
        raise Wrong(f"{found} of {frames} frames of {sides}")


def lie(draw: random.Random, folder: Path) -> None:
    """Decode a file whose header lies, which is raw, or which is a list of other files."""
    kind, path = draw.randrange(4), folder / "lie.mkv"
    if kind == 0:
        frame = b"FRAME\n" + b"\x80" * (48 * 32 * 3 // 2)
        words = draw.choice(RAW) if draw.random() < 0.6 else odd.text(draw)
        path.write_bytes(b"YUV4MPEG2 " + words.encode(errors="replace") + b"\n" + frame * 3)
    elif kind == 1:
        path.write_text(draw.choice(LISTS), encoding="utf-8")
        _write(folder / "one.mkv", "ffv1", "bgr0", sides=(16, 24), frames=2, fps=Fraction(16))
    else:
        ending, codec, formats = draw.choice(KINDS)
        path = folder / f"lie{ending}"
        _write(path, codec, formats[0], sides=(16, 24), frames=3, fps=Fraction(16))
        path.write_bytes(_lying(draw, path.read_bytes()))
    found = examine(path)
    if kind == 1:
        raise Wrong(f"a list of other files was read as a video: {found}")
    if found.height * found.width > 1 << 26 or not 1 <= found.fps <= 1000:
        raise Wrong(f"{found} was taken")


def _write(
    path: Path, codec: str, pixels: str, *, sides: tuple[int, int], frames: int, fps: Fraction
) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        assert isinstance(stream, av.VideoStream), codec
        stream.height, stream.width, stream.pix_fmt = *sides, pixels
        container.start_encoding()
        for number in range(frames):
            image = np.full((*sides, 3), 20 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _lying(draw: random.Random, content: bytes) -> bytes:
    """Overwrite a few bytes behind a mark of the header."""
    marks = [mark for mark in MARKS if mark in content]
    if not marks or draw.random() < 0.2:
        return odd.damaged(draw, content)
    place = content.index(draw.choice(marks)) + 4 + draw.randrange(40)
    number = draw.choice((0, 1, -1, 65535, 2**31 - 1, -(2**31)))
    lied = struct.pack(draw.choice("<>") + "i", number)
    return content[:place] + lied + content[place + len(lied) :]


TARGETS = (Target("whole films", film, 0.6, (Broken,)), Target("films that lie", lie, 0.8, (Broken,)))
