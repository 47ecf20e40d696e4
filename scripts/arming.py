"""How a fault comes about in a process: at the n-th step of code of ours."""

from __future__ import annotations

import errno
import inspect
import os
import resource
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import breakage
from faults import EVERYWHERE, RUNNER, WRITING, Fault, Ledger

ROOT = Path(__file__).resolve().parents[1]
OURS = (f"{ROOT}/ff_bench/", f"{ROOT}/policies/")
WRITERS = tuple(
    f"{ROOT}/ff_bench/{name}.py"
    for name in (
        "files", "output", "records", "video", "latents", "prefixes", "runs", "foreign", "metrics/shelf",
        "report/style", "report/page", "analysis/recording",
    )
)  # fmt: skip
"""Modules that write."""
SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
DISKS = {"full_disk": errno.ENOSPC, "read_only": errno.EROFS}
INSIDE = {
    "codec": breakage.codec, "codec_kill": breakage.codec, "gpu": breakage.gpu,
    "gpu_memory": breakage.gpu_memory, "hang": breakage.scorer, "stuck": breakage.policy,
}  # fmt: skip


def arm(fault: Fault | None, ledger: Ledger, *, place: str = RUNNER) -> None:
    """Let a fault come about in this process, or, without one, count steps.

    Args:
        fault: or None.
        ledger: told when it strikes.
        place: what this process is.
    """
    sys.setprofile(None)
    if fault is None:
        _count(ledger, place)
    elif fault.place != place or (fault.once and ledger.struck):
        return
    elif fault.kind in INSIDE:
        INSIDE[fault.kind](fault, ledger)
    elif fault.kind != "absent_gpu":
        _strike_at(fault, ledger)


def _author(frame: FrameType, event: str) -> str:
    """Return the file of ours that makes a step: is called, or calls what is not ours; else an empty text.

    The calls out are where files are opened, written, synchronised and renamed.
    """
    if event == "c_call" or (event == "call" and frame.f_code.co_filename.startswith(OURS)):
        name = frame.f_code.co_filename
    elif event == "call" and frame.f_back is not None:
        name = frame.f_back.f_code.co_filename
    else:
        return ""
    return name if name.startswith(OURS) else ""


def _count(ledger: Ledger, place: str) -> None:
    every = writing = 0
    slots = [ledger.slot(place, steps) for steps in (EVERYWHERE, WRITING)]

    def note(frame: FrameType, event: str, _: Any) -> None:
        nonlocal every, writing
        author = _author(frame, event)
        if author:
            every += 1
            ledger.count(slots[0], every)
        if author in WRITERS:
            writing += 1
            ledger.count(slots[1], writing)

    sys.setprofile(note)


def _strike_at(fault: Fault, ledger: Ledger) -> None:
    left = fault.call

    def note(frame: FrameType, event: str, _: Any) -> None:
        nonlocal left
        author = _author(frame, event)
        if not author or (fault.steps == WRITING and author not in WRITERS):
            return
        left -= 1
        if left > 0 or (fault.kind == "memory" and not _may_raise(frame, event)):
            return
        sys.setprofile(None)
        if fault.once and ledger.struck:
            return
        ledger.strike()
        _happen(fault)

    sys.setprofile(note)


def _may_raise(frame: FrameType, event: str) -> bool:
    """Say whether memory may end here: in a function of ours that is called.

    A generator that is thrown away is called too, and Python itself prints what it raises then.
    """
    code = frame.f_code
    return event == "call" and code.co_filename.startswith(OURS) and not code.co_flags & inspect.CO_GENERATOR


def _happen(fault: Fault) -> None:
    if fault.kind in SIGNALS:
        os.kill(os.getpid(), SIGNALS[fault.kind])
    elif fault.kind == "memory":
        raise MemoryError
    elif fault.kind == "short_writes":
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.size, resource.RLIM_INFINITY))
    else:
        breakage.disk(DISKS[fault.kind], everything=fault.kind == "read_only")
