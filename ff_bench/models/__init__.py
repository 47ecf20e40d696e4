"""Backbones by architecture: one explicit table, then installed entry points (group ``ff_bench.models``)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from ff_bench.errors import UsageError
from ff_bench.models.facts import GROUP

if TYPE_CHECKING:
    import torch

    from ff_bench.config import ModelConfig
    from ff_bench.models.base import Model

LOADERS = {"mini": "ff_bench.models.mini.backbone", "wan": "ff_bench.models.wan.backbone"}
"""Module of each architecture that has `load`; imported where a model is loaded."""


def prepare(
    config: ModelConfig, prompts: Sequence[str], *, device: torch.device | str, dtype: torch.dtype
) -> None:
    """Do once, before the first video of a run, what an architecture has to do for its prompts, if anything.

    Args:
        config: the model as configured.
        prompts: texts of the run.
        device: where to.
        dtype: number format of weights and cache.

    Raises:
        FileNotFoundError: where files are missing.
        UsageError: where they do not fit.
    """
    if config.architecture not in LOADERS:
        return
    module: Any = importlib.import_module(LOADERS[config.architecture])
    if hasattr(module, "prepare"):
        module.prepare(config.fields, prompts, device=device, dtype=dtype)


def load(config: ModelConfig, *, device: torch.device | str, dtype: torch.dtype) -> Model:
    """Load a model with its weights.

    Args:
        config: the model as configured, `compose([...]).config.model`.
        device: where to.
        dtype: number format of weights and cache.

    Raises:
        FileNotFoundError: where weights are missing; the sentence says how to get them.
        ValueError: where they do not fit.
    """
    name = config.architecture
    if name in LOADERS:
        module: Any = importlib.import_module(LOADERS[name])
        model: Model
        if name == "mini":
            model = module.load(config.facts.weights, name=config.name, device=device, dtype=dtype)
            _check_size(model, config)
        else:
            model = module.load(config.fields, device=device, dtype=dtype)
        return model
    found = next(point for point in entry_points(group=GROUP) if point.name == name).load()
    own: Model = found.load(config.fields, device=device, dtype=dtype)
    return own


def _check_size(model: Model, config: ModelConfig) -> None:
    """Refuse a checkpoint that lacks whole layers or heads of the model that it is told to be."""
    names = ("layers", "heads", "head_dim")
    found, told = ([getattr(facts, name) for name in names] for facts in (model.facts, config.facts))
    if found != told:
        raise UsageError(
            f"weights of the model '{config.name}' do not fit: they have {found[0]} layers of {found[1]} "
            f"heads of {found[2]} channels, the model {told[0]} of {told[1]} of {told[2]}"
        )
