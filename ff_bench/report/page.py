"""The page: tables that sort, figures and synchronised videos in one HTML file that opens from disk."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, StrictUndefined

from ff_bench import metrics
from ff_bench.files import write_atomically
from ff_bench.metrics.base import WHOLE
from ff_bench.report.comparison import Line, Table, name_text
from ff_bench.report.plots import budgets_of, lines_at, rows_of
from ff_bench.report.statistics import Pair
from ff_bench.report.style import colour
from ff_bench.report.tables import cell_text, count_text, heading
from ff_bench.report.videos import Shown, of_line

EMBED_BYTES = 2 * 2**20
"""A video up to this size may be embedded."""
EMBED_TOTAL = 12 * 2**20
"""All embedded videos of a page stay below this size; the rest is linked by relative path."""
CURVE = "world.revisit_psnr"
_CURVE_SIZE = (240, 36)


@dataclass
class _Room:
    """How many bytes of videos the page may still embed."""

    left: int = EMBED_TOTAL


def write_page(
    out: Path, tables: Sequence[Table], figures: Mapping[int, Sequence[Path]], *, shown: Mapping[str, Shown]
) -> Path:
    """Write index.html.

    Args:
        out: Folder of the report.
        tables: The comparisons.
        figures: PNG files of each table, by its place in `tables`.
        shown: Finished videos by id.
    """
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = files("ff_bench.report").joinpath("page.html").read_text(encoding="utf-8")
    room = _Room()
    sections = [
        {
            "table": _table(table),
            "figures": [_figure(path, out) for path in figures.get(place, ())],
            "groups": _groups(table, shown, out, room=room) if table.is_main else [],
        }
        for place, table in enumerate(tables)
    ]
    path = out / "index.html"
    write_atomically(path, template.from_string(source).render(sections=sections))
    return path


def _table(table: Table) -> dict[str, object]:
    rows = []
    for line in table.lines:
        cells = [{"text": name_text(line), "sort": line.label, "best": False, "title": line.fields}]
        cells.append({"text": line.budget, "sort": line.budget_tokens or 10**12, "best": False, "title": ""})
        cells.append({"text": count_text(line), "sort": line.pairs, "best": False, "title": ""})
        for column in table.columns:
            cell = line.cells[column.metric]
            mean = "" if cell.mean is None else cell.mean.mean
            cells.append(
                {"text": cell_text(cell, column), "sort": mean, "best": cell.is_best, "title": cell.reason}
            )
        rows.append({"cells": cells, "colour": colour(line.policy, [other.policy for other in table.lines])})
    head = [{"text": text, "title": ""} for text in ("policy", "budget", "n")]
    head += [
        {"text": heading(column), "title": f"{column.metric}: {column.measure.doc}"}
        for column in table.columns
    ]
    return {
        "title": table.title,
        "head": head,
        "rows": rows,
        "notes": [*table.notes, "bold: best of its budget"],
    }


def _figure(path: Path, out: Path) -> dict[str, str]:
    return {
        "name": path.stem,
        "source": _data(path, "image/png"),
        "vector": _link(path.with_suffix(".pdf"), out) if path.with_suffix(".pdf").exists() else "",
    }


def _groups(table: Table, shown: Mapping[str, Shown], out: Path, *, room: _Room) -> list[dict[str, object]]:
    """Collect the videos to be seen side by side: one group per budget, prompt and seed."""
    groups: list[dict[str, object]] = []
    for budget in budgets_of(table) or [None]:
        lines = lines_at(table, budget)
        found = [(line, of_line(table, line, shown)) for line in lines]
        for pair in sorted({pair for _, videos in found for pair in videos}):
            chosen = [(line, videos[pair]) for line, videos in found if pair in videos]
            chosen = [(line, video) for line, video in chosen if video.is_foreign or video.viewing]
            if chosen:
                name = f"{pair[0]}, seed {pair[1]}" + (f", budget {lines[-1].budget}" if budget else "")
                videos = [_video(table, line, video, pair=pair, out=out, room=room) for line, video in chosen]
                groups.append({"name": name, "prompt": chosen[0][1].prompt, "videos": videos})
    return groups


def _video(
    table: Table, line: Line, video: Shown, *, pair: Pair, out: Path, room: _Room
) -> dict[str, object]:
    path = video.viewing
    size = path.stat().st_size if path is not None else 0
    embedded = path is not None and not video.is_foreign and size <= min(EMBED_BYTES, room.left)
    room.left -= size if embedded else 0
    scores = [
        (heading(column), f"{line.values[column.metric][pair]:.{column.measure.digits}f}")
        for column in table.columns
        if pair in line.values[column.metric] and not column.metric.startswith("cost.")
    ]
    return {
        "name": name_text(line),
        "colour": colour(line.policy, [other.policy for other in table.lines]),
        "source": "" if path is None else _data(path, "video/mp4") if embedded else _link(path, out),
        "file": Path(video.manifest.source["path"]).name if video.is_foreign else "",
        "obstacle": video.obstacle,
        "scores": scores,
        **_curve(table, line, pair),
    }


def _curve(table: Table, line: Line, pair: Pair) -> dict[str, object]:
    """Return the points of the score over time for a small SVG, and what it shows."""
    rows = rows_of(table.rows, line)
    chosen = (
        (rows["prompt_id"].astype(str) == pair[0]) & (rows["seed"] == pair[1]) & (rows["metric"] == CURVE)
    )
    rows = rows[chosen & (rows["clip"] != WHOLE) & (rows["status"] == "ok")].sort_values("clip")
    measure = metrics.measure(CURVE)
    assert measure is not None, CURVE
    seconds = float(str(table.key["frames"])) / float(str(table.key["fps"]))
    width, height = _CURVE_SIZE
    times = (rows["t0"].to_numpy(float) + rows["t1"].to_numpy(float)) / 2 / seconds
    heights = 1 - np.clip((rows["value"].to_numpy(float) - 10) / 35, 0, 1)
    points = [f"{width * x:.1f},{height * y:.1f}" for x, y in zip(times, heights, strict=True)]
    return {"points": " ".join(points), "curve": f"{measure.label} over time, 10 to 45 {measure.unit}"}


def _data(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _link(path: Path, out: Path) -> str:
    return quote(Path(os.path.relpath(path, out)).as_posix())
