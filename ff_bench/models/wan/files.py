"""Where the files of a model are, on this machine or in the cache of the Hugging Face hub; their digests.

Nothing is downloaded unless it is asked for. Knows no torch, so that plans and checks stay quick.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ff_bench.errors import UsageError
from ff_bench.files import cache_folder as cache_folder
from ff_bench.files import file_digest, user_path
from ff_bench.libraries import mend_torchvision

if TYPE_CHECKING:
    from ff_bench.models.wan.member import Source

ABSENT = "absent"
INSTALL = "pip install 'ff-bench[wan]'"


def library(name: str, *, purpose: str) -> Any:
    """Import a library of the extra `wan`.

    Args:
        name: of the module.
        purpose: what it is needed for, such as `the VAE needs`.

    Raises:
        UsageError: where it is not installed, with the command that installs it.
    """
    if name.partition(".")[0] in ("diffusers", "transformers"):  # the others do not import torchvision
        mend_torchvision()
    try:
        return import_module(name)
    except ImportError as error:
        absent = error.name or name
        raise UsageError(f"{purpose} the library '{absent}', which is not installed: {INSTALL}") from None


def command(source: Source) -> str:
    """Return the command that gets a file or folder from the hub."""
    if not source.file:
        return f"hf download {source.repo}"
    wanted = f'--include "{source.file}/*"' if is_folder(source) else source.file
    return f"hf download {source.repo} {wanted}"


def is_folder(source: Source) -> bool:
    """Say whether a source on the hub is a folder: it has no ending, or is the whole repository."""
    return not Path(source.file).suffix


def locate(source: Source, *, what: str, fetch: bool = False) -> Path:
    """Find a file or folder.

    Args:
        source: a path on this machine; without one, a file of the hub that is looked for in its cache.
        what: what it is, for the error: `weights of self_forcing`.
        fetch: download what the cache lacks. The environment's `HF_HUB_OFFLINE` forbids that.

    Returns:
        The path of the file or folder, which exists.

    Raises:
        FileNotFoundError: which file, where it was looked for, and the command that gets it.
        UsageError: where the library of the hub is missing, or the repository cannot be one.
    """
    if source.path is not None:
        path = user_path(source.path)
        if path.exists():
            return path
        hint = f"; get it with '{command(source)}' and name where it lies" if source.repo else ""
        raise FileNotFoundError(f"{what} are missing: there is no {path}{hint}")
    if not source.repo:
        raise FileNotFoundError(f"{what} are missing: neither a path nor a repository of the hub is named")
    found = _in_hub(source, fetch=fetch)
    if found is None:
        raise FileNotFoundError(
            f"{what} are missing: {source.file or 'the files'} of {source.repo} "
            f"{'is' if source.file else 'are'} not in the hub's cache {_hub_cache()}; "
            f"get {'it' if source.file else 'them'} with '{command(source)}'"
        )
    return found


def _in_hub(source: Source, *, fetch: bool) -> Path | None:
    """Look in the hub's cache; the newest known revision of `main` counts."""
    hub = library("huggingface_hub", purpose=f"files of {source.repo} need")
    patterns = [f"{source.file}/*"] if source.file else None
    try:
        if not is_folder(source):
            return Path(hub.hf_hub_download(source.repo, source.file, local_files_only=not fetch))
        root = Path(hub.snapshot_download(source.repo, allow_patterns=patterns, local_files_only=not fetch))
    except (hub.errors.EntryNotFoundError, hub.errors.OfflineModeIsEnabled):
        return None
    except hub.errors.HFValidationError as error:
        raise UsageError(f"repo={source.repo} is no repository of the hub: {error}") from None
    folder = root / source.file
    return folder if folder.is_dir() and any(folder.iterdir()) else None


def _hub_cache() -> Path:
    return Path(library("huggingface_hub.constants", purpose="files of the hub need").HF_HUB_CACHE)


def digest(path: Path) -> str:
    """Return the sha256 (hex) of a file, or of the names and digests of a folder's files.

    A digest is remembered under the cache folder by path, size and time of change, since these files have
    gigabytes; hidden files of a folder do not count.

    Raises:
        FileNotFoundError: where there is no such file or folder.
    """
    if path.is_dir():
        lines = [f"{file.relative_to(path).as_posix()} {file_digest(file)}\n" for file in _files(path)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    return file_digest(path)


def digest_of(source: Source) -> str:
    """Return the digest of a source, or `absent` where it is not on this machine."""
    try:
        return digest(locate(source, what="files"))
    except (FileNotFoundError, UsageError):
        return ABSENT


def joined(digests: Sequence[str]) -> str:
    """Digest several digests together; one stands for itself, and one that is `absent` for all."""
    if ABSENT in digests:
        return ABSENT
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    """List the files of a folder, sorted by their names."""
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            yield path
