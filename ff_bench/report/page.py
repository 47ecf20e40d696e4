"""The page: tables that sort, figures, strips, videos in step; one HTML file that opens from disk."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from ff_bench.files import write_atomically
from ff_bench.report import web
from ff_bench.report.cards import Room, player
from ff_bench.report.comparison import Cell, Table, name_text
from ff_bench.report.strips import Row, Strip, strips
from ff_bench.report.style import colour
from ff_bench.report.tables import cell_text, count_text, heading, is_grey, ranks_note
from ff_bench.report.videos import Shown

_LAST = 10**12  # sorts behind every budget
_PNG_WIDTH = slice(16, 20)  # bytes of a PNG file
_DOTS, _SHOWN = 300, 127  # px per inch of a figure's file, and of the page


def write_page(
    out: Path,
    tables: Sequence[Table],
    figures: Mapping[int, Sequence[Path]],
    *,
    shown: Mapping[str, Shown],
    front: str = "",
) -> Path:
    """Write index.html.

    Args:
        out: Folder of the report.
        tables: The comparisons.
        figures: PNG files of each table, by its place in `tables`.
        shown: Finished videos by id.
        front: What stands before the tables, as HTML that is escaped already.
    """
    room = Room()
    sections = []
    for place, table in enumerate(tables):
        seen = player(table, shown, out, room=room) if table.is_main else {"groups": [], "places": {}}
        sections.append(
            {
                "table": _table(table),
                "figures": [_figure(path, out) for path in figures.get(place, ())],
                "player": seen,
                "strips": _strips(table, shown, seen["places"]) if table.is_main else {},
            }
        )
    path = out / "index.html"
    values = {"sections": sections, "front": Markup(front)}
    write_atomically(path, web.render("page", values, scripts=("sync.js", "page.js")))
    return path


def _table(table: Table) -> dict[str, object]:
    rows = []
    for line in table.lines:
        cells: list[dict[str, object]] = [
            {"text": name_text(line), "sort": line.label, "look": "", "title": line.fields}
        ]
        cells.append({"text": line.budget, "sort": line.budget_tokens or _LAST, "look": "", "title": ""})
        cells.append({"text": count_text(line), "sort": line.pairs, "look": "", "title": ""})
        for column in table.columns:
            cell = line.cells[column.metric]
            mean = "" if cell.mean is None else cell.mean.mean
            cells.append(
                {"text": cell_text(cell, column), "sort": mean, "look": _look(cell), "title": _why(cell)}
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
        "notes": [*table.notes, *ranks_note(table, best="bold", second="underlined")],
    }


def _look(cell: Cell) -> str:
    """Return the classes of a cell."""
    rank = "best" if cell.is_best else "second" if cell.is_second else ""
    return f"{rank} grey".strip() if is_grey(cell) else rank


def _why(cell: Cell) -> str:
    """Say why there is no number, or what its difference to the baseline says."""
    found = cell.contrast
    if found is None or not found.verdict:
        return cell.reason
    p = "" if math.isnan(found.p_holm) else f", p = {found.p_holm:.2g} after Holm"
    return f"{found.verdict}: {found.difference:+.3g} to the baseline{p}"


def _figure(path: Path, out: Path) -> dict[str, object]:
    vector = path.with_suffix(".pdf")
    content = path.read_bytes()
    return {
        "name": path.stem,
        "width": round(struct.unpack(">I", content[_PNG_WIDTH])[0] * _SHOWN / _DOTS),
        "source": web.data(content, "image/png"),
        "vector": web.link(vector, out) if vector.exists() else "",
    }


def _strips(table: Table, shown: Mapping[str, Shown], places: object) -> dict[str, object]:
    """Return the rows of worst-prompt strips, with the place of each prompt in the player."""
    assert isinstance(places, Mapping), type(places)
    column, rows = strips(table, shown)
    if column is None or not rows:
        return {}
    digits = column.measure.digits

    def told(row: Row, strip: Strip) -> dict[str, object]:
        at = [place for (told, pair), place in places.items() if pair == strip.pair]
        own = places.get((row.line.budget, strip.pair), at[0] if at else "")
        return {
            "name": f"{strip.pair[0]}, seed {strip.pair[1]}",
            "value": f"{strip.value:.{digits}f}",
            "source": strip.source,
            "width": strip.width,
            "seconds": f"{strip.seconds[0]:.1f} to {strip.seconds[-1]:.1f}" if strip.seconds else "",
            "place": own,
        }

    return {
        "headline": heading(column),
        "rows": [
            {
                "name": name_text(row.line),
                "budget": row.line.budget,
                "colour": colour(row.line.policy, [line.policy for line in table.lines]),
                "mean": f"{row.mean:.{digits}f}",
                "worst": told(row, row.worst),
                "middle": told(row, row.middle),
            }
            for row in rows
        ],
    }
