"""Files that are never half-written, locks of folders, canonical JSON and digests."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

TEMPORARY = ".part"
LOCK = ".lock"
CACHE = "FF_BENCH_CACHE"
STALE = 24 * 3600.0
"""Seconds after which a temporary file of another machine belongs to nobody."""


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
    part = path.with_name(f".{path.stem}{TEMPORARY}-{_machine()}-{os.getpid()}{path.suffix}")
    try:
        yield part
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def is_under_way(path: Path) -> bool:
    """Say whether a file is one that this process writes under its temporary name."""
    return path.stem.endswith(f"{TEMPORARY}-{_machine()}-{os.getpid()}")


def sweep_up(folder: Path, *, deep: bool = True) -> None:
    """Remove temporary files whose process is gone: killed, or on another machine and older than a day.

    Args:
        folder: where they lie; it need not exist.
        deep: whether folders within are searched as well.
    """
    for path in (folder.rglob if deep else folder.glob)(f".*{TEMPORARY}-*"):
        found = re.search(rf"{re.escape(TEMPORARY)}-([0-9a-f]+)-(\d+)", path.name)
        if found is None:
            continue
        with suppress(OSError):  # its process has just ended well and taken it along
            is_ours = found[1] == _machine()
            if not _is_alive(int(found[2])) if is_ours else time.time() - path.stat().st_mtime > STALE:
                path.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@lru_cache(maxsize=1)
def _machine() -> str:
    """Name this machine in a few letters: numbers of processes are its own."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


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


def user_path(text: str) -> Path:
    """Return a path as a user wrote it, `~` replaced; that of a user who does not exist stays as it is."""
    return Path(os.path.expanduser(text))


def cache_folder() -> Path:
    """Where this package remembers things: the environment's `FF_BENCH_CACHE`, else `~/.cache/ff-bench`."""
    named = os.environ.get(CACHE)
    return user_path(named) if named else Path.home() / ".cache" / "ff-bench"


def file_digest(path: Path, *, again: bool = False) -> str:
    """Return the sha256 (hex) of a file; remembered under the cache folder by path, size and time of change.

    Args:
        path: of a file, often of gigabytes.
        again: read it whatever is remembered.

    Raises:
        FileNotFoundError: where there is no such file.
    """
    remembered = "" if again else known_digest(path)
    if remembered:
        return remembered
    note, before = _note(path)
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    _remember(note, before, found)
    return found


def known_digest(path: Path) -> str:
    """Return the sha256 of a file as it is remembered; empty where it is not, or the file has changed since.

    Raises:
        FileNotFoundError: where there is no such file.
    """
    note, known = _note(path)
    with suppress(OSError, ValueError, TypeError, KeyError):
        remembered = json.loads(note.read_text(encoding="utf-8"))
        if {key: remembered[key] for key in known} == known:
            return str(remembered["sha256"])
    return ""


def remember_digest(path: Path, sha256: str) -> None:
    """Remember the sha256 of a file that was measured under another name."""
    _remember(*_note(path), sha256)


def _note(path: Path) -> tuple[Path, dict[str, object]]:
    """Return where the digest of a file is remembered, and the state of the file that it holds for."""
    real = path.resolve()
    state = real.stat()
    note = cache_folder() / "digests" / f"{hashlib.sha256(str(real).encode()).hexdigest()[:20]}.json"
    return note, {"path": str(real), "size": state.st_size, "mtime_ns": state.st_mtime_ns}


def _remember(note: Path, known: dict[str, object], sha256: str) -> None:
    with suppress(OSError):  # a home that cannot be written costs time, not the run
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(note, canonical({**known, "sha256": sha256}))
