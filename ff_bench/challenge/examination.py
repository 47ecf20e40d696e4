"""Properties of a policy, examined in a process of its own, as a policy of a user may do anything."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from ff_bench.errors import UsageError
from ff_bench.processes import follow_parent, without_interrupts

if TYPE_CHECKING:
    from policies.base import Policy
    from policies.checking import Result

READY, FOUND, REFUSED, EXHAUSTED = "ready", "found", "refused", "exhausted"
LIMIT = 20.0
"""Seconds that one property may take; shipped policies need less than one."""
LOADING = 60.0
"""Seconds until a policy is loaded, libraries included."""
STRIKES = 2
"""Properties that do not return before the rest is left out."""


def examine(words: Sequence[str], *, limit: float = LIMIT, loading: float = LOADING) -> Iterator[Result]:
    """Yield what each property found, one after the other.

    Args:
        words: `policy=...` and `policy.FIELD=...`.
        limit: seconds for each property; a policy that needs more is stopped.
        loading: seconds until the policy is loaded.

    Raises:
        UsageError: for a policy that cannot be loaded, or fields that it does not take.
    """
    from policies.checking import FAILED, PROPERTIES, Result

    done = strikes = 0
    while done < len(PROPERTIES):
        with _child(words, done) as (pipe, cause):
            _await_ready(pipe, cause, loading)
            while done < len(PROPERTIES):
                name = PROPERTIES[done].name
                if not pipe.poll(limit):
                    strikes += 1
                    yield Result(name, FAILED, f"does not return within {limit:g} s, and was stopped")
                    done += 1
                    break
                try:
                    _, found = pipe.recv()
                except EOFError:
                    strikes += 1
                    yield Result(name, FAILED, f"ends its process ({cause()})")
                    done += 1
                    break
                done += 1
                yield found
        if strikes >= STRIKES:
            for left in PROPERTIES[done:]:
                yield Result(left.name, FAILED, "not examined: the policy was stopped before")
            return


def make_of(words: Sequence[str]) -> Callable[[], Policy]:
    """Compose a policy and return what makes it.

    Raises:
        UsageError: with one sentence for the user.
    """
    from ff_bench import pipeline
    from ff_bench.compose import compose
    from ff_bench.making import make_policy

    config = compose(words).config
    pipeline.check_policy(config)
    return lambda: make_policy(config)


def _await_ready(pipe: Connection, cause: Callable[[], str], loading: float) -> None:
    if not pipe.poll(loading):
        raise UsageError(f"the policy does not load within {loading:g} s: importing its file does not return")
    try:
        kind, told = pipe.recv()
    except EOFError:
        raise UsageError(f"the policy cannot be loaded: its process was {cause()}") from None
    if kind == REFUSED:
        raise UsageError(told)
    if kind == EXHAUSTED:
        raise MemoryError(told)


@contextmanager
def _child(words: Sequence[str], first: int) -> Iterator[tuple[Connection, Callable[[], str]]]:
    """Start a process that examines properties from `first` on, and end it whatever it does."""
    context = get_context("spawn")
    pipe, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, tuple(words), first), daemon=True)
    with without_interrupts():
        process.start()
    there.close()

    def cause() -> str:
        process.join(1)
        code = process.exitcode
        return f"ended by {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"

    try:
        yield pipe, cause
    finally:
        process.kill()
        process.join()
        pipe.close()


def _serve(pipe: Connection, words: tuple[str, ...], first: int) -> None:
    """Load a policy and examine it; what it prints goes to the error stream."""
    follow_parent()
    os.dup2(2, 1)

    import torch

    from policies import checking

    torch.set_num_threads(1)
    try:
        make = make_of(words)
        subject = checking.Subject.of(make)
    except UsageError as error:
        pipe.send((REFUSED, str(error)))
        return
    except MemoryError as error:  # of the machine: no fault of the words
        pipe.send((EXHAUSTED, str(error)))
        return
    except BaseException as error:  # also SystemExit, which a file of the user's could raise
        pipe.send((REFUSED, f"{words[0]} cannot be made: {checking.told(error)}"))
        return
    pipe.send((READY, None))
    for one in checking.PROPERTIES[first:]:
        pipe.send((FOUND, checking.examine(subject, one)))
