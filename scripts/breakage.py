"""What breaks within a process: its disk, its codec, its GPU, a scorer, a policy."""

from __future__ import annotations

import builtins
import ctypes
import io
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any, NoReturn

from faults import Fault, Ledger, put

MINUTE = 1.0
"""Seconds that a minute of `score_minutes` has where a scorer hangs."""
PAUSE = 0.2
"""Seconds from a policy that does not return to Ctrl-C."""


def disk(number: int, *, everything: bool) -> None:
    """Let the system refuse what needs room on a disk, or every change.

    Args:
        number: of the error.
        everything: whether nothing may be changed, renamed or removed either.
    """

    def refusing(function: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(what: Any, *words: Any, **more: Any) -> Any:
            if isinstance(what, int) and not stat.S_ISREG(os.fstat(what).st_mode):  # a pipe is no disk
                return function(what, *words, **more)
            raise OSError(number, os.strerror(number), None if isinstance(what, int) else str(what))

        return refuse

    changing = ("replace", "rename", "unlink", "rmdir") if everything else ()
    for name in ("write", "fsync", "mkdir", *changing):
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


def codec(fault: Fault, ledger: Ledger) -> None:
    """Let the encoder, and the decoder of videos of others, fail or die from the n-th picture on."""
    import av

    from ff_bench import probe, video

    def happen() -> None:
        ledger.strike()
        if fault.kind == "codec_kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise av.error.ExternalError(-542398533, "Generic error in an external library", "codec")

    put(video, "_convert", _from_call(video._convert, fault.call, happen))
    put(probe, "_note", _from_call(probe._note, fault.call, happen))


def gpu(fault: Fault, ledger: Ledger) -> None:
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

    put(Mini, "denoise", _from_call(Mini.denoise, fault.call, first))


def gpu_memory(fault: Fault, ledger: Ledger) -> None:
    """Let the memory of the model's device be used up from its n-th pass on."""
    import torch

    from ff_bench.models.mini.backbone import Mini

    def happen() -> NoReturn:
        ledger.strike()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 is full.")

    put(Mini, "denoise", _from_call(Mini.denoise, fault.call, happen))


def scorer(_: Fault, ledger: Ledger) -> None:
    """Let one metric never return."""
    from ff_bench import limits
    from ff_bench.metrics.flicker import Flicker

    def hang(*_: Any) -> NoReturn:
        ledger.strike()
        while True:
            time.sleep(3600)

    put(limits, "MINUTE", MINUTE)
    put(Flicker, "compute", hang)


def policy(fault: Fault, ledger: Ledger) -> None:
    """Let a policy not return from its n-th call on, and the user press Ctrl-C.

    It waits, or computes, or waits in a library, or keeps every exception for itself. A terminal gives Ctrl-C
    to all processes of a command.
    """
    from policies.h2o import H2O

    waiting = (_wait, _compute, _wait_in_c, _keep_all)[fault.size % 4]
    method = ("observe", "score")[fault.size // 4 % 2]

    def press() -> None:
        if not ledger.struck:
            ledger.strike()
            os.killpg(0, signal.SIGINT)

    def happen() -> None:
        Timer(PAUSE, press).start()
        waiting()

    put(H2O, method, _from_call(getattr(H2O, method), fault.call, happen))


def _wait() -> None:
    time.sleep(3600)


def _compute() -> None:
    number = 0
    while True:
        number += 1


def _wait_in_c() -> None:
    while True:
        ctypes.CDLL(None).sleep(3600)


def _keep_all() -> None:
    while True:
        try:
            time.sleep(3600)
        except BaseException:
            continue


def _from_call(function: Callable[..., Any], number: int, happen: Callable[[], None]) -> Callable[..., Any]:
    """Wrap a function so that something happens from its n-th call on."""
    calls = 0

    def wrapped(*words: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= number:
            happen()
        return function(*words, **more)

    return wrapped
