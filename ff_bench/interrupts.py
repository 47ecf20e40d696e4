"""Ctrl-C and SIGTERM: a command line ends within two seconds, whatever it is doing just then."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from types import FrameType
from typing import Any

PATIENCE = 1.5
"""Seconds that a process has to end by itself; a kernel or library that does not return ends with it then."""
ENDING = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130
"""Exit code after Ctrl-C; 128 + the number of the signal, as shells have it."""


class Farewell:
    """What is said when a command line is interrupted, once, and the exit code that goes with it."""

    def __init__(self, sentence: str) -> None:
        """Know the sentence, which is for standard error."""
        self._sentence = sentence
        self._signal: int | None = None
        self._is_said = False
        self._is_over = threading.Event()

    @property
    def is_due(self) -> bool:
        """Whether a signal has come."""
        return self._signal is not None

    @property
    def code(self) -> int:
        """Exit code: 130 after Ctrl-C, 143 after SIGTERM."""
        return INTERRUPTED if self._signal is None else 128 + self._signal

    def say(self) -> None:
        """Say the sentence unless it was said."""
        if not self._is_said:
            self._is_said = True
            print(self._sentence, file=sys.stderr)

    def hear(self, number: int, _: FrameType | None) -> None:
        """Interrupt the main thread; a second signal does not wait for what the first one began."""
        if self._signal is not None:
            self.leave()
        self._signal = number
        raise KeyboardInterrupt

    def leave(self) -> None:
        """End this process and its children at once: what they write is whole or is made again."""
        if not self._is_said:
            os.write(2, f"{self._sentence}\n".encode())  # which works in any thread at any time
        for child in active_children():
            child.kill()
        os._exit(self.code)

    def watch(self, reader: int) -> None:
        """Wait for a signal, and leave where the process has not ended a while later.

        A signal reaches Python's own handlers only between two of its instructions. Its number comes through
        this pipe at once, whatever the main thread is busy with.
        """
        while True:
            heard = os.read(reader, 1)
            if not heard:
                os.close(reader)
                return
            if heard[0] in ENDING:
                break
        if not self._is_over.wait(PATIENCE):
            self._signal = heard[0]
            self.leave()
        else:
            os.close(reader)

    def stand_down(self) -> None:
        """End the watch: the command line is over, and the process goes on with something else."""
        self._is_over.set()


@contextmanager
def promptly(farewell: Farewell, *, is_guest: bool = False) -> Iterator[None]:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt here, and end the process where that does not help.

    A signal that was ignored before, as in the background of a shell, stays ignored. Outside the main thread,
    which alone may set handlers, everything stays as it is.

    Args:
        farewell: what is said.
        is_guest: the process goes on after this: nothing ends it once the block is left.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before: dict[int, Any] = {number: signal.getsignal(number) for number in ENDING}
    chosen = [number for number in ENDING if before[number] != signal.SIG_IGN]
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=farewell.watch, args=(reader,), name="interrupts", daemon=True).start()
    for number in chosen:
        signal.signal(number, farewell.hear)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number in chosen:
            signal.signal(number, before[number])
        if is_guest:
            farewell.stand_down()
        os.close(writer)  # a watcher that has heard nothing ends here, one that has does not read any more
