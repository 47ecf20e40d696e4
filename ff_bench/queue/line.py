"""The line of tasks: which is next for a worker, what waits for what, what is tried again."""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, field

from ff_bench.queue.task import Task

PAUSE = 1.0
"""Seconds after which a task that another process has hold of is tried again."""


@dataclass
class Place:
    """A task in line.

    Attributes:
        task: The task.
        number: Its place in the order of tasks.
        not_before: Time, of `time.monotonic`, from which on it may be taken.
        died_on: Slots whose worker died over it, one entry per death.
    """

    task: Task
    number: int
    not_before: float = 0.0
    died_on: list[int] = field(default_factory=list)


class Line:
    """Tasks that wait, and the keys of those that have not ended."""

    def __init__(self, tasks: Iterable[Task], *, retries: int) -> None:
        """Queue up.

        Args:
            tasks: Keys are unique.
            retries: How often a task whose worker died is tried again.
        """
        self._waiting = {task.key: Place(task, number) for number, task in enumerate(tasks)}
        self._open = set(self._waiting)
        self._retries = retries

    @property
    def is_over(self) -> bool:
        """Whether every task has ended."""
        return not self._open

    def take(
        self,
        slot: int,
        *,
        alive: Collection[int] = (),
        has: Hashable = None,
        others: Collection[Hashable] = (),
    ) -> Place | None:
        """Take the next task for a slot, or None where there is none for it now.

        Args:
            slot: Of the worker; it gets no task that a worker of it died over while another slot could.
            alive: Slots that are in use.
            has: What the worker has loaded.
            others: What other workers have loaded, which is left to them where there is a choice.
        """
        now = time.monotonic()
        ready = [place for place in self._waiting.values() if self._is_ready(place, slot, set(alive), now)]
        if not ready:
            return None

        def order(place: Place) -> tuple[int, int, int]:
            likes = place.task.likes
            strange = 0 if likes is None or likes == has else 2 if likes in others else 1
            return place.task.rank, strange, place.number

        place = min(ready, key=order)
        del self._waiting[place.task.key]
        return place

    def end(self, place: Place) -> None:
        """Take note that a task has ended."""
        self._open.discard(place.task.key)

    def postpone(self, place: Place) -> None:
        """Put a task back that another process has hold of."""
        place.not_before = time.monotonic() + PAUSE
        self._waiting[place.task.key] = place

    def lose(self, place: Place, slot: int) -> bool:
        """Put a task back whose worker died, unless that happened too often.

        Returns:
            Whether it will be tried again.
        """
        place.died_on.append(slot)
        if len(place.died_on) > self._retries:
            return False
        self._waiting[place.task.key] = place
        return True

    def drain(self) -> list[Place]:
        """Take every task that waits, as nobody is left to do it."""
        left = sorted(self._waiting.values(), key=lambda place: place.number)
        self._waiting.clear()
        return left

    def _is_ready(self, place: Place, slot: int, alive: set[int], now: float) -> bool:
        is_spared = slot in place.died_on and not alive <= set(place.died_on)
        return not is_spared and place.not_before <= now and not place.task.after & self._open
