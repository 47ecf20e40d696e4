"""The kinds of files that hold weights: opened without reading their tensors, written, refused if damaged."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ff_bench.errors import UsageError, shown

INDEX = "*.safetensors.index.json"
STEM = "diffusion_pytorch_model"
BROKEN = (
    RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError, OSError,
    struct.error,
)  # fmt: skip
"""What torch raises over a damaged file, by where the damage is."""


def opened(path: Path) -> dict[str, Any]:
    """Open a file or folder; tensors stay on the disk until they are copied.

    Args:
        path: of a pickle of torch, of a `.safetensors`, or of a folder of safetensors shards.

    Raises:
        UsageError: where it is missing, damaged, incomplete, or wants to run code.
    """
    if path.is_dir():
        return _shards(path)
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    held = _safetensors(path) if path.suffix == ".safetensors" else _pickle(path)
    if not isinstance(held, Mapping):
        raise UsageError(f"{path} holds a {type(held).__name__}, not tensors by name")
    return {str(name): value for name, value in held.items()}


def tensors(held: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what is a tensor of the entries of a file."""
    return {str(name): value for name, value in held.items() if isinstance(value, Tensor)}


def write_folder(folder: Path, named: Mapping[str, Tensor], *, shards: int) -> None:
    """Write tensors as a folder of safetensors files with their index, in the way of diffusers.

    Args:
        folder: made where it is missing.
        named: contiguous tensors by name.
        shards: how many files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(named)
    files = [f"{STEM}-{number + 1:05d}-of-{shards:05d}.safetensors" for number in range(shards)]
    where = {name: files[index % shards] for index, name in enumerate(names)}
    for file in files:
        save_file({name: named[name] for name in names if where[name] == file}, folder / file)
    total = sum(value.nbytes for value in named.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / f"{STEM}.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")


def _pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error) or "global" in str(error):
            raise UsageError(
                f"{path} wants to run code when it is opened and is not read: allowed are files of tensors "
                "alone, such as .safetensors"
            ) from None
        raise _damaged(path) from None
    except BROKEN:
        raise _damaged(path) from None


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        found: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError, LookupError):
        raise _damaged(path) from None
    return found


def _shards(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of a folder: those of its index, else of every safetensors file in it."""
    inner = folder / "transformer"
    if inner.is_dir():
        folder = inner
    files = sorted(folder.glob("*.safetensors"))
    for index in sorted(folder.glob(INDEX))[:1]:
        files = [folder / name for name in _indexed(index)]
    if not files:
        raise UsageError(f"{folder} holds no .safetensors file")
    found: dict[str, Tensor] = {}
    for file in files:
        if not file.is_file():
            raise UsageError(f"{folder} is incomplete: its index names {file.name}, which is not there")
        held = _safetensors(file)
        twice = sorted(found.keys() & held.keys())
        if twice:
            raise UsageError(
                f"{folder} does not fit: {shown(twice[0])} is in two of its files, {file.name} is one"
            )
        found |= held
    return found


def _indexed(index: Path) -> list[str]:
    """Return the names of the files that an index lists; it must not lead out of its folder."""
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise _damaged(index) from None
    for name in named:
        is_plain = isinstance(name, str) and PurePosixPath(name).name == name and "\\" not in name
        if not is_plain or name in ("", ".."):
            raise UsageError(
                f"{index} is not allowed: it names {shown(name)}, allowed are names of files beside it"
            )
    return sorted(named)


def _damaged(path: Path) -> UsageError:
    return UsageError(f"{path} is damaged or cut short ({path.stat().st_size} bytes): get it again")
