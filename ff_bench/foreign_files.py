"""Which files a command line means, and what their names and folders tell of them."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ff_bench import runs
from ff_bench.errors import UsageError, shown
from ff_bench.files import user_path

ENDINGS = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".m2ts", ".wmv", ".flv",
    ".ogv", ".3gp", ".y4m",
)  # fmt: skip
"""Endings of files that a folder is searched for; a file that is named itself may have any."""
NO_NAME = "videos"
_SEED = re.compile(r"(?P<rest>.+)(?:-|_s)(?P<seed>0|[1-9]\d{0,8})")
FIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True)
class Place:
    """One file.

    Attributes:
        path: Absolute.
        root: The folder under which it was found; of a file that was named itself, its own folder.
    """

    path: Path
    root: Path

    @property
    def relative(self) -> str:
        """The path below the root."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def policy(self) -> str:
        """The folders between the root and the file; the root's own name where there are none."""
        between = self.path.parent.relative_to(self.root).as_posix()
        return printable(self.root.name if between == "." else between) or NO_NAME

    @property
    def seed(self) -> int:
        """The number at the end of the name after `-` or `_s`, 0 where there is none."""
        found = _SEED.fullmatch(self.path.stem)
        return int(found["seed"]) if found else 0

    @property
    def id(self) -> str:
        """The name without that number, made fit for files: of equal names equal, of others different."""
        found = _SEED.fullmatch(self.path.stem)
        return name_of(found["rest"] if found else self.path.stem)


@dataclass(frozen=True)
class Found:
    """What the words of a command line mean.

    Attributes:
        places: The files, each once, by folder and name.
        ignored: Files in those folders that are no videos by their ending, or were made and scored by runs.
    """

    places: tuple[Place, ...]
    ignored: int

    @property
    def name(self) -> str:
        """Name of the folder that holds them all."""
        folder = Path(os.path.commonpath([place.root for place in self.places]))
        return printable(folder.name) or NO_NAME


def collect(words: Sequence[str]) -> Found:
    """Find the files that paths mean: files as they are, folders with all below them but what is hidden.

    Raises:
        UsageError: Where a path does not exist, or no video is there.
    """
    places: dict[Path, Place] = {}
    ignored = 0
    for word in words:
        path = Path(os.path.abspath(user_path(word)))
        if not path.exists():
            raise UsageError(f"VIDEOS={shown(word)} is not allowed: there is no such file or folder")
        if path.is_file():
            places.setdefault(path, Place(path, path.parent))
            continue
        for file in _walk(path):
            if _is_video(file):
                places.setdefault(file, Place(file, path))
            else:
                ignored += 1
    if not places:
        asked, endings = shown(" ".join(words)), ", ".join(ENDINGS)
        raise UsageError(f"VIDEOS={asked} is not allowed: no video is there, endings are {endings}")
    return Found(tuple(places.values()), ignored)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, sorted, without hidden ones."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(parent, name)


def _is_video(path: Path) -> bool:
    made_here = path.name in (runs.RECORD, runs.VIDEO) and (path.parent / runs.MANIFEST).is_file()
    return path.suffix.lower() in ENDINGS and not made_here


def name_of(text: str) -> str:
    """Return a text itself where it fits as a name of files, else its plain letters and a digest of it."""
    if FIT.fullmatch(text):
        return text
    return f"{plain(text) or 'video'}-{digest_of(text)}"


def plain(text: str) -> str:
    """Keep the letters, digits, `.`, `_` and `-` of a text, at most 40; signs between them become one `_`."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "_", letters).strip("._-")[:40].strip("._-")


def digest_of(text: str) -> str:
    """Return eight hexadecimal digits of the sha256 of a text; of bytes that are no text, too."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]


def printable(text: str) -> str:
    """Replace signs that no table can show."""
    return "".join(letter if letter.isprintable() else "?" for letter in text).strip()
