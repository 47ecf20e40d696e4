"""The process in which a tracker lives: hears of a run and tells the tracker, until that fails."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from ff_bench.trackers.session import Plan, Session

LOGGER = logging.getLogger(__name__)
GENERATED, SCORED, REPORTED, END = "generated", "scored", "reported", "end"
Message = tuple[str, tuple[Path, ...], bool]
"""What happened, to which files, and whether the run came to its end."""
LAST_SECONDS = 5
"""What is left to close a tracker when the run was killed."""
SECRETS = ("WANDB_API_KEY",)


class Listener:
    """Tells a session; the first failure is said once, and is the last thing that the tracker does."""

    def __init__(self, plan: Plan) -> None:
        """Load the tracker."""
        self._name = str(plan.settings["name"])
        self._is_lost = False
        self._session: Session | None = None
        self._try(lambda: self._begin(plan))

    def hear(self, message: Message) -> None:
        """Tell what happened."""
        kind, paths, is_whole = message
        session = self._session
        if session is None:
            return
        acts: dict[str, Callable[[], None]] = {
            GENERATED: lambda: session.generated(paths[0]),
            SCORED: lambda: session.scored(paths[0]),
            REPORTED: lambda: session.reported(paths),
            END: lambda: session.end(is_whole=is_whole),
        }
        self._try(acts[kind])

    def close(self) -> tuple[str, ...]:
        """Close the tracker, also one that failed: it may keep what it has.

        Returns:
            Where it can be seen.
        """
        places: list[str] = []
        session = self._session
        if session is not None:
            self._try(lambda: places.extend(session.close()), is_last=True)
        return tuple(places)

    def _begin(self, plan: Plan) -> None:
        self._session = Session(plan)

    def _try(self, act: Callable[[], None], *, is_last: bool = False) -> None:
        if self._is_lost and not is_last:
            return
        try:
            act()
        except BaseException as error:  # also SystemExit, which libraries use where they should not
            LOGGER.debug("tracker %s failed", self._name, exc_info=True)
            if not self._is_lost:
                told = without_secrets(f"{type(error).__name__}: {error}")
                LOGGER.warning(
                    "tracker=%s failed and is off from here on, the run goes on without it: %s",
                    self._name,
                    told,
                )
            self._is_lost = True


def listen(plan: Plan, messages: Connection, answer: Connection) -> None:
    """Be the process of a tracker: hear until the end of the run, or of the process that runs it.

    Args:
        plan: What the session is about.
        messages: What happens; the last is an END, unless the run is killed.
        answer: Where to say, at last, where the tracker can be seen.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which then ends this
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    listener = Listener(plan)
    kind = ""
    while kind != END:
        message: Message
        try:
            message = messages.recv()
        except EOFError:
            timer = threading.Timer(LAST_SECONDS, lambda: os._exit(1))
            timer.daemon = True
            timer.start()
            message = (END, (), False)
        kind = message[0]
        listener.hear(message)
    places = listener.close()
    with suppress(OSError):
        answer.send(places)


def without_secrets(text: str) -> str:
    """Put a message on one line, and take keys and passwords out of it."""
    for name in SECRETS:
        key = os.environ.get(name, "")
        text = text.replace(key, "***") if key else text
    hidden = re.sub(r"(?<=//)[^/@\s]+@", "***@", text)
    return " ".join(hidden.split())[:300]
