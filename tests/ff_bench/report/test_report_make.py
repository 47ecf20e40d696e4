"""The whole report over scored runs: files, figures, sheet, page."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ff_bench import records, runs
from ff_bench.errors import UsageError
from ff_bench.report import Report, make, read_rows
from ff_bench.report.agemap import age_map, kept_shares
from ff_bench.report.page import write_page
from ff_bench.report.plots import cost_bars, over_time
from ff_bench.report.sheet import contact_sheet, sheet_times
from ff_bench.report.style import colour, marker, paper_style, save
from ff_bench.report.summary import summarise
from ff_bench.report.videos import collect


class Page(HTMLParser):
    """Counts tags and checks that they close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in ("meta", "img", "input", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="session")
def report(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return make([run_folder], tmp_path_factory.mktemp("report"), ansi=False)


def test_report_writes_what_it_names(report: Report) -> None:
    names = {path.name for path in report.paths}
    assert {"index.html", "summary.md", "summary.csv", "summary.tex", "rows.parquet", "rows.csv"} <= names
    assert all(path.is_file() and path.stat().st_size for path in report.paths)
    for word in ("revisit", "sliding_window†", "cost", "age", "sheet"):
        assert any(word.strip("†") in name for name in names) or word in str(report)
    assert {path.suffix for path in report.paths if path.parent.name == "plots"} == {".png", ".pdf"}


def test_rows_survive_in_both_formats(report: Report, run_folder: Path) -> None:
    out = report.paths[0].parent
    parquet, csv = pd.read_parquet(out / "rows.parquet"), pd.read_csv(out / "rows.csv")
    expected = read_rows([run_folder])
    assert len(parquet) == len(csv) == len(expected)
    np.testing.assert_array_equal(parquet["value"].to_numpy(float), expected["value"].to_numpy(float))


def test_the_table_ranks_the_made_up_policies(report: Report) -> None:
    table = pd.read_csv(report.paths[0].parent / "summary.csv")
    memory = table[table["metric"] == "world.memory"].set_index("policy")["mean"]
    assert memory["full"] == pytest.approx(1)
    assert memory["h2o"] > 0.9
    assert memory["sliding_window"] < 0.5


def test_equal_rows_give_equal_files(report: Report, run_folder: Path, tmp_path: Path) -> None:
    again = make([run_folder], tmp_path, ansi=False)
    for first, second in zip(report.paths, again.paths, strict=True):
        if first.name not in ("index.html", "rows.parquet"):  # the page holds paths relative to itself
            assert first.read_bytes() == second.read_bytes(), first.name


def test_page_is_whole_and_self_contained(report: Report) -> None:
    text = report.paths[0].read_text()
    page = Page()
    page.feed(text)
    assert not page.open
    assert page.count["video"] == 6
    assert page.count["img"] >= 5
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text


def test_page_escapes_what_people_write(run_folder: Path, tmp_path: Path) -> None:
    rows = read_rows([run_folder])
    evil = '<script>alert("x")</script>'
    rows["prompt_id"] = rows["prompt_id"].astype(str) + evil
    rows["policy"] = rows["policy"].replace("h2o", f"h2o{evil}")
    rows["prompt_set"] = evil
    found = summarise(rows)
    text = write_page(tmp_path, found, {}, shown=collect(runs.find([run_folder]))).read_text()
    assert evil not in text
    assert "&lt;script&gt;" in text


def test_figures_are_equal_byte_for_byte_and_drawn_from_rows_alone(run_folder: Path, tmp_path: Path) -> None:
    table = next(table for table in summarise(read_rows([run_folder])) if table.is_main)
    with paper_style():
        for name in ("a", "b"):
            figure = over_time(table, "world.revisit_psnr")
            assert figure is not None
            save(figure, tmp_path / name)
        assert cost_bars(table) is not None
        assert over_time(table, "world.truth_psnr") is None
    for ending in (".png", ".pdf"):
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_age_map_reads_the_traces(run_folder: Path) -> None:
    table = next(table for table in summarise(read_rows([run_folder])) if table.is_main)
    shown = collect(runs.find([run_folder]))
    with paper_style():
        assert age_map(table, shown) is not None
        assert age_map(table, {}) is None
    shares = kept_shares([{"kept": [1.0]}, {"kept": [0.5, 1.0]}])
    assert shares is not None
    np.testing.assert_array_equal(shares, [[1, np.nan], [0.5, 1]])
    held = kept_shares([{"kept": {"0": 1.0}}, {"kept": {"0": 0.5, "1": 1.0}}, {"kept": {"2": 1.0}}])
    assert held is not None
    np.testing.assert_array_equal(held, [[1, np.nan, np.nan], [0.5, 1, np.nan], [0, 0, 1]])
    assert kept_shares([{"kept": None}]) is None


def test_sheet_shows_one_place_at_every_return(run_folder: Path) -> None:
    video = next(iter(collect(runs.find([run_folder])).values()))
    times, same = sheet_times(video, 208)
    assert same
    assert np.all(np.diff(times) % 96 == 0)  # the lap of speed 4
    assert len(times) >= 2


def test_failed_videos_are_in_the_report(run_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(run_folder, root)
    row = {**read_rows([run_folder]).iloc[0].dropna().to_dict(), "policy": "random", "budget_tokens": 1024}
    row |= {"metric": "error", "status": "failed", "reason": "out of memory", "value": None, "clip": -1}
    row = {name: value.item() if hasattr(value, "item") else value for name, value in row.items()}
    records.append(root / "mini" / "random-equal" / "x" / runs.ROWS, [row])
    text = str(make([root], tmp_path / "out", ansi=False))
    assert "random: 1 videos failed (out of memory)" in text


def test_nothing_to_report_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no rows below"):
        make([tmp_path], tmp_path / "out")
    with pytest.raises(UsageError, match="no such folder"):
        make([tmp_path / "absent"], tmp_path / "out")


def test_colours_are_fixed_and_unknown_policies_get_their_own() -> None:
    assert colour("h2o", ["a", "b", "h2o"]) == colour("h2o")
    assert colour("a", ["a", "b"]) != colour("b", ["a", "b"])
    assert marker("b", ["a", "b"]) != marker("a", ["a", "b"])


def test_a_sheet_leaves_out_a_video_that_cannot_be_read_any_more(run_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(run_folder, folder)
    for path in folder.rglob(runs.RECORD):
        if "h2o" in str(path):
            path.write_bytes(bytes(path.stat().st_size))
    shown = collect(runs.find([folder]))
    table = next(table for table in summarise(records.table(runs.find([folder]))) if table.is_main)
    sheet = contact_sheet(table, shown)
    assert sheet is not None
    assert "left out, as their files cannot be read any more: h2o" in sheet.get_suptitle()
    assert "h2o" not in [axes.get_ylabel() for axes in sheet.axes]
    for path in folder.rglob(runs.RECORD):
        path.write_bytes(bytes(path.stat().st_size))
    assert contact_sheet(table, shown) is None
