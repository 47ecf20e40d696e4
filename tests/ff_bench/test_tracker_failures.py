"""Trackers: nothing of them reaches the run, whatever is wrong with them."""

from __future__ import annotations

import logging
import sys
import time
import types
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import ff_bench
from ff_bench import cli, records, trackers
from ff_bench.trackers.listener import END, GENERATED, SCORED, Listener, listen, without_secrets
from ff_bench.trackers.session import Plan
from tests.conftest import FakeGenerate
from tests.ff_bench.told import SHORT, plan

CALLS = ("import", "login", "init", "define_metric", "log", "update", "Table", "finish")


def _tell(told: Plan) -> None:
    """Tell a run that is done, in this process."""
    listener = Listener(told)
    folders = [planned.folder for job in told.jobs for planned in job.videos]
    for kind in (GENERATED, SCORED):
        for folder in folders:
            listener.hear((kind, (folder,), True))
    listener.hear((END, (), True))
    listener.close()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tracker=wand"], ["tracker=wand", "wandb"]),
        (["tracker=wandb", "tracker.mode=onlin"], ["tracker.mode=onlin", "online"]),
        (["tracker=wandb", "tracker.api_key=x"], ["tracker.api_key", "no field"]),
        (["tracker=wandb", "+tracker.api_key=x"], ["tracker.api_key", "no field"]),
        (["tracker=wandb", "tracker.videos=some"], ["tracker.videos=some", "preview"]),
        (["tracker=wandb", "tracker.megabytes=0"], ["tracker.megabytes=0", "from 1"]),
        (["tracker=csv", "tracker.wait=0"], ["tracker.wait=0", "from 1 to 3600"]),
        (["tracker=csv", "tracker.group=../up"], ["tracker.group=../up", "letters"]),
        (["tracker=csv", "tracker.tags=[3]"], ["tracker.tags=3"]),
    ],
)
def test_wrong_settings_are_a_sentence_before_anything_is_written(
    fake: FakeGenerate, capsys: pytest.CaptureFixture[str], words: list[str], told: list[str]
) -> None:
    assert cli.main([*SHORT, *words]) == 2
    line = capsys.readouterr().err.strip()
    assert "\n" not in line
    assert all(part in line for part in told), line
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_missing_library_is_a_sentence_before_anything_is_written(
    fake: FakeGenerate,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    assert cli.main([*SHORT, f"tracker={name}"]) == 2
    assert f"pip install 'ff-bench[{name}]'" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k3y")
    told = without_secrets("HTTPError: k3y refused\nby https://me:pass@host/x")
    assert told == "HTTPError: *** refused by https://***@host/x"


def _stand_in(broken: str, heard: list[str]) -> types.ModuleType:
    """Make a module that looks like wandb and fails in one of its calls."""

    def call(name: str, given: Any = None) -> Any:
        def act(*_: Any, **__: Any) -> Any:
            heard.append(name)
            if name == broken:
                raise (SystemExit if name == "init" else RuntimeError)(f"{name} is broken")
            return given

        return act

    run = types.SimpleNamespace(
        define_metric=call("define_metric"), log=call("log"), finish=call("finish"), project_url="there",
        summary=types.SimpleNamespace(update=call("update")),
    )  # fmt: skip
    module = types.ModuleType("wandb")
    named = {"login": True, "init": run, "Table": None, "Settings": None, "Video": None, "Image": None}
    for name, given in named.items():
        setattr(module, name, call(name, given))
    return module


@pytest.mark.parametrize("broken", CALLS)
def test_whatever_breaks_is_told_once_and_ends_the_tracker_only(
    fake: FakeGenerate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    assert cli.main(["policy=h2o", *SHORT]) == 0
    heard: list[str] = []
    monkeypatch.setitem(sys.modules, "wandb", None if broken == "import" else _stand_in(broken, heard))  # type: ignore[arg-type]
    monkeypatch.setattr(trackers, "check", lambda _: None)
    with caplog.at_level(logging.WARNING):
        _tell(plan(["policy=h2o", *SHORT, "tracker=wandb"]))
    assert len(caplog.messages) == 1
    goes_offline = broken == "login"
    assert ("goes on offline" if goes_offline else "tracker=wandb failed") in caplog.messages[0]
    assert heard.count(broken) <= 2  # finish: of the job, and of what is still open
    if not goes_offline:
        assert "online-" not in str(list(Path("runs").rglob("*.json")))


@pytest.mark.parametrize(
    ("line", "wait", "told"),
    [
        ("raise RuntimeError('no')", 60, "failed and is off"),
        ("import os; os._exit(3)", 60, "ended by itself"),
        ("import time; time.sleep(60)", 1, "did not end within 1 s"),
    ],
)
def test_rows_are_those_without_a_tracker_whatever_the_library_does(
    fake: FakeGenerate,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    line: str,
    wait: int,
    told: str,
) -> None:
    words = ["policy=h2o", *SHORT]
    without = ff_bench.run(overrides=[*words, "runs_dir=without"])
    Path("library").mkdir()
    Path("library/wandb.py").write_text(
        f"def login(prompt):\n    return True\ndef Settings(**_):\n    {line}\n"
    )
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.syspath_prepend(str(Path("library").resolve()))
    began = time.monotonic()
    tracked = ff_bench.run(overrides=[*words, "tracker=wandb", f"tracker.wait={wait}"])
    assert wait > 1 or time.monotonic() - began < 30
    assert told in caplog.text + capfd.readouterr().err
    assert len(without)
    assert records.strip_provenance(without).equals(records.strip_provenance(tracked))


def test_a_run_that_is_killed_takes_its_tracker_along(fake: FakeGenerate) -> None:
    assert cli.main(["policy=h2o", *SHORT]) == 0
    told = plan(["policy=h2o", *SHORT, "tracker=csv"])
    context = get_context("spawn")
    heard, line = context.Pipe(duplex=False)
    answer, given = context.Pipe(duplex=False)
    process = context.Process(target=listen, args=(told, heard, given), daemon=True)
    process.start()
    heard.close()
    line.send((SCORED, (told.jobs[0].videos[0].folder,), True))
    line.close()  # what the end of this process would do
    process.join(60)
    assert process.exitcode == 0
    assert answer.recv() == (str(Path("runs/tracker/csv/sweep-1")),)
    assert next(Path("runs/tracker/csv").rglob("scores.csv")).is_file()
