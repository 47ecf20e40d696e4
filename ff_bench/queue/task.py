"""A piece of work: what travels to a worker, what it waits for, and what this process does about it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

Advance = Callable[[int], None]
Work = Callable[[Advance], list[str]]
"""Does the work, says how many steps are done as it goes, and returns a sentence per failure.

It raises `Locked` where another process has hold of it, which puts it back in line.
"""


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Task:
    """A piece of work that a dying worker loses as a whole.

    Attributes:
        key: Name, unique in its line.
        work: What a worker does; the one part that travels.
        lost: Answers for a task that its workers did not survive, given the reason: sentences.
        done: Called in this process when the task has ended, well or not.
        stage: What progress it counts for, such as `generate`.
        size: Steps of that stage.
        after: Keys that must have ended before it begins; those not in line have.
        rank: Ready tasks of a lower rank go first.
        likes: What a worker has loaded after it; it prefers tasks that like the same. None: does not matter.
    """

    key: str
    work: Work
    lost: Callable[[str], list[str]]
    done: Callable[[], None] = nothing
    stage: str = ""
    size: int = 1
    after: frozenset[str] = frozenset()
    rank: int = 0
    likes: Hashable = None
