"""Small copies of videos, for places that many people look at and somebody pays for."""

from __future__ import annotations

from pathlib import Path

import av

from ff_bench import video_kinds

LINES = 240
"""Largest height of a copy, in pixels."""
QUALITY = "30"
"""Constant rate factor of x264: visibly compressed, a tenth of the bytes."""


def shrink(source: Path, target: Path) -> Path:
    """Copy a video at a small size, frame by frame.

    Args:
        source: The video.
        target: Where the copy goes, an .mp4.

    Returns:
        `target`.

    Raises:
        OSError: Where the source cannot be read.
    """
    with av.open(str(source), options=video_kinds.LOCAL) as given, av.open(str(target), "w") as made:
        pictures = given.streams.video[0]
        stream = made.add_stream(
            "libx264", rate=pictures.average_rate, options={"crf": QUALITY, "preset": "veryfast"}
        )
        scale = min(1.0, LINES / pictures.height)
        stream.width, stream.height = _even(pictures.width * scale), _even(pictures.height * scale)
        stream.pix_fmt = "yuv420p"
        for frame in given.decode(pictures):
            small = frame.reformat(stream.width, stream.height, format="yuv420p", interpolation="AREA")
            made.mux(stream.encode(small))
        made.mux(stream.encode(None))
    return target


def _even(pixels: float) -> int:
    """Round to what the format can halve."""
    return max(2, 2 * round(pixels / 2))
