"""Child processes that end with their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process

PARENT_DEATH_SIGNAL = 1
"""Option of prctl: the kernel ends a child whose parent is gone."""


def follow_parent() -> None:
    """Leave Ctrl-C to the parent, which ends its children, and die with it where the system can do that."""
    signal.set_wakeup_fd(-1)  # the parent's, where this process is a copy of it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
        parent = parent_process()
        if parent is not None and os.getppid() != parent.pid:  # it was gone before
            os._exit(1)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Start a process that never sees Ctrl-C; one that comes meanwhile reaches this process afterwards.

    A child that heard of it while it imports would print where it was.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
