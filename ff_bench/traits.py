"""What must be known of a policy before torch is imported; a test compares the tables with the classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from importlib.metadata import entry_points
from typing import Any

import policies

PINS: dict[str, dict[str, object]] = {
    "sliding_window": {"sink": 0},
    "attention_sink": {"sink": "1c", "position": "absolute"},
    "streaming_llm": {"sink": "1c", "position": "contiguous"},
    "ema_sink": {"sink": "1c", "position": "contiguous"},
    "rolling_anchor": {"sink": "1c", "position": "absolute"},
    "recompute": {"sink": 0, "position": "contiguous"},
}
"""Protocol fields that are a policy's identity; every other shipped policy pins nothing."""
FULL = ("full", "full_eps")
"""Policies that keep everything whatever the budget."""
NATIVE = "native"
"""The choice that stands for the context rule of the model, whichever policy does it."""


def installed() -> list[str]:
    """Return the names of policies that installed packages offer beside the shipped ones."""
    return sorted(
        point.name for point in entry_points(group=policies.GROUP) if point.name not in policies.POLICIES
    )


def pins(name: str) -> Mapping[str, object]:
    """Return the protocol fields that a policy pins; a policy of the user's is loaded to ask it."""
    if name in policies.POLICIES or name == NATIVE:
        return PINS.get(name, {})
    return dict(policies.load(name).pins)


def is_full(name: str) -> bool:
    """Say whether a policy keeps everything whatever the budget."""
    if name in policies.POLICIES:
        return name in FULL
    return bool(policies.load(name).is_full)


def defaults(name: str) -> dict[str, Any]:
    """Load a policy and return its hyper-parameters with their defaults.

    Raises:
        ValueError: for a field without default, which no command line could fill.
    """
    found = {}
    cls: Any = policies.load(name)
    for field in fields(cls):
        if not field.init:
            continue
        if field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"policy={name}: its field '{field.name}' has no default")
        found[field.name] = field.default_factory() if field.default_factory is not MISSING else field.default
    return found
