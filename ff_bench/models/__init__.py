"""Backbones by name: one explicit table, then installed entry points (group ``ff_bench.models``)."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from ff_bench.models.facts import facts

if TYPE_CHECKING:
    import torch

    from ff_bench.models.base import Model

LOADERS = {"mini": "ff_bench.models.mini.backbone:load"}
GROUP = "ff_bench.models"


def load(name: str, *, device: torch.device | str, dtype: torch.dtype) -> Model:
    """Load a model with the weights that its facts name.

    Args:
        name: of the model.
        device: where to.
        dtype: number format of weights and cache.

    Raises:
        FileNotFoundError: where weights are missing; the sentence says how to get them.
        ValueError: where they do not fit, or the name is unknown.
    """
    for entry in entry_points(group=GROUP):
        if entry.name == name and name not in LOADERS:
            found: Model = entry.load()(device=device, dtype=dtype)
            return found
    known = facts(name)
    module, _, attribute = LOADERS[name].partition(":")
    load_files = getattr(importlib.import_module(module), attribute)
    model: Model = load_files(known.weights, device=device, dtype=dtype)
    return model
