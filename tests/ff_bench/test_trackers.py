"""Trackers: what they are told, and how often."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ff_bench
from ff_bench import cli, records, runs, seals, video
from ff_bench.compose import compose
from ff_bench.metrics.base import WHOLE
from ff_bench.trackers import watch as watching
from ff_bench.trackers.preview import LINES, shrink
from ff_bench.trackers.readings import Comparison, Job, Planned, Scored, Video, means, scored_of
from ff_bench.trackers.story import Story
from tests.conftest import FakeGenerate
from tests.ff_bench.told import SHORT, WITH_REPORT, draw_nothing, plan, whole


def test_plain_files_hold_what_the_folders_hold(
    fake: FakeGenerate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_nothing(monkeypatch)
    words = ["-m", "policy=h2o,random", *WITH_REPORT, "tracker=csv"]
    assert cli.main(words) == 0
    place = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("tracker "))
    folder = next(Path(place.split()[1]).glob("h2o-256-equal-*"))
    config = json.loads((folder / "config.json").read_text())
    assert (config["policy"], config["budget_tokens"], config["identity"]["steps"]) == ("h2o", 256, 5)
    for video_id in config["video_ids"]:
        source = next(Path("runs/mini").rglob(f"*-{video_id}"))
        trace = records.read(source / runs.TRACE)
        name = source.name.rpartition("-")[0]
        with (folder / "chunks" / f"{name}.csv").open() as stream:
            lines = list(csv.DictReader(stream))
        assert [float(line["kv_bytes"]) for line in lines] == [chunk["kv_bytes"] for chunk in trace]
        assert [int(line["chunk"]) for line in lines] == list(range(len(trace)))
    with (folder / "scores.csv").open() as stream:
        scores = list(csv.DictReader(stream))
    expected = {(row["video_id"], row["metric"]) for row in whole("h2o")}
    assert {(line["video_id"], line["metric"]) for line in scores} == expected
    summary = json.loads((folder / "summary.json").read_text())
    fps = [row["value"] for row in whole("h2o") if row["metric"] == "cost.fps"]
    assert summary["cost.fps"] == pytest.approx(np.mean(fps))
    assert (summary["videos"], summary["failed"]) == (2, 0)
    comparison = next(folder.parent.glob("report-*")) / "comparison.csv"
    assert comparison.read_text() == "policy,fps\nh2o,1.5\nrandom,\n"


def test_the_runs_of_a_sweep_share_a_group_and_name_the_baseline(clean: Path, weights: None) -> None:
    words = ["policy=h2o,full", "budget=256,300", *SHORT[:2], "tracker=csv"]
    made = plan(words, multirun=True)
    named = {job.name: job for job in made.jobs}
    assert set(named) == {"h2o-256-equal", "h2o-300-equal", "full-equal-1"}  # `full` has no budget: one job
    assert {job.group for job in [*made.jobs, made.report]} == {"sweep-1"}
    full = named["full-equal-1"]
    assert {job.config["baseline"]["job"] for job in made.jobs} == {full.id}
    assert [job.config["baseline"]["is_baseline"] for job in made.jobs].count(True) == 1
    assert full.tags == ("baseline",)
    assert [job.id for job in plan(words, multirun=True).jobs] == [job.id for job in made.jobs]
    assert plan([*words, "tracker.group=paper"], multirun=True).report.group == "paper"


def test_a_tracker_is_no_part_of_what_a_video_is(clean: Path, weights: None) -> None:
    ids = [
        runs.videos(compose([*SHORT, *words]).config)[0].video_id
        for words in (["tracker=none"], ["tracker=csv"], ["tracker=wandb", "tracker.project=other"])
    ]
    assert len(set(ids)) == 1


def test_without_a_tracker_nothing_is_started(fake: FakeGenerate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_start", lambda _: pytest.fail("a tracker was started"))
    assert cli.main(["policy=h2o", *SHORT]) == 0
    assert cli.main(["policy=h2o", *SHORT, "tracker=wandb", "tracker.mode=disabled"]) == 0


class Recorder:
    """A tracker that remembers what it was told."""

    def __init__(self, folder: Path, *, resumes: bool) -> None:
        self.resumes, self.folder, self.heard = resumes, folder, list[str]()

    def note(self, job: Job) -> Path:
        return self.folder / "note.json"

    def begin(self, job: Job) -> None:
        self.heard.append("begin")

    def generated(self, job: Job, video: Video) -> None:
        self.heard.append(f"generated {video.name}")

    def scored(self, job: Job, scored: Scored, means: Mapping[str, float]) -> None:
        self.heard.append(f"scored {scored.name} of {means['videos']}")

    def reported(self, job: Job, comparison: Comparison) -> None:
        self.heard.append("reported")

    def end(self, job: Job, rows: Sequence[Mapping[str, Any]], *, is_whole: bool) -> bool:
        self.heard.append(f"end {is_whole}")
        return True

    def close(self) -> None: ...

    def places(self) -> tuple[str, ...]:
        return ()


@pytest.mark.parametrize("resumes", [True, False])
def test_a_thing_is_told_once_or_with_all_that_a_new_place_lacks(fake: FakeGenerate, resumes: bool) -> None:
    words = ["policy=h2o", *SHORT, "tracker=csv"]
    ff_bench.run(overrides=["policy=h2o", *SHORT[:4], "stages=[generate]"])
    job = plan(words).jobs[0]
    first, second = (planned.name for planned in job.videos)

    def tell(change: Callable[[], None] = lambda: None) -> list[str]:
        recorder = Recorder(Path(), resumes=resumes)
        story = Story(recorder, job)
        for _ in range(2):  # a pipeline says some things twice
            for planned in job.videos:
                story.generated(planned)
            for planned in job.videos:
                story.scored(planned)
            change()
        story.end(is_whole=True)
        return recorder.heard

    made = [f"generated {first}", f"generated {second}"]
    scored = [f"scored {first} of 1", f"scored {second} of 2"]
    assert tell() == ["begin", *made, "end True"]
    assert tell() == []
    assert cli.main(["policy=h2o", *SHORT]) == 0
    assert tell() == ["begin", *([] if resumes else made), *scored, "end True"]
    assert tell() == []

    def score_again() -> None:
        folder = job.videos[0].folder
        (family, version), mark = min(records.marks_of(folder).items())
        own = [row for row in records.rows_of(folder) if row["metric"].startswith(f"{family}.")]
        place = next(index for index, row in enumerate(own) if row["status"] == "ok")
        own[place] = {**own[place], "value": 0.5}
        begin = {"begin": family, "version": version}
        end = {**mark, "seal": seals.seal(own, records.COLUMNS)}
        records.append(folder / runs.ROWS, [begin, *own, end])

    once_more = f"scored {first} of 2"
    lacking = [] if resumes else [*made, scored[1]]
    heard = tell(score_again)
    assert (heard[0], heard[-1]) == ("begin", "end True")
    assert sorted(heard[1:-1]) == sorted([*lacking, once_more])
    assert tell() == []


def test_a_video_that_failed_is_told_with_its_reason(fake: FakeGenerate) -> None:
    fake.fail_for = lambda spec: RuntimeError("broken layer") if spec.prompt.id.endswith("900") else None
    assert cli.main(["policy=h2o", *SHORT, "tracker=csv"]) == 1
    folder = next(Path("runs/tracker/csv").glob("*/h2o-*"))
    assert "RuntimeError: broken layer" in (folder / "scores.csv").read_text()
    assert json.loads((folder / "summary.json").read_text())["failed"] == 1


def test_curves_and_numbers_of_the_whole_are_told_apart() -> None:
    def row(metric: str, clip: int, value: float | None, **more: Any) -> dict[str, Any]:
        made = {
            "metric": metric,
            "version": 1,
            "clip": clip,
            "t0": 2.0 * clip,
            "value": value,
            "status": "ok",
        }
        return {**made, **more}

    rows = [
        row("world.revisit_psnr", 1, 20.0),
        row("world.revisit_psnr", 0, 21.0),
        row("drift.level", 0, 0.5),
        row("drift.level", 1, None, status="undefined"),
        row("world.revisit_psnr", WHOLE, 9.0, version=1),
        row("world.revisit_psnr", WHOLE, 20.5, version=2),
    ]
    found = scored_of(Planned(Path("a"), "0", "orbit-s0", 0, ""), [*rows[2:], *rows[:2]])
    assert [one["value"] for one in found.rows] == [20.5]
    assert found.windows == ({"window": 0.0, "drift.level": 0.5},)  # those of version 1 are old
    other = scored_of(Planned(Path("b"), "1", "orbit-s1", 1, ""), [row("world.revisit_psnr", WHOLE, 10.5)])
    assert means([*found.rows, *other.rows])["world.revisit_psnr"] == 15.5


def test_a_preview_is_small_andwhole(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (9, 480, 320, 3), dtype=np.uint8)
    source = video.write_video(tmp_path / "large.mp4", frames, 16)
    copy = shrink(source, tmp_path / "small.mp4")
    pictures = list(video.decode(copy))
    assert [picture.shape for picture in pictures] == [(LINES, 160, 3)] * 9
    assert copy.stat().st_size < source.stat().st_size / 4


def test_a_report_by_itself_is_told(fake: FakeGenerate, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["policy=h2o", *SHORT]) == 0
    assert cli.main(["report", "runs", "tracker=csv", "tracker.group=paper"]) == 0
    assert "tracker runs/tracker/csv/paper" in capsys.readouterr().out
    with next(Path("runs/tracker/csv/paper").rglob("comparison.csv")).open() as stream:
        told = list(csv.reader(stream))
    with next(Path("runs/reports").glob("report-*/summary.csv")).open() as stream:
        made = list(csv.reader(stream))
    assert told[0] == made[0]
    assert len(told) == len(made)
