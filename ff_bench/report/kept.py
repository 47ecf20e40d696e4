"""The strip of what the cache of one video kept: time to the right, age upwards, colour the share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from matplotlib import colormaps
from matplotlib.image import imsave

from ff_bench.models.facts import find
from ff_bench.report import web
from ff_bench.report.agemap import kept_shares
from ff_bench.report.videos import Shown

COLUMNS = 320
"""Most columns of the picture; a shorter video has one per frame."""
_UNSEEN = (240, 240, 239)  # what was not made yet: the colour of an empty strip
_MAP = colormaps["viridis"]


@dataclass(frozen=True)
class Strip:
    """What the cache held while each frame was made.

    Attributes:
        source: The picture as a data address.
        told: Start in seconds, share of the past that was held, and age in seconds of the oldest that was;
            one per chunk.
        share: Per cent of the video, at its start, in which no budget ruled.
    """

    source: str
    told: Sequence[tuple[float, float, float]]
    share: float


def strip(video: Shown) -> Strip | None:
    """Draw the strip of a video from its trace; None where that has no shares."""
    trace = video.trace()
    shares = kept_shares(trace)
    facts = find(video.model)
    if shares is None or facts is None or len(shares) < 2:
        return None
    starts = np.array([facts.decoded_frames(int(chunk["frame"])) for chunk in trace])
    frames = video.manifest.frames
    ages = by_age(shares)
    inside = starts < frames
    picture = _paint(ages[inside], starts[inside], frames)
    fps = video.manifest.fps
    told = [
        (round(float(start) / fps, 3), round(float(held), 4), round(float(start - starts[oldest]) / fps, 3))
        for start, held, oldest in zip(starts[inside], *_summary(ages[inside]), strict=True)
    ]
    return Strip(_png(picture), told, round(min(100, 100 * video.prefix_frames / frames), 2))


def by_age(shares: np.ndarray) -> np.ndarray:
    """Turn shares by source chunk into shares by age.

    Args:
        shares: Share held after each chunk (row) of each source chunk (column), (chunks, chunks); what is
            held after a chunk is what the next one attends to.

    Returns:
        Share held while each chunk (row) was made of what was made `column + 1` chunks before,
        (chunks, chunks - 1); NaN where that lies before the video.
    """
    count = len(shares)
    ages = np.full((count, count - 1), np.nan, dtype=shares.dtype)
    for chunk in range(1, count):
        ages[chunk, :chunk] = shares[chunk - 1, :chunk][::-1]
    return ages


def _summary(ages: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of the past that was held, and the number of the oldest chunk of which some was."""
    chunks = np.arange(len(ages))
    held = np.nansum(ages, 1) / np.maximum(1, chunks)
    is_held = np.nan_to_num(ages) > 0
    oldest = np.where(is_held.any(1), ages.shape[1] - np.argmax(is_held[:, ::-1], 1), 0)  # chunks back
    return held, chunks - oldest


def _paint(ages: np.ndarray, starts: np.ndarray, frames: int) -> np.ndarray:
    """Colour shares: (ages, columns, 3) uint8, the youngest at the bottom, columns evenly over the video."""
    columns = np.linspace(0, frames, min(frames, COLUMNS), endpoint=False)
    chunk = np.searchsorted(starts, columns, side="right") - 1
    values = ages[chunk, : max(1, len(starts) - 1)].T[::-1]
    colours: np.ndarray = (_MAP(np.nan_to_num(values))[..., :3] * 255).round().astype(np.uint8)
    colours[np.isnan(values)] = _UNSEEN
    return colours


def _png(picture: np.ndarray) -> str:
    stream = BytesIO()
    imsave(stream, picture, format="png")
    return web.data(stream.getvalue(), "image/png")
