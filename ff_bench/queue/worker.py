"""A worker: a process that does one task after the other and keeps what it has loaded."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Hashable
from multiprocessing import get_context
from multiprocessing.connection import Connection

from ff_bench.errors import UsageError
from ff_bench.files import Locked
from ff_bench.processes import follow_parent, without_interrupts
from ff_bench.queue.line import Place
from ff_bench.queue.slots import VISIBLE
from ff_bench.queue.task import Work

LOGGER = logging.getLogger(__name__)
READY, STEPS, DONE, BUSY, RAISED, WRONG, GONE = "ready", "steps", "done", "busy", "raised", "wrong", "gone"
"""What a worker says: it waits for work; steps are done; a task ended, is another's, raised, cannot run for
anybody (the user's mistake); its device is gone, and so is the worker."""
PATIENCE = 0.5
"""Seconds that a worker has to end after it was asked to."""


class Worker:
    """A process as its parent sees it."""

    def __init__(self, slot: int, device: str) -> None:
        """Start the process.

        Args:
            slot: Where it runs.
            device: GPU that it may see, as CUDA_VISIBLE_DEVICES names it; empty: all.
        """
        context = get_context("spawn")
        self.slot = slot
        self.place: Place | None = None
        self.has: Hashable = None
        self.steps = 0
        self.is_idle = False
        self.pipe, there = context.Pipe()
        # Not a daemon: those may not have processes of their own, and some metrics do.
        self._process = context.Process(target=serve, args=(there, device), name=f"worker {slot}")
        with without_interrupts():
            self._process.start()
        there.close()

    def give(self, place: Place) -> None:
        """Hand over a task.

        Raises:
            OSError: Where the process is gone.
        """
        self.place, self.steps, self.is_idle = place, 0, False
        if place.task.likes is not None:
            self.has = place.task.likes
        self.pipe.send(place.task.work)

    def cause(self) -> str:
        """Say how a process ended that is gone."""
        self._process.join(PATIENCE)
        code = self._process.exitcode
        if code is None:
            return "it does not answer"
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def end(self) -> None:
        """End the process whatever it does."""
        self._process.terminate()
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.pipe.close()

    def ask_to_end(self) -> None:
        """Ask the process to end; `end` then finds it ended, or ends it."""
        self._process.terminate()


def serve(pipe: Connection, device: str) -> None:
    """Be a worker: do what comes through the pipe until it closes or the device is gone.

    Args:
        pipe: To the parent.
        device: GPU, which counts only before the first use of CUDA; empty: all.
    """
    follow_parent()
    if device:
        os.environ[VISIBLE] = device
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    pipe.send((READY, None))
    while True:
        try:
            work: Work = pipe.recv()
        except EOFError:
            return
        answer = _do(work, pipe)
        pipe.send(answer)
        if answer[0] == GONE:
            return


def _do(work: Work, pipe: Connection) -> tuple[str, object]:
    """Do a task; whatever it raises is told, and a failure makes sure that the device is still there."""
    try:
        failures = work(lambda steps: pipe.send((STEPS, steps)))
    except Locked as error:
        return BUSY, str(error)
    except UsageError as error:
        return WRONG, str(error)
    except Exception as error:
        LOGGER.debug("task failed", exc_info=True)
        return (GONE, gone) if (gone := lost_device()) else (RAISED, f"{type(error).__name__}: {error}")
    return (GONE, gone) if failures and (gone := lost_device()) else (DONE, failures)


def lost_device() -> str:
    """Say why CUDA does not work any more in this process, where no later task would survive; else empty.

    An error of a kernel or of the hardware stays with its process; one of memory does not.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return ""
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ""
