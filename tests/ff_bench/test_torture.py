"""Faults: what was finished stays, what comes after equals an undisturbed run, a user reads one sentence."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ff_bench import cli, commands, limits, records
from ff_bench.limits import OutOfTime, within
from ff_bench.processes import without_interrupts

ROOT = Path(__file__).parents[2]
STUBBORN = """
import ctypes, os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
from ff_bench import cli, commands

def stubborn(words):
    print("ready", flush=True)
    while True:
        try:
            {work}
        except KeyboardInterrupt:
            pass

commands.dispatch = stubborn
sys.exit(cli.main(["policy=h2o"]))
"""
"""A command line that keeps an interrupt for itself."""
IN_PYTHON, IN_C = "time.sleep(60)", "ctypes.CDLL(None).sleep(60)"


@pytest.mark.parametrize(
    ("recipes", "faults"), [("generate,score,workers", 12), ("prefix,replay,stationarity", 6)]
)
def test_a_small_campaign_loses_nothing_and_ends_with_the_same_results(recipes: str, faults: int) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "torture.py"), "--faults", str(faults), "--seed", "3"]
    told = [*command, "--recipes", recipes]
    done = subprocess.run(told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["faults"] == faults
    assert last["lost"] == last["wrong"] == 0


@pytest.mark.parametrize("work", [IN_PYTHON, IN_C])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_keeps_the_interrupt_for_itself_ends_all_the_same(
    clean: Path, work: str, number: int, code: int
) -> None:
    words = [sys.executable, "-c", STUBBORN.format(work=work)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(30) == code
        told = process.stderr.read()
    assert "Traceback" not in told
    assert told.count("go on with the same command: ff-bench policy=h2o") == 1


def test_a_process_that_is_started_without_interrupts_never_sees_one() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('alive')"
    with without_interrupts():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


_PARENT = """
import subprocess, sys
code = "import runner, time; runner.follow_parent(); print('ready', flush=True); time.sleep(60)"
subprocess.run([sys.executable, "-c", code], cwd=sys.argv[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends children of a process that is killed")
def test_the_code_of_others_ends_with_a_run_that_is_killed() -> None:
    command = [sys.executable, "-c", _PARENT, str(ROOT / "ff_bench" / "metrics" / "reference")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
        assert parent.stdout.read() == ""  # ends when the last process that could write is gone


_GUEST = """
import os, signal, time
from ff_bench import cli, commands, interrupts
interrupts.PATIENCE = 0.2
commands.dispatch = lambda words: os.kill(os.getpid(), signal.SIGINT) or time.sleep(30)
code = cli.main(["ls"])
time.sleep(0.6)
print("alive", code)
"""
"""A program that runs a command line, which is interrupted, and goes on."""


def test_a_program_that_called_a_command_line_lives_on_after_its_interrupt() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _GUEST], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive 130\n")


def test_an_interrupt_that_a_library_has_kept_is_said_in_the_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def kept(_: object) -> int:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except KeyboardInterrupt:
            pass
        return 0

    monkeypatch.setattr(commands, "dispatch", kept)
    monkeypatch.setattr("ff_bench.interrupts.PATIENCE", 3600.0)
    assert cli.main(["policy=h2o"]) == 130
    assert "ff-bench policy=h2o" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "rows.csv"), "No space left on device: rows.csv"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), "Read-only file system"),
        (MemoryError(), "memory"),
    ],
)
def test_a_disk_or_a_memory_that_fails_is_one_sentence_and_how_to_go_on(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(commands, "dispatch", fail)
    assert cli.main(["policy=h2o"]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert told in line
    assert "ff-bench policy=h2o" in line


def test_a_row_that_the_disk_takes_in_pieces_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, bytes(data)[:7]))
    items = [{"done": "flicker", "version": 1}, {"done": "cost", "version": 2}]
    records.append(tmp_path / "rows.jsonl", items)
    assert records.read(tmp_path / "rows.jsonl") == items


def test_nothing_is_written_after_a_row_that_the_disk_has_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, room = os.write, [30]

    def full(handle: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(handle, bytes(data)[: room[0]])
        room[0] -= written
        return written

    path, items = tmp_path / "rows.jsonl", [{"row": number, "text": "0123456789"} for number in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            records.append(path, items)
    records.append(path, [{"done": "flicker"}])
    assert [item for item in records.read(path) if "done" not in item] == items[: len(records.read(path)) - 1]
    assert records.read(path)[-1] == {"done": "flicker"}


def test_what_never_returns_is_given_up_with_its_limit_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MINUTE", 0.02)
    told = "not done after 2 min, which is what score_minutes=2 allows"
    with pytest.raises(OutOfTime, match=told), within(2, "score_minutes"):
        time.sleep(60)
    with within(2, "score_minutes"):
        pass
    time.sleep(0.1)  # the limit is over with its block
