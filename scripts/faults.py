"""Faults, and what a process under test tells of them: the words of `scripts/torture.py`.

A fault strikes at the n-th step of ff-bench in the main thread of the process that it is meant for: the
runner, or one worker. Where that is, the code under test cannot know. Nothing here is part of the product;
everything is done to a forked process that dies afterwards.
"""

from __future__ import annotations

import mmap
import struct
import time
from dataclasses import dataclass

RUNNER, WORKER = "runner", "worker"
EVERYWHERE, WRITING = "everywhere", "writing"
"""Steps that count: all of ours, or those of the modules that write files."""
KINDS: dict[str, tuple[str, ...]] = {
    "kill": (RUNNER, WORKER), "terminate": (RUNNER, WORKER), "interrupt": (RUNNER,),
    "memory": (RUNNER, WORKER), "full_disk": (RUNNER, WORKER), "short_writes": (RUNNER, WORKER),
    "read_only": (RUNNER, WORKER), "codec": (RUNNER, WORKER), "codec_kill": (RUNNER, WORKER),
    "hang": (RUNNER, WORKER), "stuck": (RUNNER, WORKER), "gpu": (RUNNER, WORKER),
    "gpu_memory": (RUNNER, WORKER), "absent_gpu": (RUNNER,),
}  # fmt: skip
"""Kinds of faults, and the processes that they may strike."""
INSIDE = ("codec", "codec_kill", "hang", "stuck", "gpu", "gpu_memory")
"""Kinds that strike within generating and scoring, which workers do where there are any."""
SIGNALLED = ("terminate", "interrupt", "stuck")
"""Kinds after which a command must end at once and say how to go on."""
STRIKES, STEPS = struct.Struct("qd"), struct.Struct("q")
PLACES = ((RUNNER, EVERYWHERE), (RUNNER, WRITING), (WORKER, EVERYWHERE), (WORKER, WRITING))


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        kind: of `KINDS`.
        place: process that it strikes, the runner or a worker.
        call: number of the step at which it strikes, from 1; of a codec, a GPU or a policy, of its own calls.
        once: whether it strikes one worker only, or each that comes so far.
        size: bytes to which files may grow, for `short_writes`; of others, what chooses among their ways.
        steps: what is counted.
    """

    kind: str
    place: str = RUNNER
    call: int = 1
    once: bool = True
    size: int = 0
    steps: str = EVERYWHERE


def put(owner: object, name: str, value: object) -> None:
    """Put something in the place of a name of a module or class, in this process only."""
    setattr(owner, name, value)


class Ledger:
    """What a process under test tells the campaign, in memory that its forks share."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._memory = mmap.mmap(-1, STRIKES.size + len(PLACES) * STEPS.size)

    @property
    def struck(self) -> int:
        """How often the fault has come about."""
        return int(STRIKES.unpack_from(self._memory)[0])

    @property
    def moment(self) -> float:
        """When it came about last, of `time.monotonic`."""
        return float(STRIKES.unpack_from(self._memory)[1])

    def calls(self, place: str, steps: str) -> int:
        """Count the steps of the runner, or the most of any worker."""
        return int(STEPS.unpack_from(self._memory, self.slot(place, steps))[0])

    def strike(self) -> None:
        """Note that the fault comes about now."""
        STRIKES.pack_into(self._memory, 0, self.struck + 1, time.monotonic())

    @staticmethod
    def slot(place: str, steps: str) -> int:
        """Return where steps are counted."""
        return STRIKES.size + PLACES.index((place, steps)) * STEPS.size

    def count(self, slot: int, calls: int) -> None:
        """Note how many steps a process has made, where no other one has made more."""
        if calls > STEPS.unpack_from(self._memory, slot)[0]:
            STEPS.pack_into(self._memory, slot, calls)
