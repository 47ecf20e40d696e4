"""How a file of prompts comes into its folder: from one of its addresses, or from a folder of the user's.

A file gets its name only after its digest was checked; what stood there before stays until then.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ff_bench import files, prompt_sets
from ff_bench.download import Failed, Opener, Progress, download, over_https
from ff_bench.prompt_sets import Listed

DEPTH = 8
"""Levels of folders below which nothing is looked for."""


def fetch(listed: Listed, *, opener: Opener = over_https, progress: Progress) -> str:
    """Get a file from the first of its addresses that has it; a download that was cut short goes on.

    Args:
        listed: a set with a file of its own.
        opener: opens an address.
        progress: is told how far it is, in bytes.

    Returns:
        The address that it came from.

    Raises:
        Failed: why no address has it, and where to put it by hand.
    """
    wrong = []
    try:
        with files.lock(prompt_sets.folder()):
            for url in listed.urls:
                try:
                    _from(url, listed, opener=opener, progress=progress)
                except Failed as error:
                    wrong.append(f"{url}: {error}")
                    continue
                return url
    except (files.Locked, OSError) as error:
        wrong.append(str(error))
    raise Failed(
        f"{listed.name} is not fetched ({'; '.join(wrong)}); copy it with ff-bench prompts fetch "
        f"{listed.name} --from DIR, or put it by hand at {prompt_sets.place(listed.name)}"
    )


def copy(listed: Listed, folder: Path) -> Path:
    """Copy a file from a folder, such as a checkout of its repository; the digest decides which one it is.

    Args:
        listed: a set with a file of its own.
        folder: where to look, with what lies below it.

    Returns:
        Where the file was found.

    Raises:
        Failed: where it is not there.
    """
    wrong = []
    for found in candidates(listed, folder):
        try:
            with files.lock(prompt_sets.folder()):
                _install(listed, found)
        except (Failed, files.Locked, OSError) as error:
            wrong.append(f"{found}: {error}")
            continue
        return found
    names = " or ".join(_names(listed))
    raise Failed(f"{listed.name} is not copied: " + ("; ".join(wrong) or f"there is no {names} in {folder}"))


def candidates(listed: Listed, folder: Path) -> Iterator[Path]:
    """Find files that can be a set by their name: ours, or the one in its repository."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        if len(Path(root).relative_to(folder).parts) >= DEPTH:
            folders.clear()
        yield from (Path(root) / name for name in _names(listed) if name in names)


def _names(listed: Listed) -> list[str]:
    return list(dict.fromkeys([f"{listed.name}.txt", *(url.rpartition("/")[2] for url in listed.urls)]))


def _from(url: str, listed: Listed, *, opener: Opener, progress: Progress) -> None:
    part = prompt_sets.folder() / f".{listed.name}{files.TEMPORARY}"
    download(url, part, size=None, opener=opener, progress=progress)
    try:
        _install(listed, part)
    finally:  # what was got whole and is wrong must not be gone on with
        part.unlink(missing_ok=True)


def _install(listed: Listed, came: Path) -> None:
    """Check what came and give it its name.

    Raises:
        Failed: where it is not the file of the manifest.
    """
    target = prompt_sets.place(listed.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.temporary(target) as made:
        shutil.copyfile(came, made)
        found = prompt_sets.digest(made)
        if found != listed.sha256:
            raise Failed(f"what came has sha256 {found} instead of {listed.sha256}")
