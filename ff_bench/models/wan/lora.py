"""Low-rank updates of the transformer's weights: read, checked, added, written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ff_bench.errors import UsageError, shown
from ff_bench.models.numbers import refuse_formats
from ff_bench.models.wan import containers, layouts

KEY = "generator_lora"
"""Entry of a file that holds the update of the generator, where there is one."""


@dataclass(frozen=True)
class LowRank:
    """An update of one weight, scale * up @ down.

    Attributes:
        down: (r, in), `lora_A` in the file.
        up: (out, r), `lora_B`.
        scale: alpha / r.
    """

    down: Tensor
    up: Tensor
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight that it fits."""
        return (self.up.shape[0], self.down.shape[1])

    def added_to(self, weight: Tensor) -> Tensor:
        """Return the updated weight, float32, where `weight` is."""
        up, down = self.up.to(weight.device).float(), self.down.to(weight.device).float()
        return torch.addmm(weight.float(), up, down, alpha=self.scale)


def read(path: Path) -> dict[str, LowRank]:
    """Read low-rank updates by the original name of their weight.

    Raises:
        UsageError: where the file is damaged, holds no such update, one of a pair is missing, or one that is
            there does not fit the other.
    """
    held = containers.opened(path)
    inner = held.get(KEY)
    found = containers.tensors(inner if isinstance(inner, Mapping) else held)
    sides: dict[str, dict[str, Tensor]] = {}
    for name, value in found.items():
        pair = layouts.lora_pair(name)
        if pair is not None:
            sides.setdefault(pair[0], {})[pair[1]] = value
    if not sides:
        raise UsageError(f"{path} holds no low-rank update, but {shown(', '.join(sorted(found)[:3]))} ...")
    refuse_formats({name: value for name, value in found.items() if not name.endswith(".alpha")}, path)
    odd = sorted(weight for weight, pair in sides.items() if not _is_pair(pair))
    if odd:
        raise UsageError(
            f"{path} is incomplete: {len(odd)} low-rank pairs do not fit, the first is {shown(odd[0])}"
        )
    alphas = {name: value for name, value in found.items() if name.endswith(".alpha")}
    several = [name for name, value in alphas.items() if value.numel() != 1]
    if several:
        raise UsageError(f"{path} does not fit: {shown(several[0])} is more than one number")
    named = {
        f"{layouts.unwrapped(name.removesuffix('.alpha'))}.weight": float(value)
        for name, value in alphas.items()
    }
    return {
        weight: LowRank(pair["A"], pair["B"], named.get(weight, len(pair["A"])) / len(pair["A"]))
        for weight, pair in sides.items()
    }


def _is_pair(pair: Mapping[str, Tensor]) -> bool:
    """Say whether both sides are there, are matrices, and have one rank."""
    if len(pair) < 2 or pair["A"].ndim != 2 or pair["B"].ndim != 2:
        return False
    return pair["A"].shape[0] == pair["B"].shape[1]


def check_fit(updates: Mapping[str, LowRank], expected: Mapping[str, Tensor], path: Path) -> None:
    """Raise unless every update is of a weight that there is.

    Args:
        updates: by the original name of their weight.
        expected: tensors of the right shapes by their original names.
        path: of the file, for the error.

    Raises:
        UsageError: naming the first weight that does not fit.
    """
    for weight in sorted(updates):
        found, target = updates[weight].shape, tuple(expected[weight].shape) if weight in expected else None
        if target is None:
            raise UsageError(f"{path} does not fit: it updates {weight}, which the transformer does not have")
        if found != target:
            raise UsageError(f"{path} does not fit: its update of {weight} is {found}, the weight {target}")


def write(path: Path, updates: Mapping[str, LowRank]) -> None:
    """Write low-rank updates in the names of PEFT: the inverse of `read`.

    Args:
        path: of the `.pt` file.
        updates: by the original name of their weight; PEFT writes no alpha, so that each `scale` must be 1.
    """
    assert all(update.scale == 1 for update in updates.values()), "scale"
    sides = {
        layouts.lora_name(weight, side): value
        for weight, update in updates.items()
        for side, value in (("A", update.down), ("B", update.up))
    }
    torch.save({KEY: sides}, path)
