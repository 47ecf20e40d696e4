"""The report: rows of any number of runs become tables, plots, a contact sheet and one page."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ff_bench import files, records, runs
from ff_bench.errors import UsageError, not_one_of
from ff_bench.report import winrates
from ff_bench.report.agemap import age_map
from ff_bench.report.blind import write_blind
from ff_bench.report.columns import columns_of
from ff_bench.report.comparison import Table
from ff_bench.report.frame import to_frame
from ff_bench.report.latex import to_latex
from ff_bench.report.notes import seconds_of
from ff_bench.report.page import write_page
from ff_bench.report.plots import figures
from ff_bench.report.reading import read_rows
from ff_bench.report.sheet import contact_sheet
from ff_bench.report.style import paper_style, save
from ff_bench.report.summary import HEADLINE, summarise
from ff_bench.report.tables import to_markdown, to_terminal
from ff_bench.report.videos import Shown, collect

__all__ = ["Report", "make"]


@dataclass(frozen=True)
class Report:
    """What a report wrote.

    Attributes:
        paths: Every file, the page first.
        summary: The tables as text for a terminal.
    """

    paths: tuple[Path, ...]
    summary: str

    def __str__(self) -> str:
        """Return the tables."""
        return self.summary


def make(
    paths: Iterable[str | os.PathLike[str]],
    out_dir: str | os.PathLike[str],
    *,
    baseline: str = "full",
    columns: Sequence[str] = (),
    margins: Mapping[str, float] | None = None,
    blind: int = 0,
    votes: Sequence[Path] = (),
    ansi: bool | None = None,
    front: str = "",
) -> Report:
    """Write one report over all videos below some folders.

    Args:
        paths: Folders of runs, at any depth, and tables of rows (.parquet, .csv).
        out_dir: Where to write; made when missing.
        baseline: Policy that differences are taken to.
        columns: Metrics, or patterns of them, that become columns of one table; none means the usual ones.
        margins: Smallest differences worth a claim, by metric, pattern or unit; see `report.margins`.
        blind: Pairs of the blind page at most; 0 makes none.
        votes: Files that a blind page exported.
        ansi: Whether the summary may use bold; None asks the terminal.
        front: What stands before the tables of the page, as HTML that is escaped already.

    Raises:
        UsageError: When a path does not exist, no video below the paths has rows or the baseline or a
            column, there is nothing to compare blind, or votes are not what the page wrote.
    """
    places = [Path(path) for path in paths]
    folders = runs.find(places)
    rows = read_rows(places)
    if rows.empty:
        raise UsageError(
            f"report: no rows below {', '.join(map(str, places))}; run the stages generate and score first"
        )
    out = Path(out_dir)
    if baseline != "full" and baseline not in set(rows["policy"]):
        raise not_one_of("baseline", baseline, rows["policy"].unique())
    headline = columns_of(rows, columns) if columns else HEADLINE
    found = summarise(rows, baseline=baseline, headline=headline, margins=margins)
    found += winrates.tables(found, votes, [out, *places]) if votes else []
    shown = collect(folders)
    hidden = write_blind(out, found, shown=shown, most=blind) if blind else []
    out.mkdir(parents=True, exist_ok=True)
    drawn = {
        place: _draw(table, shown, out, name=_slug(table, place))
        for place, table in enumerate(found)
        if table.is_main
    }
    images = {place: [path for path in paths if path.suffix == ".png"] for place, paths in drawn.items()}
    page = write_page(out, found, images, shown=shown, front=front)
    written = [
        page,
        *_write_tables(found, out),
        *records.write_tables(rows, out),
        *chain(*drawn.values()),
        *hidden,
    ]
    for folder in (out, out / "plots"):  # what processes that were killed have left half-written
        files.sweep_up(folder, deep=False)
    styled = _can_bold() if ansi is None else ansi
    summary = "\n\n".join(to_terminal(table, ansi=styled) for table in found)
    return Report(tuple(written), summary)


def _draw(table: Table, shown: Mapping[str, Shown], out: Path, *, name: str) -> list[Path]:
    """Draw every figure of one table; the contact sheet stands beside the page, the rest under plots/."""
    with paper_style():
        written = []
        for figure_name, figure in figures(table).items():
            written += save(figure, out / "plots" / f"{name}-{figure_name}")
        ages, sheet = age_map(table, shown), contact_sheet(table, shown)
        written += save(ages, out / "plots" / f"{name}-age") if ages else []
        written += save(sheet, out / f"{name}-sheet") if sheet else []
    return written


def _slug(table: Table, place: int) -> str:
    """Name a table's files; tables that differ in a lesser field are told apart by number."""
    model, prompts = (str(table.key[name])[:60] for name in ("model", "prompt_set"))
    words = f"{model}-{prompts}-{seconds_of(table.key):g}s-{table.key['protocol']}"
    return re.sub(r"[^A-Za-z0-9.+=-]+", "_", words)[:160] + (f"-{place}" if place else "")


def _write_tables(found: Sequence[Table], out: Path) -> list[Path]:
    texts = {
        "summary.md": to_markdown(found),
        "summary.tex": to_latex(found),
        "summary.csv": to_frame(found).to_csv(index=False),
    }
    for name, text in texts.items():
        files.write_atomically(out / name, text)
    return [out / name for name in texts]


def _can_bold() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ
