"""Command lines of ff-bench in forked processes, with a tiny model and, where asked, a fault."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, NoReturn

from faults import WORKER, Fault, Ledger, arm, put

if TYPE_CHECKING:
    from ff_bench.compose import Sweep

LIMIT = 120.0
"""Seconds after which a command hangs."""


@dataclass(frozen=True)
class Attempt:
    """How a command line ended.

    Attributes:
        code: exit code; below zero the number of the signal that ended it.
        told: all that it printed.
        ended: when, of `time.monotonic`.
    """

    code: int
    told: str
    ended: float


def rehearse() -> None:
    """Import what commands need, so that a fork has it, and put a tiny model in the place of `mini`.

    Workers are forked as well, though a run starts them anew: importing takes longer than their work.
    `scripts/kill_sweep.py` kills workers as they are.
    """
    import matplotlib.pyplot
    import pandas
    import pyarrow.parquet
    import torch

    from ff_bench import commands, models, pipeline, records, report, score_command
    from ff_bench.queue import worker

    records.code_version()
    assert all((matplotlib.pyplot, pandas, pyarrow.parquet, commands, pipeline, report, score_command))
    torch.set_num_threads(1)
    tiny = _tiny()
    put(models, "load", lambda *_, **__: tiny)
    put(worker, "get_context", lambda _: get_context("fork"))


def _tiny() -> Any:
    """Make a model of `mini`'s kind whose layers all say something."""
    import torch

    from ff_bench.models.mini.backbone import Mini
    from ff_bench.models.mini.network import MiniNetwork, Size

    torch.manual_seed(0)
    network = MiniNetwork(Size(dim=96, depth=2, heads=2, head_dim=64, mlp=192, cross=32))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.normal_(0, module.in_features**-0.5)
    return Mini(network, checkpoint="tiny")


@lru_cache(maxsize=64)
def _compose(words: tuple[str, ...]) -> Sweep | None:
    """Compose a command line before it is forked: Hydra needs longer than what comes after it."""
    from ff_bench import compose

    if words[0] == "report":
        return None
    return compose.expand([word for word in words if word != "-m"], multirun=True)


def attempt(words: Sequence[str], fault: Fault | None, ledger: Ledger) -> Attempt:
    """Run a command line in a process of its own and wait for it, and for all that it started."""
    _compose(tuple(words))
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        os.close(reader)
        _be(words, fault, ledger, writer)
    os.close(writer)
    told, hangs = _read(reader, time.monotonic() + LIMIT)
    if hangs:
        os.killpg(process, signal.SIGKILL)
        told += "\nTraceback: none, but it did not end"
    _, status = os.waitpid(process, 0)
    return Attempt(os.waitstatus_to_exitcode(status), told, time.monotonic())


def _read(reader: int, until: float) -> tuple[str, bool]:
    """Read until every process at the other end is gone; say whether one was still there at the end."""
    parts: list[bytes] = []
    with open(reader, "rb", buffering=0) as stream:
        while (left := until - time.monotonic()) > 0:
            if not select.select([stream], [], [], left)[0]:
                break
            part = stream.read(1 << 16)
            if not part:
                return b"".join(parts).decode(errors="replace"), False
            parts.append(part)
    return b"".join(parts).decode(errors="replace"), True


def _be(words: Sequence[str], fault: Fault | None, ledger: Ledger, writer: int) -> NoReturn:
    """Be the command line: print into a pipe, arm the fault when the command begins, leave at the end."""
    code = 70
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        os.close(writer)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        code = _run(words, fault, ledger)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _run(words: Sequence[str], fault: Fault | None, ledger: Ledger) -> int:
    import torch

    from ff_bench import cli, commands
    from ff_bench.queue import worker

    dispatch = commands.dispatch

    def broken(own: Sequence[str]) -> int:
        try:
            arm(fault, ledger)
            return dispatch(own)
        finally:
            sys.setprofile(None)

    if fault is not None and fault.kind == "absent_gpu":
        put(torch.cuda, "is_available", lambda: False)
        ledger.strike()
    put(commands, "dispatch", broken)
    put(commands, "expand", lambda *_, **__: _compose(tuple(words)))
    put(worker, "serve", partial(_serve, worker.serve, fault, ledger))
    return cli.main(words)


def _serve(serve: Callable[..., None], fault: Fault | None, ledger: Ledger, *words: Any) -> None:
    """Be a worker; a fork begins with the runner's signals, a worker that is started anew does not."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    arm(fault, ledger, place=WORKER)
    serve(*words)
