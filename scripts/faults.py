"""Faults and how one comes about in a process: what `scripts/torture.py` does to a command line.

A fault strikes at the n-th call of a function of ff-bench in the main thread of the process that it is meant
for: the runner, or one worker. Where that is, the code under test cannot know. Nothing here is part of the
product; everything is done to a forked process that dies afterwards.
"""

from __future__ import annotations

import builtins
import errno
import inspect
import io
import mmap
import os
import resource
import signal
import stat
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
OURS = (f"{ROOT}/ff_bench/", f"{ROOT}/policies/")
SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
DISKS = {"full_disk": errno.ENOSPC, "read_only": errno.EROFS}
RUNNER, WORKER = "runner", "worker"
KINDS: dict[str, tuple[str, ...]] = {
    "kill": (RUNNER, WORKER), "terminate": (RUNNER, WORKER), "interrupt": (RUNNER,),
    "memory": (RUNNER, WORKER), "full_disk": (RUNNER, WORKER), "short_writes": (RUNNER, WORKER),
    "read_only": (RUNNER, WORKER), "codec": (RUNNER, WORKER), "codec_kill": (RUNNER, WORKER),
    "hang": (RUNNER, WORKER), "gpu": (RUNNER, WORKER), "absent_gpu": (RUNNER,),
}  # fmt: skip
"""Kinds of faults, and the processes that they may strike."""
MINUTE = 1.0
"""Seconds that a minute of `score_minutes` has where a scorer hangs."""
LAYOUT = struct.Struct("qdqq")


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        kind: of `KINDS`.
        place: process that it strikes, the runner or a worker.
        call: number of the call of ours at which it strikes, from 1; of a codec or GPU, of its own calls.
        once: whether it strikes one worker only, or each that comes so far.
        size: bytes to which files may grow, for `short_writes`.
    """

    kind: str
    place: str = RUNNER
    call: int = 1
    once: bool = True
    size: int = 0


def put(owner: object, name: str, value: object) -> None:
    """Put something in the place of a name of a module or class, in this process only."""
    setattr(owner, name, value)


class Ledger:
    """What a process under test tells the campaign, in memory that its forks share."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._memory = mmap.mmap(-1, LAYOUT.size)

    @property
    def struck(self) -> int:
        """How often the fault has come about."""
        return int(LAYOUT.unpack(self._memory[:])[0])

    @property
    def moment(self) -> float:
        """When it came about last, of `time.monotonic`."""
        return float(LAYOUT.unpack(self._memory[:])[1])

    def calls(self, place: str) -> int:
        """Count the calls of the runner, or the most of any worker."""
        return int(LAYOUT.unpack(self._memory[:])[2 if place == RUNNER else 3])

    def strike(self) -> None:
        """Note that the fault comes about now."""
        struck, _, runner, worker = LAYOUT.unpack(self._memory[:])
        self._memory[:] = LAYOUT.pack(struck + 1, time.monotonic(), runner, worker)

    def count(self, place: str, calls: int) -> None:
        """Note how many calls a process has made."""
        struck, moment, runner, worker = LAYOUT.unpack(self._memory[:])
        runner, worker = (calls, worker) if place == RUNNER else (runner, max(worker, calls))
        self._memory[:] = LAYOUT.pack(struck, moment, runner, worker)


def arm(fault: Fault | None, ledger: Ledger, *, place: str = RUNNER) -> None:
    """Let a fault come about in this process, or, without one, count calls.

    Args:
        fault: or None.
        ledger: told when it strikes.
        place: what this process is.
    """
    sys.setprofile(None)
    mine = fault is not None and fault.place == place and not (fault.once and ledger.struck)
    if fault is None or not mine:
        _count(ledger, place) if fault is None else None
    elif fault.kind in ("codec", "codec_kill"):
        _break_codec(fault, ledger)
    elif fault.kind == "gpu":
        _lose_gpu(fault, ledger)
    elif fault.kind == "hang":
        _hang(ledger)
    elif fault.kind != "absent_gpu":
        _strike_at(fault, ledger)


