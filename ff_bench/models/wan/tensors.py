"""Tensors of VAE, text encoder and preview: read, renamed by tables, compared with what is expected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ff_bench.errors import UsageError, shown
from ff_bench.models.wan import containers


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a file, or of the safetensors of a folder, without copying them.

    Raises:
        UsageError: where it is missing, damaged, incomplete, or wants to run code.
    """
    return containers.tensors(containers.opened(path))


def json_object(path: Path) -> dict[str, Any]:
    """Read a file of settings that lies beside weights.

    Raises:
        UsageError: where it is no JSON object.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise UsageError(f"{path} is damaged: it is no JSON") from None
    if not isinstance(told, dict):
        raise UsageError(f"{path} is damaged: it holds no JSON object")
    return told


def renamed(weights: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Rename tensors by a table; names that it does not hold stay."""
    return {names.get(name, name): value for name, value in weights.items()}


def refuse_differences(
    expected: Mapping[str, torch.Size], found: Mapping[str, Tensor], *, path: Path, what: str
) -> None:
    """Refuse tensors whose names or shapes are not the expected ones.

    Raises:
        UsageError: with how many differ, and the first of them.
    """
    wrong = sorted(
        name
        for name in expected.keys() | found.keys()
        if name not in found or expected.get(name) != found[name].shape
    )
    if not wrong:
        return
    first = wrong[0]
    wanted = tuple(expected[first]) if first in expected else "none"
    there = tuple(found[first].shape) if first in found else "none"
    raise UsageError(
        f"{path} holds no {what} that fits: {len(wrong)} tensors differ, the first is '{shown(first)}', "
        f"expected {wanted}, found {there}"
    )
