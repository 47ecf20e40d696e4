"""The crew: runs a line of tasks on workers, survives their deaths, and ends with nobody left behind."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from multiprocessing.connection import wait
from types import TracebackType

from ff_bench.errors import UsageError
from ff_bench.files import Locked
from ff_bench.queue.line import PAUSE, Line, Place
from ff_bench.queue.slots import Slots, threads_for
from ff_bench.queue.task import Task
from ff_bench.queue.worker import BUSY, DONE, GONE, RAISED, READY, STEPS, WRONG, Worker

Progress = Callable[[str, int], None]
"""Told a stage and how many of its steps were done; a negative number takes steps back."""
DEATHS = 2
"""Workers that die in a row on one device before it is left out."""


def run(tasks: Iterable[Task], slots: Slots, progress: Progress = lambda stage, steps: None) -> list[str]:
    """Do tasks; no process is started where there are none.

    Args:
        tasks: In the order in which they should be done; keys are unique.
        slots: Where they run.
        progress: Told of steps as they are done.

    Returns:
        A sentence per failure.

    Raises:
        UsageError: Where a task meets what only the user can mend; what runs is ended.
    """
    tasks = list(tasks)
    if not tasks:
        return []
    if slots.is_inside:
        return _alone(tasks, progress)
    with Crew(tasks, slots, progress) as crew:
        return crew.work()


def _alone(tasks: list[Task], progress: Progress) -> list[str]:
    """Do tasks in this process."""
    line = Line(tasks, retries=0)
    failures: list[str] = []
    while not line.is_over:
        place = line.take(0)
        if place is None:
            time.sleep(PAUSE / 4)
            continue
        task, told = place.task, Counter[str]()

        def advance(steps: int, stage: str = task.stage, told: Counter[str] = told) -> None:
            told[stage] += steps
            progress(stage, steps)

        try:
            failures += task.work(advance)
        except Locked:
            line.postpone(place)
            progress(task.stage, -told[task.stage])
            continue
        line.end(place)
        progress(task.stage, task.size - told[task.stage])
        task.done()
    return failures


class Crew:
    """Workers on slots; a context, so that none is left behind."""

    def __init__(self, tasks: list[Task], slots: Slots, progress: Progress) -> None:
        """Know the work; no process is started yet."""
        self._line = Line(tasks, retries=slots.retries)
        self._slots = slots
        self._progress = progress
        self._workers: dict[int, Worker] = {}
        self._deaths: Counter[str] = Counter()
        self._causes: dict[str, str] = {}
        self._failures: list[str] = []
        self._alive = set(range(min(slots.count, len(tasks))))

    def __enter__(self) -> Crew:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every worker, at once: what they write is whole or is made again."""
        for worker in self._workers.values():
            worker.ask_to_end()
        for worker in self._workers.values():
            worker.end()

    def work(self) -> list[str]:
        """Do everything in line.

        Returns:
            A sentence per failure.
        """
        with threads_for(max(1, len(self._alive))):
            while not self._line.is_over:
                if not self._alive and all(worker.place is None for worker in self._workers.values()):
                    self._give_up()
                    break
                self._deal()
                pipes = {worker.pipe: worker for worker in self._workers.values()}
                for pipe in wait([*pipes], PAUSE / 4):
                    self._hear(next(worker for own, worker in pipes.items() if own is pipe))
        return self._failures

    def _deal(self) -> None:
        """Start workers where there are none, and give each idle one the next task that suits it."""
        for slot in sorted(self._alive):
            if slot not in self._workers:
                self._workers[slot] = Worker(slot, self._slots.device(slot))
            worker = self._workers[slot]
            others = {other.has for other in self._workers.values() if other is not worker}
            place = (
                self._line.take(slot, alive=self._alive, has=worker.has, others=others)
                if worker.is_idle
                else None
            )
            if place is not None:
                try:
                    worker.give(place)
                except OSError:
                    self._bury(worker, worker.cause())

    def _hear(self, worker: Worker) -> None:
        """Hear what a worker says; silence for good means that it died."""
        try:
            kind, told = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker, worker.cause())
            return
        place = worker.place
        if kind == READY:
            worker.is_idle = True
        elif kind == STEPS and place is not None:
            worker.steps += told
            self._progress(place.task.stage, told)
        elif kind == GONE:
            self._bury(worker, told)
        elif kind == WRONG:
            raise UsageError(told)
        elif place is not None:
            worker.place, worker.is_idle = None, True
            self._deaths[self._device(worker.slot)] = 0
            if kind == BUSY:
                self._progress(place.task.stage, -worker.steps)
                self._line.postpone(place)
            else:
                assert kind in (DONE, RAISED), kind
                self._failures += told if kind == DONE else place.task.lost(told)
                self._end(place, worker.steps)

    def _end(self, place: Place, steps: int) -> None:
        """Let a task be over."""
        self._line.end(place)
        self._progress(place.task.stage, place.task.size - steps)
        place.task.done()

    def _bury(self, worker: Worker, cause: str) -> None:
        """Take leave of a worker that died: its task is tried again elsewhere, its device perhaps not."""
        slot, place = worker.slot, worker.place
        worker.end()
        del self._workers[slot]
        device = self._device(slot)
        self._deaths[device] += 1
        self._causes[device] = cause
        if self._deaths[device] >= DEATHS:
            self._alive -= {other for other in self._alive if self._device(other) == device}
        if place is None:
            return
        self._progress(place.task.stage, -worker.steps)
        if not self._line.lose(place, slot):
            self._failures += place.task.lost(f"its worker died: {cause} ({self._slots.name(slot)})")
            self._end(place, 0)

    def _device(self, slot: int) -> str:
        return self._slots.device(slot) or str(slot)

    def _give_up(self) -> None:
        """End what is in line, as every device was left out."""
        causes = ", ".join(dict.fromkeys(self._causes.values()))
        for place in self._line.drain():
            told = f"no worker is left, every device lost {DEATHS} in a row: {causes}"
            self._failures += place.task.lost(told)
            self._end(place, 0)
