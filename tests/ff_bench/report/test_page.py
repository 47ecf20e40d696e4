"""The page without a browser: curves, strips of caches, choice of prompts, worst prompts, escaping."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from ff_bench import runs
from ff_bench.report import read_rows
from ff_bench.report.blind import write_blind
from ff_bench.report.choice import Group, groups, headline, picks, standing
from ff_bench.report.comparison import Line, Table
from ff_bench.report.curves import HEIGHT, WIDTH, curves
from ff_bench.report.kept import by_age, strip
from ff_bench.report.page import write_page
from ff_bench.report.strips import HEIGHT as STRIP_HEIGHT
from ff_bench.report.strips import extremes, strips
from ff_bench.report.summary import summarise
from ff_bench.report.videos import Shown, collect

EVIL = "</script><script>window.pwned=1</script>\"'><img src=x onerror=window.pwned=1>{{7*7}}&amp;<!--"
REVISIT = "world.revisit_psnr"


class Reader(HTMLParser):
    """Collects tags with their attributes, and the text of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.is_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.is_script = tag == "script"
        if self.is_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.is_script = False

    def handle_data(self, data: str) -> None:
        if self.is_script:
            self.scripts[-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def reader(path: Path) -> Reader:
    found = Reader()
    found.feed(path.read_text())
    return found


@pytest.fixture(scope="module")
def table(run_folder: Path) -> Table:
    return next(table for table in summarise(read_rows([run_folder])) if table.is_main)


@pytest.fixture(scope="module")
def shown(run_folder: Path) -> dict[str, Shown]:
    return collect(runs.find([run_folder]))


@pytest.fixture(scope="module")
def page(table: Table, shown: dict[str, Shown], tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return reader(write_page(tmp_path_factory.mktemp("page"), [table], {}, shown=shown))


def test_curves_are_the_rows_on_one_scale(table: Table, shown: dict[str, Shown]) -> None:
    group = groups(table, shown)[0]
    lines = [line for line, _ in group.videos]
    drawn = curves(table, lines, group.pair)
    rows = table.rows
    mine = rows[(rows["metric"] == REVISIT) & (rows["clip"] >= 0) & (rows["prompt_id"] == group.pair[0])]
    for line, own in zip(lines, drawn, strict=True):
        values = mine[mine["policy"] == line.policy].sort_values("clip")["value"]
        np.testing.assert_allclose([value for _, _, value in own[0].steps], values, rtol=1e-5)
        assert (own[0].low, own[0].high) == pytest.approx(
            (mine["value"].min(), mine["value"].max()), rel=1e-5
        )
        assert [curve.label for curve in own] == [curve.label for curve in drawn[0]]  # tracks stand in line
    full = next(own for line, own in zip(lines, drawn, strict=True) if line.policy == "full")
    assert full[1].label.startswith("PSNR to full")
    assert not full[1].path  # no distance to itself


def test_a_curve_is_steps_within_the_drawing(table: Table, shown: dict[str, Shown]) -> None:
    group = groups(table, shown)[0]
    seconds = int(str(table.key["frames"])) / float(str(table.key["fps"]))
    for curve in curves(table, [line for line, _ in group.videos], group.pair)[1]:
        points = [tuple(map(float, point.split())) for point in re.split("[ML]", curve.path)[1:]]
        assert len(points) == 2 * len(curve.steps)
        for (start, end, value), first, second in zip(curve.steps, points[::2], points[1::2], strict=True):
            assert first == pytest.approx((WIDTH * start / seconds, second[1]), abs=0.06)
            assert second[0] == pytest.approx(WIDTH * end / seconds, abs=0.06)
            share = (value - curve.low) / (curve.high - curve.low)
            assert first[1] == pytest.approx(HEIGHT * (0.94 - 0.88 * share), abs=0.06)


def test_shares_by_age() -> None:
    held = np.array([[1, np.nan, np.nan], [0.5, 1, np.nan], [0.2, 0.4, 1]])
    expected = [[np.nan, np.nan], [1, np.nan], [1, 0.5]]  # made after: nothing, chunk 0, chunks 1 and 0
    np.testing.assert_array_equal(by_age(held), expected)


def test_the_strip_shows_a_window_as_a_band_and_all_as_a_wedge(shown: dict[str, Shown]) -> None:
    for video in shown.values():
        policy = video.manifest.identity["policy"]["name"]
        found = strip(video)
        assert found is not None
        picture = imread(BytesIO(base64.b64decode(found.source.partition(",")[2])))[..., :3]
        chunks = len(found.told)
        assert picture.shape[:2] == (chunks - 1, min(video.manifest.frames, 320))
        held, last = [share for _, share, _ in found.told], picture[:, -1]
        if policy == "full":
            assert held[1:] == [1] * (chunks - 1)
            assert len({*map(tuple, last)}) == 1
        if policy == "sliding_window":  # 1024 tokens of 192 each: the last five chunks
            assert held[-1] == pytest.approx(6 / (chunks - 1), abs=1e-3)
            assert found.told[-1][2] == pytest.approx(6 * 12 / 16)  # seconds back
            assert len({*map(tuple, last[-6:])}) == 1
            assert len({*map(tuple, last[:-6])}) == 1
            assert tuple(last[0]) != tuple(last[-1])
        assert found.told[0][1:] == (0, 0)
        assert 0 <= found.share <= 100


def test_a_video_without_shares_has_no_strip(shown: dict[str, Shown], tmp_path: Path) -> None:
    video = next(iter(shown.values()))
    assert strip(replace(video, folder=tmp_path)) is None


def made_up(table: Table, values: dict[str, list[float]]) -> list[Group]:
    """Return groups of prompts p0, p1, ... in which policies have the given values of the headline metric."""
    column = headline(table)
    assert column is not None
    lines: dict[str, Line] = {line.policy: line for line in table.lines}
    numbers = {
        policy: {column.metric: {(f"p{i}", 0): value for i, value in enumerate(own)}}
        for policy, own in values.items()
    }
    videos = [(replace(lines[policy], values=own), None) for policy, own in numbers.items()]
    count = len(next(iter(values.values())))
    return [Group(1024, "1k", (f"p{i}", 0), videos) for i in range(count)]  # type: ignore[arg-type]


def test_prompts_to_look_at_first(table: Table) -> None:
    column = headline(table)
    assert column is not None
    found = made_up(
        table,
        {
            "full": [9, 9, 9, 9, 9],
            "h2o": [0.5, 0.9, 0.1, 0.6, 0.4],
            "sliding_window": [0.5, 0.7, 0.2, 0.0, 0.4],
        },
    )
    assert picks(found, column) == {"1k": {"worst": 2, "median": 4, "best": 1, "widest": 3}}
    assert standing(found[3], column) == pytest.approx((0.3, 0.6))  # the full cache is no rival
    down = replace(column, measure=replace(column.measure, higher_is_better=False))
    assert (picks(found, down)["1k"]["worst"], picks(found, down)["1k"]["best"]) == (1, 2)
    assert picks(found, None) == {}


def test_worst_and_nearest_to_the_mean_are_two_prompts() -> None:
    values = {("a", 0): 0.1, ("b", 0): 0.2, ("c", 0): 0.9, ("d", 0): 0.45}
    assert extremes(values, 0.41, higher_is_better=True) == (("a", 0), ("d", 0))
    assert extremes(values, 0.41, higher_is_better=False) == (("c", 0), ("d", 0))
    assert extremes({("a", 0): 1, ("b", 0): 2}, 1.5, higher_is_better=True) == (("a", 0), ("b", 0))


def test_strips_of_worst_prompts(table: Table, shown: dict[str, Shown]) -> None:
    column, rows = strips(table, shown)
    assert column is not None
    assert {row.line.policy for row in rows} == {"h2o", "sliding_window"}  # the full cache is 1 by definition
    for row in rows:
        values = row.line.values[column.metric]
        assert row.worst.value == min(values.values())
        assert row.middle.pair != row.worst.pair
        from PIL import Image

        picture = Image.open(BytesIO(base64.b64decode(row.worst.source.partition(",")[2])))
        assert picture.height == STRIP_HEIGHT
        assert abs(picture.width - row.worst.width - 2 * (len(row.worst.seconds) - 1)) <= 2
    assert strips(table, {}) == (column, [])


def test_the_page_has_a_card_per_video_with_curves_and_strip(page: Reader, shown: dict[str, Shown]) -> None:
    outputs = page.all("output")
    assert len(page.all("video")) == len(shown)
    assert sum("data-held" in output for output in outputs) == len(shown)
    steps = [json.loads(output["data-steps"]) for output in outputs if "data-steps" in output]
    assert len(steps) >= 2 * len(shown)
    (player,) = (tag for tag in page.all("div") if tag.get("class") == "set")
    assert set(next(iter(json.loads(player["data-picks"]).values()))) == {"worst", "median", "best", "widest"}
    assert [tag["data-pick"] for tag in page.all("button") if "data-pick" in tag] == [
        "worst", "median", "best", "widest"
    ]  # fmt: skip
    watched = {tag["data-watch"] for tag in page.all("button") if "data-watch" in tag}
    assert watched <= {option["value"] for option in page.all("option")}


def test_only_our_script_may_run_and_nothing_is_asked_for(page: Reader) -> None:
    (script,) = page.scripts
    (policy,) = (tag["content"] for tag in page.all("meta") if "http-equiv" in tag)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'")
    for _, attributes in page.tags:
        for name in ("src", "href", "data-source"):
            assert re.match(r"data:|[^:]*$", attributes.get(name, "")), attributes[name][:60]
        assert not any(name.startswith("on") for name in attributes)


def hostile(run_folder: Path) -> tuple[list[Table], dict[str, Shown]]:
    """Return tables and videos whose every text by others is an attack."""
    rows = read_rows([run_folder])
    for name in ("prompt_set", "prompt_text", "reason"):
        rows[name] = EVIL
    rows["prompt_id"] = rows["prompt_id"].astype(str) + EVIL
    rows["policy"] = rows["policy"].replace("h2o", f"h2o{EVIL}")
    shown = {
        video_id: replace(
            video,
            manifest=replace(
                video.manifest,
                identity={**video.manifest.identity, "prompt": f"{video.manifest.identity['prompt']}{EVIL}"},
            ),
        )
        for video_id, video in collect(runs.find([run_folder])).items()
    }
    return summarise(rows), shown


def test_what_people_write_stays_text(run_folder: Path, page: Reader, tmp_path: Path) -> None:
    found, shown = hostile(run_folder)
    pages = [
        write_page(tmp_path, found, {}, shown=shown),
        write_blind(tmp_path, found, shown=shown, most=9)[0],
    ]
    for path in pages:
        text, read = path.read_text(), reader(path)
        assert "<script>window" not in text
        assert "<img src=x" not in text
        assert "49&amp;" not in text
        assert not any("onerror" in attributes for _, attributes in read.tags)
    assert reader(pages[0]).scripts == page.scripts
    held, script = reader(pages[1]).scripts
    assert all(trial["prompt"].endswith(EVIL) for trial in json.loads(held)["trials"])
    assert "pwned" not in script
