"""Files that are never half-written, locks of folders, canonical JSON and digests."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

TEMPORARY = ".part"
LOCK = ".lock"


class Locked(RuntimeError):
    """Another process works on this folder."""


def canonical(value: object) -> str:
    """Write plain values as JSON with sorted keys and without spaces: equal values, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def short_hash(value: object) -> str:
    """Return the first ten hexadecimal digits of sha256 over the canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:10]


@contextmanager
def lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder for this process; the lock ends with the process, however it ends.

    Args:
        folder: folder of one video; made where it is missing.
        wait: wait for another process instead of raising.

    Raises:
        Locked: where another process holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Locked(f"another process works on {folder}") from None
        yield


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`, with the same ending, and rename it when all went well."""
    part = path.with_name(f".{path.stem}{TEMPORARY}-{os.getpid()}{path.suffix}")
    try:
        yield part
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small file by temporary name and rename."""
    with temporary(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def checkpoint_sha256(files: tuple[Path, ...]) -> str:
    """Digest the files of a checkpoint in order, or say 'absent' where one is missing."""
    if not all(path.is_file() for path in files):
        return "absent"
    return _digest(tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files))


@lru_cache(maxsize=16)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, _, _ in files:
        with Path(path).open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
