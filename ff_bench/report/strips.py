"""Strips of frames: of every policy the prompt where it does worst, beside the one nearest to its mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import av
import numpy as np

from ff_bench.report import web
from ff_bench.report.choice import headline
from ff_bench.report.comparison import Column, Line, Table
from ff_bench.report.sheet import even_times, sheet_times
from ff_bench.report.statistics import Pair
from ff_bench.report.videos import Shown, of_line

HEIGHT = 96
"""px of a frame of a strip."""
QUALITY = 88
"""Of JPEG."""
_FEWEST = 4  # frames of a strip


@dataclass(frozen=True)
class Strip:
    """Some frames of one video side by side.

    Attributes:
        pair: Prompt and seed.
        value: Of the headline metric.
        source: The picture as a data address; empty where its file cannot be read.
        seconds: Times of its frames.
        width: px of the picture where its frames are `HEIGHT` high.
    """

    pair: Pair
    value: float
    source: str
    seconds: Sequence[float]
    width: int = 0


@dataclass(frozen=True)
class Row:
    """One policy under its budget.

    Attributes:
        line: The policy.
        mean: Of the headline metric.
        worst: Where it is worst.
        middle: Where it is nearest to the mean.
    """

    line: Line
    mean: float
    worst: Strip
    middle: Strip


def strips(table: Table, shown: Mapping[str, Shown]) -> tuple[Column | None, list[Row]]:
    """Draw the strips of a table; none of a policy whose videos all score the same, where nothing is worst.

    Args:
        table: The comparison.
        shown: Finished videos by id.

    Returns:
        The headline metric, and a row per policy and budget that has several videos here.
    """
    column = headline(table)
    if column is None:
        return None, []
    rows = []
    for line in table.lines:
        mean = line.cells[column.metric].mean
        videos = {pair: video for pair, video in of_line(table, line, shown).items() if video.has_frames}
        values = {pair: value for pair, value in line.values[column.metric].items() if pair in videos}
        if mean is None or len({f"{value:.{column.measure.digits}f}" for value in values.values()}) < 2:
            continue
        worst, middle = extremes(values, mean.mean, higher_is_better=bool(column.measure.higher_is_better))
        first, second = (_strip(videos[pair], pair, values[pair]) for pair in (worst, middle))
        rows.append(Row(line, mean.mean, first, second))
    return column, rows


def extremes(values: Mapping[Pair, float], mean: float, *, higher_is_better: bool) -> tuple[Pair, Pair]:
    """Return the pair with the worst value, and the one among the others that is nearest to the mean.

    Args:
        values: Two pairs or more.
        mean: Of the policy.
        higher_is_better: Whether the lowest value is the worst.
    """
    order = sorted(values, key=lambda pair: (values[pair] if higher_is_better else -values[pair], pair))
    return order[0], min(order[1:], key=lambda pair: (abs(values[pair] - mean), pair))


def _strip(video: Shown, pair: Pair, value: float) -> Strip:
    times, _ = sheet_times(video, video.manifest.frames)
    if len(times) < _FEWEST:  # a place that returned once or twice tells little of the rest
        times = even_times(video.manifest.frames)
    try:
        frames = video.thumbnails(times, HEIGHT)
    except (OSError, ValueError, av.FFmpegError):  # a file that broke since it was scored
        return Strip(pair, value, "", ())
    seconds = [round(float(time) / video.manifest.fps, 1) for time in times[: len(frames)]]
    width = round(HEIGHT * len(frames) * frames.shape[2] / frames.shape[1])
    return Strip(pair, value, _jpeg(frames), seconds, width)


def _jpeg(frames: np.ndarray) -> str:
    """Lay frames side by side with a white seam; colours at full resolution, for small sprites."""
    from PIL import Image

    seam = np.full((len(frames), frames.shape[1], 2, 3), 255, np.uint8)
    wide = np.concatenate([*np.concatenate([frames, seam], axis=2)], axis=1)[:, :-2]
    stream = BytesIO()
    Image.fromarray(np.ascontiguousarray(wide)).save(stream, "JPEG", quality=QUALITY, subsampling=0)
    return web.data(stream.getvalue(), "image/jpeg")
