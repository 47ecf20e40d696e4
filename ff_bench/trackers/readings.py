"""What a tracker is told, in plain values: a job, a finished video, its scores, a report."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ff_bench import records, runs
from ff_bench.metrics.base import WHOLE

COLUMNS = (
    "video", "video_id", "prompt_id", "seed", "metric", "value", "unit", "status", "reason",
    "higher_is_better", "version",
)  # fmt: skip
"""Columns of a table of scores."""
NO_CURVE = ("chunk", "frame", "prefix", "kept", "videos")
"""Columns of the trace that are no curve: its axes, flags and lists."""
COMPARED = "summary.csv"
"""File of a report that holds its table."""


@dataclass(frozen=True)
class Planned:
    """A video of a job, whether it is there yet or not.

    Attributes:
        folder: Its folder.
        video_id: What must be in it.
        name: Prompt and seed, such as `orbit-900-s0`.
        place: Its number within the job, from 0.
        caption: Its policy and prompt.
    """

    folder: Path
    video_id: str
    name: str
    place: int
    caption: str


@dataclass(frozen=True)
class Job:
    """One configuration of a run, or a report.

    Attributes:
        id: Ten hexadecimal digits; the same command gives the same.
        name: For people, such as `h2o-1k-equal`.
        group: What the jobs of one sweep have in common.
        kind: "policy" or "report".
        root: Directory of runs.
        tags: Words to find it by.
        config: The resolved configuration.
        videos: Every video of it.
    """

    id: str
    name: str
    group: str
    kind: str
    root: Path
    tags: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    videos: tuple[Planned, ...] = ()

    @property
    def folder(self) -> str:
        """Name of a folder for it."""
        return f"{self.name}-{self.id}"


@dataclass(frozen=True)
class Video:
    """A finished video.

    Attributes:
        name: As planned.
        place: As planned.
        caption: As planned.
        file: The file to look at, None where none was saved.
        chunks: Numbers per chunk by name, with `chunk` from 0: seconds, bytes, tokens.
    """

    name: str
    place: int
    caption: str
    file: Path | None
    chunks: tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class Scored:
    """The scores of a video.

    Attributes:
        name: As planned.
        place: As planned.
        windows: Numbers per window by metric, with `window`, the second that it begins at.
        rows: Rows over the whole video, with the columns of `COLUMNS`.
    """

    name: str
    place: int
    windows: tuple[Mapping[str, float], ...]
    rows: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Comparison:
    """A report.

    Attributes:
        page: The page.
        columns: Of its table.
        rows: Of its table, one value per column; None where there is none.
        figures: Its pictures.
    """

    page: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[float | str | None, ...], ...]
    figures: tuple[Path, ...]


def slashed(metric: str) -> str:
    """Name a metric with slashes, which dashboards group by."""
    return metric.replace(".", "/")


def video_of(planned: Planned) -> Video:
    """Read a finished video."""
    file = planned.folder / runs.VIDEO
    chunks = tuple(_numbers(chunk) for chunk in records.read(planned.folder / runs.TRACE))
    return Video(planned.name, planned.place, planned.caption, file if file.is_file() else None, chunks)


def _numbers(chunk: Mapping[str, Any]) -> Mapping[str, float]:
    kept = {name: value for name, value in chunk.items() if name not in NO_CURVE}
    return {"chunk": chunk["chunk"], **{name: value for name, value in kept.items() if _is_number(value)}}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def scored_of(planned: Planned, rows: Iterable[Mapping[str, Any]]) -> Scored:
    """Sort the rows of a video into curves and numbers of the whole; of a metric its newest version."""
    every = list(rows)
    newest: dict[str, int] = {}
    for row in every:
        newest[row["metric"]] = max(row["version"], newest.get(row["metric"], row["version"]))
    windows: dict[float, dict[str, float]] = {}
    whole: list[Mapping[str, Any]] = []
    for row in every:
        if row["version"] != newest[row["metric"]]:
            continue
        if row["clip"] == WHOLE:
            whole.append({column: row.get(column) for column in COLUMNS} | {"video": planned.name})
        elif row["status"] == "ok" and _is_number(row["value"]):
            windows.setdefault(float(row["t0"]), {})[row["metric"]] = row["value"]
    curves = tuple({"window": t0, **windows[t0]} for t0 in sorted(windows))
    return Scored(planned.name, planned.place, curves, tuple(whole))


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Average the metrics that reports show over videos.

    Returns:
        By metric; also how many videos have scores (`videos`) and how many rows failed (`failed`).
    """
    from ff_bench.report.summary import HEADLINE, PANELS

    shown = {*HEADLINE, *(name for panel in PANELS.values() for name in panel)}
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["metric"] in shown and row["status"] == "ok" and _is_number(row["value"]):
            values.setdefault(row["metric"], []).append(row["value"])
    found = {metric: sum(numbers) / len(numbers) for metric, numbers in sorted(values.items())}
    failed = sum(1 for row in rows if row["status"] == "failed")
    return {**found, "videos": len({row["video"] for row in rows}), "failed": failed}


def comparison_of(paths: Sequence[Path]) -> Comparison:
    """Read the files of a report, the page first."""
    table = next((path for path in paths if path.name == COMPARED), None)
    columns, rows = _read_table(table) if table is not None else ((), ())
    return Comparison(paths[0], columns, rows, tuple(path for path in paths if path.suffix == ".png"))


def _read_table(path: Path) -> tuple[tuple[str, ...], tuple[tuple[float | str | None, ...], ...]]:
    """Read a CSV; a column is numbers where every filled cell is one, else texts."""
    with path.open(encoding="utf-8", newline="") as stream:
        head, *body = list(csv.reader(stream)) or [[]]
    columns = [_column([line[place] for line in body]) for place in range(len(head))]
    return tuple(head), tuple(zip(*columns, strict=True))


def _column(texts: Sequence[str]) -> list[float | None] | list[str | None]:
    try:
        return [float(text) if text else None for text in texts]
    except ValueError:
        return [text or None for text in texts]
