"""One tracker of a run, in a process of its own: what raises, hangs or dies there cannot reach the run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue

from ff_bench.processes import without_interrupts
from ff_bench.trackers.listener import END, LAST_SECONDS, Message, listen
from ff_bench.trackers.session import Plan

LOGGER = logging.getLogger(__name__)


class Teller:
    """Tells a tracker what happens, and returns at once."""

    def __init__(self, plan: Plan) -> None:
        """Start the process, and a thread that sends, as a process that hangs does not read."""
        context = get_context("spawn")
        self.name = str(plan.settings["name"])
        self.wait = float(plan.settings["wait"])
        heard, told = context.Pipe(duplex=False)
        self._answer, given = context.Pipe(duplex=False)
        arguments = (plan, heard, given)
        self._process = context.Process(
            target=listen, args=arguments, name=f"tracker {self.name}", daemon=True
        )
        with without_interrupts():
            self._process.start()
        heard.close()
        given.close()  # so that the answer ends where the process does
        self._line: SimpleQueue[Message] = SimpleQueue()
        threading.Thread(target=_send, args=(self._line, told), name=self._process.name, daemon=True).start()

    def tell(self, kind: str, paths: Sequence[Path] = (), *, is_whole: bool = True) -> None:
        """Put in line what happened."""
        self._line.put((kind, tuple(paths), is_whole))

    def end(self, *, is_whole: bool, wait: float) -> tuple[str, ...]:
        """Close the tracker and end its process.

        Args:
            is_whole: Whether the run came to its end.
            wait: Seconds to wait for what is still in line.

        Returns:
            Where it can be seen.
        """
        self.tell(END, is_whole=is_whole)
        places: tuple[str, ...] = ()
        seconds = 0
        try:
            if self._answer.poll(wait):
                places, seconds = self._answer.recv(), LAST_SECONDS
            else:
                LOGGER.warning(
                    "tracker=%s did not end within %g s and was stopped; the run is complete without it, the "
                    "same command tells it what it missed",
                    self.name,
                    wait,
                )
        except (EOFError, OSError):
            LOGGER.warning("tracker=%s ended by itself; the run is complete without it", self.name)
        self._process.join(seconds)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        return places


def _send(line: SimpleQueue[Message], told: Connection) -> None:
    """Send what is in line, until the end or until nobody reads."""
    kind = ""
    with told, suppress(OSError):
        while kind != END:
            message = line.get()
            kind = message[0]
            told.send(message)
