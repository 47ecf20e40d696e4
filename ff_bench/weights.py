"""Weights of the networks that scores rest on: one manifest, one folder, where each file is and its digest.

The manifest is `weights.csv` beside this file. A digest stands in it where a public source states one; the
digest at first sight of every file is kept in `digests.json` of the folder, so that a later change shows.
Knows no torch and opens no connection: `ff_bench/fetching.py` gets files, `ff_bench/weights_command.py` is
the command.
"""

from __future__ import annotations

import csv
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from ff_bench.errors import Unavailable, UsageError, not_one_of
from ff_bench.files import cache_folder, file_digest, known_digest, user_path, write_atomically

FOLDER = "FF_BENCH_WEIGHTS"
MANIFEST = Path(__file__).with_name("weights.csv")
LOCK = "digests.json"
ABSENT, DAMAGED, OTHER = "absent", "damaged", "another file"
UNVERIFIED, VERIFIED = "here unverified", "here verified"
"""States of a file: not here; not whole, or changed; whole, but not the published one (random weights, or
weights of your own); here, but no source states its digest or none was measured yet; here with the digest of
the manifest."""

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "vbench_long": (
        "subject_consistency",
        "background_consistency",
        "temporal_flickering",
        "motion_smoothness",
        "dynamic_degree",
        "aesthetic_quality",
        "imaging_quality",
        "overall_consistency",
    ),
}
"""Metrics whose parts need weights of their own."""


@dataclass(frozen=True)
class Weight:
    """One file of the manifest.

    Attributes:
        name: What signals call it.
        file: Path below the folder of weights.
        url: Where its publisher has it; of an archive where `member` says which file of it is meant.
        bytes: Size of the file; None where no source states it.
        licence: Of the weights, and of the code where that differs.
        noncommercial: Whether the licence forbids commercial use.
        sha256: Its digest, or the first digits of it; empty where no public source states one.
        sha256_source: Who states the digest.
        serves: Metrics, or dimensions of a metric, that need it.
        member: Path in the archive at `url`; empty where `url` is the file itself.
        also: Other names that the file or the archive at `url` has in folders of other programs.
    """

    name: str
    file: str
    url: str = ""
    bytes: int | None = None
    licence: str = "unknown"
    noncommercial: bool = False
    sha256: str = ""
    sha256_source: str = ""
    serves: tuple[str, ...] = ()
    member: str = ""
    also: tuple[str, ...] = ()


@lru_cache(maxsize=1)
def manifest() -> Mapping[str, Weight]:
    """Return every weight file by name."""
    with MANIFEST.open(encoding="utf-8", newline="") as stream:
        return {row["name"]: _read(row) for row in csv.DictReader(stream)}


def folder() -> Path:
    """Where weights lie: the environment's `FF_BENCH_WEIGHTS`, else `weights` of the cache folder."""
    named = os.environ.get(FOLDER)
    return user_path(named) if named else cache_folder() / "weights"


def find(name: str) -> Weight:
    """Return one file of the manifest.

    Raises:
        UsageError: where the manifest has no such name.
    """
    if name not in manifest():
        raise not_one_of("weights", name, manifest())
    return manifest()[name]


def path(name: str) -> Path:
    """Return where a weight file is; looks at its size and, where that is another, at its ends.

    A whole file of another size is returned, as random weights of the true layouts stand in for published
    ones when two programs are compared; `state` tells it apart.

    Raises:
        Unavailable: where it is not on this machine or not whole, with the command that gets it.
        UsageError: where the manifest has no such name.
    """
    weight = find(name)
    found = folder() / weight.file
    if not found.is_file():
        raise Unavailable(f"weights '{name}' are not in {folder()}: ff-bench weights fetch {name}")
    wrong = fault(weight, found)
    if wrong:
        raise Unavailable(f"weights '{name}' are damaged, {found} {wrong}: ff-bench weights fetch {name}")
    return found


def sha256(name: str) -> str:
    """Return the digest of a weight file (hex), or `absent` where it is not on this machine.

    Remembered by path, size and time of change, since these files have up to gigabytes.
    """
    found = folder() / find(name).file
    return file_digest(found) if found.is_file() else ABSENT


