"""Prompt sets that papers use: one manifest, one folder, where each file is and whether it is the right one.

The manifest is `prompt_sets.csv` beside this file. The texts are other people's and are fetched, not shipped;
each file has one digest, whichever address it came from. A set may be lines of another one (`of`, `places`).
Opens no connection: `ff_bench/prompt_fetching.py` gets files, `ff_bench/prompts_command.py` is the command.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ff_bench.errors import UsageError
from ff_bench.files import cache_folder, user_path

FOLDER = "FF_BENCH_PROMPTS"
MANIFEST = Path(__file__).with_name("prompt_sets.csv")
ABSENT, OTHER, HERE = "absent", "another file", "here"
"""States of a set: its file is not on this machine; it is another file; it is here with the right digest."""


@dataclass(frozen=True)
class Listed:
    """One set of the manifest.

    Attributes:
        name: What the user writes.
        prompts: How many lines it has.
        sha256: Digest of its file (hex); empty where it is lines of another set.
        urls: Addresses of its file, tried in order; only the digest decides what is taken.
        source: Repository, commit and path.
        licence: Of that repository.
        about: What the lines are.
        of: The set whose lines it takes; empty where it has a file of its own.
        places: Which lines of that set, from 0.
    """

    name: str
    prompts: int
    sha256: str
    urls: tuple[str, ...]
    source: str
    licence: str
    about: str
    of: str = ""
    places: tuple[int, ...] = ()


@lru_cache(maxsize=1)
def manifest() -> Mapping[str, Listed]:
    """Return every set by name."""
    with MANIFEST.open(encoding="utf-8", newline="") as stream:
        return {row["name"]: _read(row) for row in csv.DictReader(stream)}


def folder() -> Path:
    """Where these files lie: the environment's `FF_BENCH_PROMPTS`, else `prompts` of the cache folder."""
    named = os.environ.get(FOLDER)
    return user_path(named) if named else cache_folder() / "prompts"


def base(name: str) -> Listed:
    """Return the set whose file holds the lines of a set: itself, or the one that it takes them from."""
    own = manifest()[name]
    return manifest()[own.of] if own.of else own


def place(name: str) -> Path:
    """Return where the file of a set is, or would be."""
    return folder() / f"{base(name).name}.txt"


def state(name: str) -> str:
    """Read the file of a set and say what it is: `ABSENT`, `OTHER` or `HERE`."""
    found = place(name)
    if not found.is_file():
        return ABSENT
    return HERE if digest(found) == base(name).sha256 else OTHER


def path(name: str) -> Path:
    """Return the file of a set after its digest was checked.

    Raises:
        UsageError: where it is not here or another file, with the command that gets it.
    """
    found, what = place(name), state(name)
    if what == ABSENT:
        raise UsageError(
            f"prompts={name} is not on this machine: ff-bench prompts fetch {name} gets it, of "
            f"{base(name).source}"
        )
    if what == OTHER:
        raise UsageError(
            f"prompts={name} is not allowed: {found} has sha256 {digest(found)} instead of "
            f"{base(name).sha256}, remove it, then ff-bench prompts fetch {name}"
        )
    return found


def digest(found: Path) -> str:
    """Return the sha256 (hex) of a file of prompts, which is small."""
    return hashlib.sha256(found.read_bytes()).hexdigest()


def _read(row: Mapping[str, str]) -> Listed:
    return Listed(
        name=row["name"],
        prompts=int(row["prompts"]),
        sha256=row["sha256"],
        urls=tuple(row["urls"].split()),
        source=row["source"],
        licence=row["licence"],
        about=row["about"],
        of=row["of"],
        places=tuple(int(number) for number in row["places"].split()),
    )
