"""Processes side by side: what they do, how they die, that none stays behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from ff_bench.errors import UsageError
from ff_bench.files import Locked
from ff_bench.queue import crew, slots, worker
from ff_bench.queue.slots import THREADS, Slots
from ff_bench.queue.task import Advance, Task


def ok(number: int, advance: Advance) -> list[str]:
    advance(1)
    advance(1)
    device = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return [f"{number} {os.getpid()} {device} {os.environ.get(THREADS, '')}"]


def die_once(mark: Path, advance: Advance) -> list[str]:
    """Die by SIGKILL the first time, in the middle."""
    advance(1)
    if not mark.exists():
        mark.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return [f"survived {mark.read_text()} {os.getpid()}"]


def die(_: Advance) -> list[str]:
    os._exit(3)


def held_once(mark: Path, _: Advance) -> list[str]:
    if not mark.exists():
        mark.touch()
        raise Locked("another process works on it")
    return []


def raise_error(kind: type[Exception], _: Advance) -> list[str]:
    raise kind("broken")


def sleep(mark: Path, _: Advance) -> list[str]:
    mark.write_text(str(os.getpid()))
    time.sleep(60)
    return []


def task(key: str, work: object, **about: object) -> Task:
    return Task(key, work, lost=lambda reason: [f"{key} lost: {reason}"], **about)  # type: ignore[arg-type]


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_work_is_spread_and_progress_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(THREADS, raising=False)
    steps: Counter[str] = Counter()
    done: list[int] = []
    tasks = [
        task(str(number), partial(ok, number), stage="walk", size=3, done=partial(done.append, number))
        for number in range(8)
    ]
    found = crew.run(tasks, Slots(2, ("3", "GPU-x")), lambda stage, count: steps.update({stage: count}))
    seen = [line.split(" ") for line in found]
    assert sorted(int(number) for number, *_ in seen) == sorted(done) == list(range(8))
    assert len({(process, device) for _, process, device, _ in seen}) == len({line[1] for line in seen}) <= 2
    assert {line[2] for line in seen} <= {"3", "GPU-x"}
    assert {line[3] for line in seen} == {str(max(1, slots.cores() // 2))}
    assert THREADS not in os.environ
    assert steps == {"walk": 24}
    assert not any(is_alive(int(line[1])) for line in seen)


def test_a_task_outlives_one_death_of_its_worker(tmp_path: Path) -> None:
    steps: Counter[str] = Counter()
    tasks = [task("a", partial(die_once, tmp_path / "mark"), stage="walk", size=4), task("b", partial(ok, 1))]
    found = crew.run(tasks, Slots(2), lambda stage, count: steps.update({stage: count}))
    survived = next(line for line in found if line.startswith("survived")).split(" ")
    assert survived[1] != survived[2]
    assert len(found) == 2
    assert steps["walk"] == 4


def test_a_task_that_kills_two_workers_is_lost_and_the_others_go_on() -> None:
    tasks = [task("bad", die), *(task(str(number), partial(ok, number)) for number in range(4))]
    found = crew.run(tasks, Slots(2))
    assert len(found) == 5
    assert "exit code 3" in next(line for line in found if line.startswith("bad lost"))


def test_a_device_that_loses_two_workers_in_a_row_is_left_out() -> None:
    ended: list[str] = []
    tasks = [task(name, die, done=partial(ended.append, name)) for name in "abc"]
    found = crew.run(tasks, Slots(1, retries=5))
    assert sorted(ended) == ["a", "b", "c"]
    assert all("no worker is left" in line for line in found)


def test_what_another_process_holds_is_waited_for(tmp_path: Path) -> None:
    for where in (Slots(1), Slots(is_inside=True)):
        mark = tmp_path / str(where.is_inside)
        assert crew.run([task("a", partial(held_once, mark))], where) == []


def test_an_error_is_one_tasks_and_a_wrong_command_line_is_everybodys() -> None:
    tasks = [task("a", partial(raise_error, RuntimeError)), task("b", partial(ok, 1))]
    found = crew.run(tasks, Slots(1))
    assert len(found) == 2
    assert "a lost: RuntimeError: broken" in found
    with pytest.raises(UsageError, match="broken"):
        crew.run([task("a", partial(raise_error, UsageError))], Slots(1))


def test_nothing_to_do_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "Worker", None)
    assert crew.run([], Slots(4)) == []


def test_ctrl_c_ends_every_worker_within_two_seconds(tmp_path: Path) -> None:
    marks = [tmp_path / str(number) for number in range(2)]
    began = 0.0

    def interrupt(_: int, __: object) -> None:
        nonlocal began
        if all(mark.exists() and mark.read_text() for mark in marks):
            began = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.1)
    with pytest.raises(KeyboardInterrupt):
        crew.run([task(str(mark), partial(sleep, mark)) for mark in marks], Slots(2))
    assert 0 < time.monotonic() - began < 2
    assert not any(is_alive(int(mark.read_text())) for mark in marks)


def test_a_lost_device_is_told_from_a_failed_task(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        class cuda:
            @staticmethod
            def is_initialized() -> bool:
                return True

            @staticmethod
            def synchronize() -> None:
                raise RuntimeError("CUDA error: device-side assert triggered\nmore")

    monkeypatch.setitem(sys.modules, "torch", Gone)
    assert worker.lost_device() == "RuntimeError: CUDA error: device-side assert triggered"
    monkeypatch.setattr(Gone.cuda, "synchronize", lambda: None)
    assert worker.lost_device() == ""


def test_slots_follow_the_machine() -> None:
    assert slots.for_workers(1, ()).is_inside
    assert slots.for_workers(3, ("0", "1")).device(2) == "0"
    assert slots.for_machine(None, ("0", "1", "2"), on_gpu=True, retries=1).count == 3
    assert slots.for_machine(None, (), on_gpu=True, retries=1).count == 1
    assert slots.for_machine(None, (), on_gpu=False, retries=1).count == max(1, slots.cores() // 2)
    assert slots.devices_for(["cuda:0"]) == slots.devices_for(["auto", "cpu"]) == ()
