"""The judge: what an input may do (pass, or be refused in one sentence) and what it must not."""

from __future__ import annotations

import contextlib
import io
import os
import random
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ff_bench import cli
from ff_bench.errors import UsageError

LONGEST = 4000
"""Signs of a sentence: what a user wrote is cut, what is allowed is told in full."""
CACHE = "cache"
"""Folder that may be written to as well: digests of files, fonts of the library that draws."""
CODES = (cli.OK, cli.FAILED, cli.USAGE)

Run = Callable[[random.Random, Path], None]
"""Reads one odd input; raises what the reader raises."""


class Wrong(AssertionError):
    """What must not happen; the text says what did."""


@dataclass(frozen=True)
class Target:
    """Something that reads what others wrote.

    Attributes:
        name: for the table.
        run: reads one odd input; may write below its folder.
        share: how many of a hundred inputs it gets.
        refusals: what it may raise.
    """

    name: str
    run: Run
    share: float
    refusals: tuple[type[Exception], ...] = (UsageError,)


@dataclass
class Tally:
    """What came of the inputs of one target.

    Attributes:
        inputs: how many were read.
        refused: how many of them were refused.
        wrong: seed of the input and what happened, for each that must not.
    """

    inputs: int = 0
    refused: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)


def judge(target: Target, seed: str, folder: Path, tally: Tally) -> None:
    """Give a target the input of one seed and note what came of it."""
    tally.inputs += 1
    try:
        target.run(random.Random(seed), folder)
    except target.refusals as error:
        tally.refused += 1
        fault = not_a_sentence(str(error))
        if fault:
            tally.wrong.append((seed, f"{fault}: {str(error)[:200]!r}"))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__}: {str(error)[:200]!r} at {Path(place.filename).name}:{place.lineno}"
        tally.wrong.append((seed, told))


def not_a_sentence(told: str) -> str:
    """Say why a text is no sentence for a user; empty where it is one."""
    if not told.strip():
        return "nothing is said"
    if "\n" in told or not told.isprintable():
        return "the sentence has signs that no terminal should get"
    if len(told) > LONGEST:
        return f"the sentence has {len(told)} signs"
    return "the sentence holds a traceback" if "Traceback (most recent" in told else ""


def command(words: list[str]) -> None:
    """Run a command line in this process.

    Raises:
        Wrong: Where it ends otherwise than with a known code, or refuses in anything but one sentence.
        UsageError: With that sentence, where it refuses.
    """
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(words)
    except SystemExit as error:
        raise Wrong(f"{words}: exit {error.code}") from None
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__} {str(error)[:160]!r} at {Path(place.filename).name}:{place.lineno}"
        raise Wrong(f"{str(words)[:300]}: {told}") from error
    told = err.getvalue()
    if code not in CODES or "Traceback" in told + out.getvalue():
        raise Wrong(f"{words}: code {code}, {told[:200]!r}")
    if code == cli.USAGE:
        lines = told.splitlines()
        if len(lines) != 1 or not lines[0].startswith("ff-bench: "):
            raise Wrong(f"{words}: {told[:300]!r} is not one line")
        raise UsageError(lines[0])


def listing(folders: Iterable[Path]) -> dict[str, tuple[int, int]]:
    """Return every file below some folders with its size and time of change, to compare before and after."""
    return {
        os.fspath(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for folder in folders
        for path in folder.rglob("*")
        if not path.is_dir()
    }


@contextlib.contextmanager
def apart(root: Path) -> Iterator[Path]:
    """Work below `root` with a home, a cache and a temporary folder of our own, then put all back.

    Yields:
        The folder that inputs may be written to; it is the working directory.
    """
    names = {"HOME": "home", "TMPDIR": "tmp", "FF_BENCH_CACHE": CACHE, "FF_BENCH_WEIGHTS": "weights"}
    names |= {"MPLCONFIGDIR": CACHE}
    before, here = {name: os.environ.get(name) for name in names}, Path.cwd()
    for name, folder in names.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(root / folder)
    (root / "work").mkdir(exist_ok=True)
    os.chdir(root / "work")
    try:
        yield root / "work"
    finally:
        os.chdir(here)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
