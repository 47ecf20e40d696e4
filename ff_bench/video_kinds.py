"""Kinds of files that are opened as videos: those with a clock of their own that name no other file."""

from __future__ import annotations

import re
from pathlib import Path

KINDS = (
    "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "avi", "gif", "apng", "mpeg", "mpegvideo", "mpegts", "asf",
    "flv", "live_flv", "ogg", "yuv4mpegpipe", "nut", "mxf", "ivf", "dv", "rm",
)  # fmt: skip
"""Names of containers. Playlists and lists are none: they lead to files that nobody has named. Bare streams
and pictures are none: their rate would be a guess that looks like a number."""
PICTURES = ("image2", "png_pipe", "jpeg_pipe", "webp_pipe")
LOCAL = {"protocol_whitelist": "file"}
"""For files of ours; also those must not make us fetch others."""
VIDEOS = {**LOCAL, "format_whitelist": ",".join(KINDS)}
STARTS = {**LOCAL, "format_whitelist": ",".join((*KINDS, *PICTURES))}
LARGEST_PIXELS = 1 << 26
"""Pixels of a frame, twice those of 8K: a header that promises more would take the memory of the machine."""
_RAW = b"YUV4MPEG2"
_HEADER = 4096


def header_fault(path: Path) -> str:
    """Say what is wrong with the header of a raw video (.y4m), whose gaps the reader fills with guesses.

    Args:
        path: of any file; others than raw videos have no fault here.
    """
    with path.open("rb") as stream:
        line = stream.read(_HEADER).split(b"\n")[0].decode(errors="replace")
    if not line.startswith(_RAW.decode()):
        return ""
    told = {word[0]: word[1:] for word in line.split(" ")[1:] if word}
    sides = [int(told.get(key, "")) if _is_whole(told.get(key, "")) else 0 for key in "WH"]
    if not 0 < sides[0] * sides[1] <= LARGEST_PIXELS:
        return f"its header tells {told.get('W', 'no')} x {told.get('H', 'no')} pixels"
    rate = told.get("F", "").partition(":")
    if not all(_is_whole(part) and int(part) for part in (rate[0], rate[2])):
        return "its frame rate is not known"
    return ""


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"\d{1,10}", text, re.ASCII) is not None
