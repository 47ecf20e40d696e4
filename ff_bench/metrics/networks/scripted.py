"""The tensors of a TorchScript archive, read without loading its code: none of it can run."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DTYPES: Mapping[str, torch.dtype] = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip


class Module:
    """What a module of the archive holds, without what it does."""

    def __init__(self, *_: object) -> None:
        """Hold nothing yet."""
        self.held: Mapping[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        """Take the attributes."""
        self.held = state if isinstance(state, Mapping) else {}


def state_of(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a TorchScript archive by the names that its modules give them.

    Raises:
        UnpicklingError: where the archive names anything but modules and tensors.
        BadZipFile, KeyError: where it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        with archive.open(name) as stream:
            found = _Reader(stream, archive, name.partition("/")[0]).load()
    return dict(_named(found, ""))


def _named(held: object, prefix: str) -> list[tuple[str, Tensor]]:
    if isinstance(held, Tensor):
        return [(prefix, held)]
    if not isinstance(held, Module):
        return []
    inner = ((f"{prefix}.{key}" if prefix else str(key), value) for key, value in held.held.items())
    return [pair for name, value in inner for pair in _named(value, name)]


class _Reader(pickle.Unpickler):
    """Knows modules, tensors and lists of plain values; everything else is refused."""

    def __init__(self, stream: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(stream)
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name of the archive."""
        if module.startswith("__torch__"):
            return Module
        if module == "torch" and name in _DTYPES:
            return name
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch.jit._pickle" and (name.startswith("build_") or name == "restore_type_tag"):
            return _listed
        raise pickle.UnpicklingError(f"the global {module}.{name} is no tensor")

    def persistent_load(self, told: Any) -> Tensor:
        """Read the numbers of a storage, flat."""
        kind, dtype, key, _, _ = told
        if kind != "storage":
            raise pickle.UnpicklingError(f"{kind} is no tensor")
        content = bytearray(self._archive.read(f"{self._root}/data/{key}"))
        numbers = torch.empty(0, dtype=_DTYPES[dtype])
        return torch.frombuffer(content, dtype=_DTYPES[dtype]) if content else numbers


def _listed(items: Any, *_: object) -> Any:
    return items


def _tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    return storage.as_strided(size, stride, offset).clone()