def state(name: str) -> str:
    """Say how a weight file is, from what is known without reading it: its size and a digest measured before.

    Returns:
        `ABSENT`, `DAMAGED`, `OTHER`, `UNVERIFIED` or `VERIFIED`.
    """
    weight = find(name)
    found = folder() / weight.file
    return judged(weight, found, known_digest(found)) if found.is_file() else ABSENT


def judged(weight: Weight, found: Path, digest: str) -> str:
    """Compare a file and its digest with the manifest, or with the digest at first sight.

    Args:
        weight: what it should be.
        found: the file.
        digest: its sha256 (hex); empty where none was measured.

    Returns:
        `DAMAGED`, `OTHER`, `UNVERIFIED` or `VERIFIED`.
    """
    if fault(weight, found):
        return DAMAGED
    if size_fault(weight, found):
        return OTHER
    if digest and not digest.startswith(expected(weight)):
        return DAMAGED
    return VERIFIED if digest and weight.sha256 else UNVERIFIED


def expected(weight: Weight) -> str:
    """Return the digest that a file must have: of the manifest, else at first sight, else empty."""
    return weight.sha256 or recorded().get(weight.name, {}).get("sha256", "")


def fault(weight: Weight, found: Path) -> str:
    """Say why a file cannot be whole weights; a file of the right size is not opened.

    Returns:
        The end of a sentence that begins with the file; empty where nothing is wrong.
    """
    other_size = size_fault(weight, found)
    if weight.bytes is not None and not other_size:
        return ""
    return kind_fault(found) or ("" if zipfile.is_zipfile(found) else other_size)


def size_fault(weight: Weight, found: Path) -> str:
    """Say whether a file has another size than the manifest states; as `fault`."""
    size = found.stat().st_size
    return "" if weight.bytes in (None, size) else f"has {size} bytes instead of {weight.bytes}"


def kind_fault(found: Path) -> str:
    """Say by its ends whether a file is cut short, or no weights at all; as `fault`."""
    with found.open("rb") as stream:
        head = stream.read(256)
    if not head:
        return "is empty"
    if head.lstrip().startswith(b"<"):
        return "is a web page, not weights"
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file that it points to"
    if head.startswith(b"PK\x03\x04"):
        return "" if zipfile.is_zipfile(found) else "is cut short"
    return "" if head.startswith(b"\x80") else "is no file of torch and no zip archive"


def recorded() -> dict[str, dict[str, str]]:
    """Read the digests at first sight: by name, what the file was then.

    Raises:
        UsageError: where the note cannot be read.
    """
    note = folder() / LOCK
    try:
        kept = json.loads(note.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        again = "remove it, then ff-bench weights verify"
        raise UsageError(f"{note} cannot be read ({error}): {again}") from None
    if not isinstance(kept, dict) or not all(isinstance(value, dict) for value in kept.values()):
        raise UsageError(f"{note} holds no digests by name: remove it, then ff-bench weights verify")
    return kept


def record(weight: Weight, digest: str, *, size: int, url: str) -> None:
    """Keep the digest of a file at first sight.

    Args:
        weight: the file.
        digest: its sha256 (hex).
        size: its bytes.
        url: where it came from: an address, or a path on this machine.
    """
    entry = {
        "sha256": digest,
        "bytes": str(size),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "url": url,
    }
    kept = json.dumps({**recorded(), weight.name: entry}, indent=1, sort_keys=True, ensure_ascii=False)
    write_atomically(folder() / LOCK, f"{kept}\n")


def _read(row: Mapping[str, str]) -> Weight:
    return Weight(
        name=row["name"],
        file=row["file"],
        url=row["url"],
        bytes=int(row["bytes"]) if row["bytes"] else None,
        licence=row["licence"],
        noncommercial=row["noncommercial"] == "yes",
        sha256=row["sha256"],
        sha256_source=row["sha256_source"],
        serves=tuple(row["serves"].split()),
        member=row["member"],
        also=tuple(row["also"].split()),
    )
