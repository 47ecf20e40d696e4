"""Command lines of ff-bench in forked processes, with a tiny model and, where asked, a fault."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from arming import arm
from faults import WORKER, Fault, Ledger, put

if TYPE_CHECKING:
    from ff_bench.compose import Sweep

DOTS = 40
"""Dots per inch of figures."""
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

    from ff_bench import challenge_command as challenge
    from ff_bench import commands, models, pipeline, records, replay_command, report, score_command
    from ff_bench import stationarity_command as stationarity
    from ff_bench.analysis import drift_figure, replay, replay_figure
    from ff_bench.queue import worker

    records.code_version()
    assert all((matplotlib.pyplot, pandas, pyarrow.parquet, commands, pipeline, report, score_command))
    assert all((replay_command, stationarity, challenge, replay, replay_figure, drift_figure))
    torch.set_num_threads(1)
    tiny = _tiny()
    put(models, "load", lambda *_, **__: tiny)
    put(worker, "get_context", lambda _: get_context("fork"))
    _remember_configurations()
    _draw_coarsely()
    _shorten_challenges()


def _draw_coarsely() -> None:
    """Let figures have few dots, and those of paper nothing: they take most of the time of a report."""
    from matplotlib.figure import Figure

    really = Figure.savefig

    def savefig(figure: Figure, path: Path, **more: Any) -> None:
        if path.suffix == ".pdf":
            path.write_bytes(b"%PDF")
        else:
            really(figure, path, **{**more, "dpi": DOTS})

    put(Figure, "savefig", savefig)


def _remember_configurations() -> None:
    """Let every command take configurations that were composed before it was forked."""
    from ff_bench import compose, score_command
    from ff_bench.analysis import asking, replay_request
    from ff_bench.challenge import request

    remembered = lru_cache(maxsize=256)(compose.compose)  # Hydra needs longer than what comes after it
    for module in (score_command, asking, replay_request, request, compose):
        put(module, "compose", lambda words, **_: remembered(tuple(words)))


def _shorten_challenges() -> None:
    """Let a challenge ask for little, and examine in forks."""
    from ff_bench import compose
    from ff_bench.analysis import recording
    from ff_bench.challenge import examination, plan, replaying, request
    from policies import checking

    put(checking, "PROPERTIES", checking.PROPERTIES[:3])
    put(examination, "get_context", lambda _: get_context("fork"))
    put(request, "RIVALS", ("full", "random"))
    put(plan, "ROUNDS", (("mini", plan.TOKENS, 0, 1),))
    put(plan, "PROMPTS", {"mini": plan.PROMPTS["mini"]})
    for module in (plan, replaying):
        put(module, "LENGTH", "9s")
    composed = compose.compose
    put(request, "compose", lambda words: composed([*words, "steps=1"]))
    choice = recording.Choice
    put(recording, "Choice", lambda layers, heads, noisy=0: choice(layers[:2], heads[:2], noisy))


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
def _sweep(words: tuple[str, ...]) -> Sweep:
    """Compose a sweep."""
    from ff_bench import compose

    return compose.expand([word for word in words if word != "-m"], multirun=True)


def _compose(words: Sequence[str]) -> None:
    """Compose what a command line needs before it is forked; what is wrong with it, it says itself."""
    from ff_bench import score_command
    from ff_bench.analysis import asking, replay_request
    from ff_bench.challenge import plan, replaying, request
    from ff_bench.errors import UsageError
    from ff_bench.stationarity_command import OWN

    with suppress(UsageError):
        if words[0] == "-m":
            _sweep(tuple(words))
        elif words[0] == "score":
            score_command.read(words[1:])
        elif words[0] == "replay":
            replay_request.read(words[1:])
        elif words[0] == "stationarity":
            asking.full_cache(asking.split("stationarity", words[1:], OWN)[1])
        elif words[0] == "challenge":
            asked = request.read(words[1:])
            plan.steps(asked)
            replaying._entries(asked, replaying._config(asked, ("policy=full",)))


def attempt(words: Sequence[str], fault: Fault | None, ledger: Ledger) -> Attempt:
    """Run a command line in a process of its own and wait for it, and for all that it started."""
    _compose(words)
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
    except BaseException:  # as the interpreter would print it to the user
        traceback.print_exc()
    finally:
        sys.setprofile(None)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(words: Sequence[str], fault: Fault | None, ledger: Ledger) -> int:
    import torch

    from ff_bench import cli, commands
    from ff_bench.challenge import examination
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
    _part_from_forks()
    put(commands, "dispatch", broken)
    put(commands, "expand", lambda *_, **__: _sweep(tuple(words)))
    put(worker, "serve", partial(_serve, worker.serve, fault, ledger))
    put(examination, "_serve", partial(_serve, examination._serve, fault, ledger))
    return cli.main(words)


def _serve(serve: Callable[..., None], fault: Fault | None, ledger: Ledger, *words: Any) -> None:
    """Be a worker."""
    arm(fault, ledger, place=WORKER)
    serve(*words)


def _part_from_forks() -> None:
    """Let a fork have signals of its own from its first moment, as a worker that is started anew has."""
    ending = {signal.SIGTERM}

    def begin() -> None:
        sys.setprofile(None)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ending)

    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ending) and None,
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, ending) and None,
        after_in_child=begin,
    )
