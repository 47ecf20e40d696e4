"""How a weight file comes into its folder: from its publisher, or from a folder of another program.

A file gets its name only after its size, kind and digest were checked; what stood there before stays until
then.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ff_bench import files, weights
from ff_bench.download import Failed, Opener, Progress, download, over_https
from ff_bench.weights import Weight

DEPTH = 8
"""Levels of folders below which nothing is looked for."""


def fetch(weight: Weight, *, opener: Opener = over_https, progress: Progress) -> Path:
    """Get a file from its publisher; a download that was cut short goes on.

    Args:
        weight: the file.
        opener: opens an address.
        progress: is told how far it is, in bytes.

    Returns:
        Where the file is.

    Raises:
        Failed: why it is not, with the address and where to put it by hand.
    """
    target = weights.folder() / weight.file
    part = weights.folder() / f".{weight.name}{files.TEMPORARY}"
    try:
        with files.lock(weights.folder()):
            size = None if weight.member else weight.bytes
            download(weight.url, part, size=size, opener=opener, progress=progress)
            try:
                _install(weight, part, source=weight.url, move=True)
            finally:  # what was got whole and is wrong must not be gone on with
                part.unlink(missing_ok=True)
    except (Failed, files.Locked, OSError) as error:
        raise Failed(f"{weight.name} is not fetched from {weight.url}: {error}; {_by_hand(weight)}") from None
    return target


def copy(weight: Weight, folder: Path) -> Path:
    """Copy a file from a folder, by the names that it has in the caches of VBench, torch hub and CLIP.

    Args:
        weight: the file.
        folder: where to look, with what lies below it.

    Returns:
        Where the file was found.

    Raises:
        Failed: where it is not there, or what is there is something else.
    """
    wrong = []
    for found in candidates(weight, folder):
        try:
            with files.lock(weights.folder()):
                _install(weight, found, source=str(found))
        except (Failed, files.Locked, OSError) as error:
            wrong.append(f"{found}: {error}")
            continue
        return found
    names = " or ".join(_names(weight))
    raise Failed(f"{weight.name} is not copied: " + ("; ".join(wrong) or f"there is no {names} in {folder}"))


def candidates(weight: Weight, folder: Path) -> Iterator[Path]:
    """Find files that can be a weight file or its archive: by name, those of the right size first."""
    found = []
    for root, folders, names in os.walk(folder):
        folders.sort()
        if len(Path(root).relative_to(folder).parts) >= DEPTH:
            folders.clear()
        found += [Path(root) / name for name in _names(weight) if name in names]
    own = (weights.folder() / weight.file).resolve()
    others = [path for path in found if path.is_file() and path.resolve() != own]
    yield from sorted(others, key=lambda path: path.stat().st_size != weight.bytes)


def _names(weight: Weight) -> list[str]:
    return list(dict.fromkeys((Path(weight.file).name, weight.url.rpartition("/")[2], *weight.also)))


def _install(weight: Weight, came: Path, *, source: str, move: bool = False) -> None:
    """Check what came and give it its name.

    Raises:
        Failed: where it is not the file of the manifest.
    """
    target = weights.folder() / weight.file
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.temporary(target) as made:
        if weight.member and came.name != target.name:
            _extract(weight, came, made)
        elif move:
            came.replace(made)
        else:
            shutil.copyfile(came, made)
        wrong = weights.kind_fault(made) or weights.size_fault(weight, made)
        if wrong:
            raise Failed(f"what came {wrong}")
        digest = files.file_digest(made, again=True)
        wanted = weights.expected(weight)
        if not digest.startswith(wanted):
            raise Failed(f"what came has sha256 {digest} instead of {wanted}, {_stated(weight)}")
    files.remember_digest(target, digest)
    weights.record(weight, digest, size=target.stat().st_size, url=source)


def _extract(weight: Weight, archive: Path, made: Path) -> None:
    wrong = weights.kind_fault(archive)
    if wrong:
        raise Failed(f"what came {wrong}")
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(weight.member) as member, made.open("wb") as out:
            shutil.copyfileobj(member, out)
    except KeyError:
        raise Failed(f"the archive has no {weight.member}") from None
    except zipfile.BadZipFile as error:
        raise Failed(f"the archive is damaged ({error})") from None


def _stated(weight: Weight) -> str:
    note = weights.folder() / weights.LOCK
    return weight.sha256_source or f"its digest at first sight: remove it from {note} to take another file"


def _by_hand(weight: Weight) -> str:
    """Say how to get the file without this program."""
    target = weights.folder() / weight.file
    what = f"{weight.member} of it" if weight.member else "it"
    return f"put {what} by hand at {target}, or copy it with ff-bench weights fetch {weight.name} --from DIR"
