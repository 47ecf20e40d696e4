"""Torture a sweep: kill it at random moments, start it again until it is complete, compare its rows.

    python scripts/kill_sweep.py --prompts 4 --kills 5

runs four policies × two budgets on very short videos of `mini`, once undisturbed and once with SIGKILL, in
turn to the whole process group and to the parent alone. It says of each kill when it came and what was done
by then, and fails unless in the end the rows are equal (all but cost, columns before provenance), no
half-written file is left, every cell was computed once, and no process outlives its sweep. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ff_bench import records, runs

if TYPE_CHECKING:
    import pandas

WORDS = (
    "-m", "policy=full,random,h2o,sliding_window", "budget=6f,7f", "length=9f", "steps=1",
    "protocol.prefix=none", "metrics=[flicker,fidelity,cost]", "stages=[generate,score]", "device=cpu",
)  # fmt: skip
CLIENT = "import sys; from ff_bench.cli import main; sys.exit(main())"
GRACE = 2.0
"""Seconds after which nothing of a killed sweep may be alive."""


@dataclass(frozen=True)
class Done:
    """How far a sweep has come: finished videos and finished (video, metric) cells."""

    videos: int
    cells: int


def main(words: Sequence[str] | None = None) -> int:
    """Run the torture; 0 where all is well."""
    options = _options(words)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    with TemporaryDirectory(prefix="kill-sweep-") as name:
        folder = Path(name)
        command = [sys.executable, "-c", CLIENT, *WORDS, f"limit={options.prompts}", *options.more]
        began = time.monotonic()
        undisturbed = finish(command, folder / "undisturbed")
        seconds = time.monotonic() - began
        whole = count(folder / "undisturbed")
        print(f"undisturbed: {whole.videos} videos, {whole.cells} cells in {seconds:.1f} s", flush=True)
        began = time.monotonic()
        kills = torture(command, folder / "killed", whole, kills=options.kills, seed=seed)
        killed = finish(command, folder / "killed")
        found = {
            "seed": seed, "kills": kills, "seconds": round(time.monotonic() - began, 1),
            "videos": whole.videos, "cells": whole.cells, **verdict(folder, whole),
            "exit": [undisturbed, killed],
        }  # fmt: skip
    print(json.dumps(found))
    good = found["rows_equal"] and not found["parts"] and not found["twice"] and not found["orphans"]
    return 0 if good and found["exit"] == [0, 0] and kills >= options.kills else 1


def torture(command: Sequence[str], out: Path, whole: Done, *, kills: int, seed: int) -> int:
    """Start a sweep and kill it, `kills` times, each after some more work and at a random moment.

    Returns:
        How often it was killed while it ran.
    """
    draw = random.Random(seed)
    share = (whole.videos + whole.cells) // (kills + 1)
    happened = 0
    for number in range(20 * kills):
        if happened == kills:
            break
        before = count(out)
        goal = before.videos + before.cells + draw.randint(0, share)
        process, began = start(command, out), time.monotonic()
        while process.poll() is None and sum_of(count(out)) < goal:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.8))
        if process.poll() is not None:
            continue
        alone = number % 2 == 1
        _kill(process, alone=alone)
        happened += 1
        now, whom = count(out), "parent" if alone else "group"
        print(
            f"kill {happened}: {whom} after {time.monotonic() - began:.1f} s, "
            f"{now.videos}/{whole.videos} videos, {now.cells}/{whole.cells} cells",
            flush=True,
        )
    return happened


ORPHANS: list[str] = []


def _kill(process: subprocess.Popen[bytes], *, alone: bool) -> None:
    """Kill a sweep, the whole group of processes or the parent alone."""
    if alone:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _note_orphans(process.pid)


def _note_orphans(leader: int) -> None:
    """Note what of a sweep that has ended is still alive after a grace."""
    until = time.monotonic() + GRACE
    while session(leader) and time.monotonic() < until:
        time.sleep(0.05)
    for number in session(leader):
        with suppress(OSError):
            told = Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            ORPHANS.append(told)


def start(command: Sequence[str], out: Path) -> subprocess.Popen[bytes]:
    """Start a sweep in a session of its own, so that its processes can be told."""
    log = out.parent / f"{out.name}.log"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("ab") as stream:
        return subprocess.Popen(
            [*command, f"runs_dir={out}"],
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env=environment,
        )


def finish(command: Sequence[str], out: Path) -> int:
    """Run a sweep to its end and return its exit code; what it says is shown where that is not 0."""
    process = start(command, out)
    code = process.wait()
    if code:
        print((out.parent / f"{out.name}.log").read_text(errors="replace"), file=sys.stderr)
    _note_orphans(process.pid)
    return code


def session(leader: int) -> list[int]:
    """List the living processes of a session (Linux)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, number = path.read_text().rpartition(") ")[2].split(" ")[:4]
        except OSError:
            continue
        if int(number) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found


def count(out: Path) -> Done:
    """Count what is finished."""
    videos = sum(1 for _ in out.rglob(runs.MANIFEST))
    return Done(videos, sum(len(records.marks_of(path.parent)) for path in out.rglob(runs.ROWS)))


def sum_of(done: Done) -> int:
    """Add videos and cells."""
    return done.videos + done.cells


def rows_below(out: Path) -> pandas.DataFrame:
    """Return what must be equal of the rows of a sweep."""
    return records.strip_provenance(records.table(sorted(path.parent for path in out.rglob(runs.ROWS))))


def verdict(folder: Path, whole: Done) -> dict[str, object]:
    """Compare the sweep that was killed with the undisturbed one."""
    tables = [rows_below(folder / name) for name in ("undisturbed", "killed")]
    ended: Counter[tuple[str, str]] = Counter()
    for path in (folder / "killed").rglob(runs.ROWS):
        ended.update((str(path), item["done"]) for item in records.read(path) if "done" in item)
    return {
        "rows": len(tables[1]), "rows_equal": bool(len(tables[0])) and tables[0].equals(tables[1]),
        "complete": count(folder / "killed") == whole, "twice": sum(times > 1 for times in ended.values()),
        "parts": sum(1 for _ in folder.rglob("*.part*")), "orphans": ORPHANS,
    }  # fmt: skip


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, help="of the moments; printed where it is drawn")
    parser.add_argument("more", nargs="*", default=[], help="further overrides")
    options = parser.parse_args(words)
    options.more = options.more or ["hydra/launcher=gpus", "hydra.launcher.slots=2"]
    return options


if __name__ == "__main__":
    sys.exit(main())
