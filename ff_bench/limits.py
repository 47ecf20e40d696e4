"""A limit on the time that something may take: a scorer that never returns must not hold a sweep for days."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from types import FrameType

MINUTE = 60.0
"""Seconds."""
GRACE = 30.0
"""Seconds after which a worker that is deaf to its limit, inside a library, ends with it."""


class OutOfTime(RuntimeError):
    """Something took longer than it may."""


@contextmanager
def within(minutes: float, field: str) -> Iterator[None]:
    """Let what happens here take so long at most.

    Python's own code and whatever waits is interrupted. A library that does not come back is not: a worker
    then ends as a whole, and its parent notes it; a run in one process waits for Ctrl-C. Outside the main
    thread, where no signal arrives, there is no limit.

    Args:
        minutes: the limit.
        field: setting that it comes from, for the sentence.

    Raises:
        OutOfTime: where it took longer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_: int, __: FrameType | None) -> None:
        raise OutOfTime(f"not done after {minutes:g} min, which is what {field}={minutes:g} allows")

    before = signal.signal(signal.SIGALRM, stop)
    last = threading.Timer(minutes * MINUTE + GRACE, os._exit, [1])
    last.daemon = True
    if parent_process() is not None:
        last.start()
    signal.setitimer(signal.ITIMER_REAL, minutes * MINUTE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        last.cancel()
