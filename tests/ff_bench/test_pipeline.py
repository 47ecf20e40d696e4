"""The way from a command line to rows, with a stand-in for generation."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import ff_bench
from ff_bench import cli, files, models, records, runs, work
from ff_bench.compose import compose, expand
from ff_bench.failures import summarise as failures_of
from ff_bench.queue import crew
from ff_bench.queue.slots import Slots
from ff_bench.queue.task import Advance
from tests.conftest import FakeGenerate

SHORT = ["length=1s", "metrics=[flicker,fidelity,cost]", "budget=256", "limit=2"]


def _last(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_one_run_ends_with_rows_tables_and_a_json_line(
    fake: FakeGenerate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["policy=h2o", *SHORT]) == 0
    last = _last(capsys)
    assert last["videos"] == 2
    assert last["failed"] == 0
    folder = next(Path("runs/mini").glob("h2o-equal/b256-f6"))
    assert (folder / "rows.parquet").is_file()
    assert (folder / "rows.csv").is_file()
    assert [path.name for path in folder.parent.parent.iterdir()] == ["h2o-equal"]
    assert not [
        path for path in Path().rglob("*") if path.name in (".hydra", "outputs", "multirun", "multirun.yaml")
    ]


def test_a_model_sees_all_prompts_of_a_sweep_before_the_first_video(
    fake: FakeGenerate, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(models, "prepare", lambda _, texts, **__: seen.append((len(texts), len(fake.made))))
    words = ["policy=h2o,random", "length=1s", "metrics=[cost]", "budget=256", "limit=3"]
    assert cli.main(["-m", *words]) == 0
    assert seen == [(3, 0)]
    assert len(fake.made) == 6


def test_the_same_command_makes_nothing_twice(fake: FakeGenerate) -> None:
    assert cli.main(["policy=h2o", *SHORT]) == 0
    made, written = (
        list(fake.made),
        {path: path.stat().st_mtime_ns for path in Path("runs").rglob("rows.jsonl")},
    )
    assert cli.main(["policy=h2o", *SHORT]) == 0
    assert fake.made == made
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("rows.jsonl")} == written
    assert cli.main(["policy=h2o", *SHORT, "overwrite=true"]) == 0
    assert len(fake.made) == 2 * len(made)


def test_a_row_without_reference_is_made_again_once_the_reference_is_there(fake: FakeGenerate) -> None:
    words = {"budget": 256, "length": "13s", "metrics": ["fidelity"], "stages": ["generate", "score"]}
    before = ff_bench.run(policy="h2o", **words)
    assert set(before["status"]) == {"undefined"}
    ff_bench.run(policy="full", **words)
    after = ff_bench.run(policy="h2o", **words)
    assert "ok" in set(after["status"]), list(after["reason"])
    assert after.groupby(["video_id", "metric", "clip"]).size().max() == 1
    assert fake.made == list(dict.fromkeys(fake.made))


def test_a_sweep_has_one_report_and_one_full_video(
    fake: FakeGenerate, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-m", "policy=h2o,full", "budget=256,300", "length=1s", "metrics=[fidelity,cost]"]
    assert cli.main(words) == 0
    assert _last(capsys)["videos"] == 3
    assert len(fake.made) == 3
    assert len(list(Path("runs/reports").iterdir())) == 1


def test_native_is_no_second_video_where_the_model_keeps_everything(fake: FakeGenerate) -> None:
    assert cli.main(["-m", "policy=full,native", *SHORT]) == 0
    assert len(fake.made) == len(set(fake.made)) == 2


def test_a_video_that_two_protocols_share_has_rows_under_both(fake: FakeGenerate) -> None:
    assert cli.main(["-m", "policy=random", "protocol=equal,published", *SHORT]) == 0
    rows = records.table([path.parent for path in Path("runs").rglob(runs.ROWS)])
    assert set(rows["protocol"]) == {"equal", "published"}
    assert rows["video_id"].nunique() == 2


def test_a_failing_video_is_a_row_and_does_not_stop_the_others(
    fake: FakeGenerate, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.fail_for = lambda spec: RuntimeError("broken\nlayer") if spec.config.policy.name == "h2o" else None
    words = ["-m", "policy=h2o,random", "budget=256", "length=1s", "metrics=[cost]"]
    assert cli.main(words) == 1
    out = capsys.readouterr().out
    assert "h2o" in next(line for line in out.splitlines() if line.startswith("failed: "))
    assert json.loads(out.splitlines()[-1])["failed"] == 1
    rows = records.table(sorted(path.parent for path in Path("runs").rglob("rows.jsonl")))
    failed = rows[rows["status"] == "failed"]
    assert list(failed["reason"]) == ["RuntimeError: broken layer"]
    fake.fail_for = lambda _: None
    assert cli.main(words) == 0
    rows = records.table(sorted(path.parent for path in Path("runs").rglob("rows.jsonl")))
    assert not (rows["status"] == "failed").any()


def test_an_interrupt_says_how_to_go_on(fake: FakeGenerate, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    fake.fail_for = interrupt
    assert cli.main(["policy=h2o", *SHORT]) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert "ff-bench policy=h2o length=1s" in line
    assert "safe" in line


@pytest.mark.parametrize("broken", ["manifest", "record", "identity"])
def test_a_broken_folder_is_made_again(fake: FakeGenerate, broken: str) -> None:
    assert cli.main(["policy=h2o", *SHORT, "limit=1"]) == 0
    folder = next(Path("runs").rglob(runs.MANIFEST)).parent
    if broken == "record":
        (folder / runs.RECORD).write_bytes(b"")
    elif broken == "manifest":
        (folder / runs.MANIFEST).write_text((folder / runs.MANIFEST).read_text()[:-5])
    else:
        (folder / runs.MANIFEST).write_text(
            (folder / runs.MANIFEST).read_text().replace('"seed": 0', '"seed": 1')
        )
    assert not runs.is_finished(folder)
    assert cli.main(["policy=h2o", *SHORT, "limit=1"]) == 0
    assert runs.is_finished(folder)
    assert len(fake.made) == 2


def test_two_equal_runs_have_equal_rows(fake: FakeGenerate) -> None:
    words = {"policy": "h2o", "budget": 256, "length": "1s", "metrics": ["flicker", "cost"]}
    first = ff_bench.run(runs_dir="a", **words)
    second = ff_bench.run(runs_dir="b", **words)
    kept = records.strip_provenance(first)
    assert len(kept)
    assert kept.equals(records.strip_provenance(second))
    assert list(first.columns) == [*records.COLUMNS, *records.PROVENANCE]


def test_stages_run_apart(fake: FakeGenerate) -> None:
    assert cli.main(["policy=h2o", *SHORT, "stages=[generate]"]) == 0
    assert not list(Path("runs").rglob("rows.jsonl"))
    assert cli.main(["policy=h2o", *SHORT, "stages=[score]"]) == 0
    assert len(list(Path("runs").rglob("rows.jsonl"))) == 2
    assert not Path("runs/reports").exists()
    assert cli.main(["report", "runs", "out=there"]) == 0
    assert list(Path("there").iterdir())


def test_missing_weights_are_said_before_anything_is_written(
    clean: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ff_bench.config.checkpoint_sha256", lambda _: "absent")
    assert cli.main(["policy=h2o"]) == 2
    assert "doctor" in capsys.readouterr().err
    assert list(clean.iterdir()) == []


def _pretend(batch: work.Batch, advance: Advance) -> list[str]:
    """Stand in for a batch in another process: seed 1 fails, seed 2 takes its process down."""
    if batch[0].seed == 2:
        os._exit(1)
    return [f"{spec.prompt.id}: broken" for spec in batch if spec.seed == 1]


@pytest.mark.parametrize(("seeds", "failures"), [("[0,3]", 0), ("[0,1]", 1), ("[2,3]", 1)])
def test_batches_side_by_side(
    clean: Path, monkeypatch: pytest.MonkeyPatch, seeds: str, failures: int
) -> None:
    monkeypatch.setattr(work, "generate_batch", _pretend)
    config = compose([f"seed={seeds}", "policy=h2o", "device=cpu", "stages=[generate]"]).config
    told: list[int] = []
    listener = work.Listener(generated=lambda spec: told.append(spec.seed), scored=lambda _: None)
    steps: list[int] = []
    tasks = work.tasks_of([config], listener, overlap=True)
    found = crew.run(tasks, Slots(2), lambda _, count: steps.append(count))
    assert len(found) == failures
    assert sorted(told) == list(config.seeds)
    assert sum(steps) == 240 * len(config.seeds)
    lost = records.table([path.parent for path in Path("runs").rglob(runs.ROWS)])
    assert len(lost) == seeds.count("2")
    assert all("its worker died: exit code 1" in reason for reason in lost["reason"])


def test_scores_wait_for_the_video_and_what_it_is_compared_with(clean: Path, weights: None) -> None:
    words = ["length=1s", "budget=256", "metrics=[fidelity,cost]"]
    configs = [compose([f"policy={name}", *words]).config for name in ("h2o", "full")]
    listener = work.Listener(generated=lambda _: None, scored=lambda _: None)
    tasks = {task.key: task for task in work.tasks_of(configs, listener, overlap=True)}
    made = {key for key in tasks if key.startswith("generate ")}
    scored = next(task for key, task in tasks.items() if key.startswith("score ") and "h2o" in key)
    assert scored.after == made
    assert next(key for key in tasks if key in made).split("/")[2].startswith("full")
    assert all(scored.rank < tasks[key].rank for key in made)
    assert all(tasks[key].after == {"prepare 0"} for key in made)


def test_finished_work_is_no_task(fake: FakeGenerate) -> None:
    words = ["-m", "policy=h2o,full", *SHORT]
    assert cli.main(words) == 0
    configs = [job.config for job in expand(words[1:], multirun=True).jobs]
    listener = work.Listener(generated=lambda _: None, scored=lambda _: None)
    assert work.tasks_of(configs, listener, overlap=True) == []


def test_failures_are_grouped_by_reason() -> None:
    found = failures_of(["a: OSError: chunk 3", "b: ValueError: no", "c: OSError: chunk 12.5"])
    assert found == ["2 × OSError: chunk 3 (first: a)", "b: ValueError: no"]


def test_half_written_files_of_dead_processes_are_swept_up(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    names = [
        f".a.part-{files._machine()}-{process.pid}.mkv", f".a.part-{files._machine()}-{os.getpid()}.mkv",
        f".a.part-000000-{process.pid}.mkv", ".b.part-000000-1.json",
    ]  # fmt: skip
    for name in names:
        (tmp_path / name).touch()
    os.utime(tmp_path / names[3], (0, 0))
    files.sweep_up(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {names[1], names[2]}
