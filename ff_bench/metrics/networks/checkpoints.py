"""Weight files into networks: checked name by name, and a clear sentence where one does not fit."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ff_bench import weights
from ff_bench.errors import Unavailable, shown
from ff_bench.metrics.networks import scripted

State = dict[str, Tensor]
"""Tensors by the name of the parameter they fill; floating ones are float32."""

UNREADABLE = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    SafetensorError,
)
"""What reading a damaged or foreign file raises."""
_SCRIPT = "constants.pkl"
"""A member that TorchScript archives have and plain files of tensors have not."""


def located(name: str) -> tuple[Path, int]:
    """Return the file of a weight and its time of change: what a network in memory is known by.

    Raises:
        Unavailable: where it is not on this machine.
    """
    file = weights.path(name)
    return file, file.stat().st_mtime_ns


def read(file: Path, *inside: str) -> State:
    """Read the tensors of a file that `torch.save` or `torch.jit.save` wrote.

    Args:
        file: Where it lies.
        inside: Keys that lead to the tensors, outermost first.

    Raises:
        Unavailable: where the file is cut short, not of this kind, or has no such key.
    """
    try:
        return tensors(scripted.state_of(file) if _is_script(file) else _pickled(file), *inside)
    except UNREADABLE as error:
        raise unreadable(file, error) from error


def tensors(found: Any, *inside: str) -> State:
    """Keep the tensors of a loaded mapping, floating ones as float32.

    Raises:
        KeyError: where a key is not there.
        ValueError: where there is no mapping.
    """
    for key in inside:
        found = found[key]
    if not isinstance(found, Mapping):
        raise ValueError(f"holds {type(found).__name__}, not tensors by name")
    kept = {name: value.detach() for name, value in found.items() if isinstance(value, Tensor)}
    return {name: value.float() if value.is_floating_point() else value for name, value in kept.items()}


def unreadable(file: Path, error: Exception) -> Unavailable:
    """Build the error of a file that cannot be read."""
    reason = shown((str(error) or type(error).__name__).splitlines()[0])[:160]
    if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
        reason = "it wants to run code when it is opened"
    return Unavailable(f"weights {file} cannot be read ({reason}): ff-bench weights verify")


def fill(network: nn.Module, state: Mapping[str, Tensor], *, file: Path, device: str) -> None:
    """Give a network that was built on the device `meta` its tensors, freeze it and move it.

    Raises:
        Unavailable: where names or shapes differ from those of the network.
    """
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        first = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        text = f"weights {file} are of another network ({first[0][:160]}): ff-bench weights verify"
        raise Unavailable(text) from None
    network.requires_grad_(False).eval().to(device)


def _is_script(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith(_SCRIPT) for name in archive.namelist())


def _pickled(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)
