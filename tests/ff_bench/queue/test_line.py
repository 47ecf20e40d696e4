"""The order of tasks, without any process."""

from __future__ import annotations

from collections.abc import Hashable

import pytest

from ff_bench.queue import line as lines
from ff_bench.queue.line import Line, Place
from ff_bench.queue.task import Task


def task(key: str, *after: str, rank: int = 0, likes: Hashable = None) -> Task:
    return Task(
        key, lambda _: [], lost=lambda reason: [reason], after=frozenset(after), rank=rank, likes=likes
    )


def taken(line: Line, slot: int = 0, **about: object) -> Place:
    place = line.take(slot, **about)  # type: ignore[arg-type]
    assert place is not None
    return place


def test_a_task_waits_for_those_it_comes_after() -> None:
    line = Line([task("b", "a", "elsewhere"), task("a")], retries=0)
    first = taken(line)
    assert first.task.key == "a"
    assert line.take(1) is None
    line.end(first)
    second = taken(line)
    assert second.task.key == "b"
    assert not line.is_over
    line.end(second)
    assert line.is_over


def test_lower_ranks_go_first_then_what_is_loaded_then_what_nobody_has() -> None:
    tasks = [
        task("x", likes="one"), task("y", likes="two"), task("z", likes="three"), task("score", rank=-1)
    ]  # fmt: skip
    line = Line(tasks, retries=0)
    assert taken(line, has="two").task.key == "score"
    assert taken(line, has="two").task.key == "y"
    assert taken(line, has="two", others=["one"]).task.key == "z"
    assert taken(line, has="two", others=["one"]).task.key == "x"


def test_a_lost_task_goes_to_another_slot_while_there_is_one() -> None:
    line = Line([task("a")], retries=1)
    assert line.lose(taken(line, 0, alive=[0, 1]), 0)
    assert line.take(0, alive=[0, 1]) is None
    place = taken(line, 1, alive=[0, 1])
    assert not line.lose(place, 1)  # once more is enough
    line = Line([task("a")], retries=1)
    assert line.lose(taken(line, 0, alive=[0, 1]), 0)
    assert line.take(0, alive=[0]) is not None


def test_what_another_process_holds_is_tried_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(lines.time, "monotonic", lambda: now)
    line = Line([task("held"), task("free")], retries=0)
    line.postpone(taken(line))
    assert taken(line).task.key == "free"
    assert line.take(0) is None
    now += lines.PAUSE
    assert taken(line).task.key == "held"
    assert line.drain() == []