def _is_ours(frame: FrameType, event: str) -> bool:
    return event == "call" and frame.f_code.co_filename.startswith(OURS)


def _count(ledger: Ledger, place: str) -> None:
    calls = 0

    def note(frame: FrameType, event: str, _: Any) -> None:
        nonlocal calls
        if _is_ours(frame, event):
            calls += 1
            ledger.count(place, calls)

    sys.setprofile(note)


def _strike_at(fault: Fault, ledger: Ledger) -> None:
    left = fault.call

    def note(frame: FrameType, event: str, _: Any) -> None:
        nonlocal left
        if not _is_ours(frame, event):
            return
        left -= 1
        # A generator that is thrown away is called too, and Python itself prints what it raises then.
        if left > 0 or (fault.kind == "memory" and frame.f_code.co_flags & inspect.CO_GENERATOR):
            return
        sys.setprofile(None)
        if fault.once and ledger.struck:
            return
        ledger.strike()
        _happen(fault)

    sys.setprofile(note)


def _happen(fault: Fault) -> None:
    if fault.kind in SIGNALS:
        os.kill(os.getpid(), SIGNALS[fault.kind])
    elif fault.kind == "memory":
        raise MemoryError
    elif fault.kind == "short_writes":
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.size, resource.RLIM_INFINITY))
    else:
        _break_disk(DISKS[fault.kind], everything=fault.kind == "read_only")


def _break_disk(number: int, *, everything: bool) -> None:
    """Let the system refuse what needs room on a disk, or every change."""

    def refusing(function: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(what: Any, *words: Any, **more: Any) -> Any:
            if isinstance(what, int) and not stat.S_ISREG(os.fstat(what).st_mode):  # a pipe is no disk
                return function(what, *words, **more)
            raise OSError(number, os.strerror(number), None if isinstance(what, int) else str(what))

        return refuse

    for name in (
        "write",
        "fsync",
        "mkdir",
        *(("replace", "rename", "unlink", "rmdir") if everything else ()),
    ):
        setattr(os, name, refusing(getattr(os, name)))
    really = io.open

    def limited(file: Any, mode: str = "r", *words: Any, **more: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return really(file, mode, *words, **more)
        if not everything and Path(file).exists():
            return really(file, mode, *words, **more)
        raise OSError(number, os.strerror(number), str(file))

    put(io, "open", limited)
    put(builtins, "open", limited)


def _at_call(function: Callable[..., Any], number: int, happen: Callable[[], None]) -> Callable[..., Any]:
    """Wrap a function so that something happens from its n-th call on."""
    calls = 0

    def wrapped(*words: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= number:
            happen()
        return function(*words, **more)

    return wrapped


def _break_codec(fault: Fault, ledger: Ledger) -> None:
    import av

    from ff_bench import video

    def happen() -> None:
        ledger.strike()
        if fault.kind == "codec_kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise av.error.ExternalError(-542398533, "Generic error in an external library", "encoder")

    put(video, "_convert", _at_call(video._convert, fault.call, happen))


def _lose_gpu(fault: Fault, ledger: Ledger) -> None:
    """Let the model's device be gone from its n-th pass on, as CUDA says it and for good."""
    import torch

    from ff_bench.models.mini.backbone import Mini

    def happen() -> NoReturn:
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA")

    def first() -> NoReturn:
        ledger.strike()
        put(torch.cuda, "is_initialized", lambda: True)
        put(torch.cuda, "synchronize", lambda *_: happen())
        happen()

    put(Mini, "denoise", _at_call(Mini.denoise, fault.call, first))


def _hang(ledger: Ledger) -> None:
    """Let one metric never return."""
    from ff_bench import limits
    from ff_bench.metrics.flicker import Flicker

    def hang(*_: Any) -> NoReturn:
        ledger.strike()
        while True:
            time.sleep(3600)

    put(limits, "MINUTE", MINUTE)
    put(Flicker, "compute", hang)
