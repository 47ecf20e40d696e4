"""What must be known of a policy before torch is imported; a test compares the tables with the classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib.metadata import entry_points
from typing import Any

import policies
from ff_bench.errors import UsageError
from ff_bench.errors import told as told_of

PINS: dict[str, dict[str, object]] = {
    "sliding_window": {"sink": 0},
    "attention_sink": {"sink": "1c", "position": "absolute"},
    "streaming_llm": {"sink": "1c", "position": "contiguous"},
    "ema_sink": {"sink": "1c", "position": "contiguous"},
    "rolling_anchor": {"sink": "1c", "position": "absolute"},
    "recompute": {"sink": 0, "position": "contiguous"},
    "infinity_rope": {"sink": "1f", "position": "contiguous"},
    "deep_forcing": {
        "sink": "10f",
        "recent": "4f",
        "passes": "all",
        "share": "layer",
        "position": "contiguous",
    },
    "memrope": {"sink": "3f", "position": "contiguous"},
    "rolling_sink": {"sink": 0, "recent": "1c", "unit": "frame", "position": "absolute"},
    "forcing_kv": {
        "sink": "1f",
        "recent": "1f",
        "unit": "token",
        "share": "head",
        "position": "absolute",
    },
    "dummy_forcing": {
        "sink": 0,
        "recent": "1f",
        "unit": "token",
        "share": "head",
        "position": "absolute",
    },
    "pyramid_forcing": {
        "sink": "1f",
        "recent": "1c",
        "unit": "token",
        "share": "head",
        "position": "clamped",
    },
    "relax_forcing": {
        "sink": "2f",
        "recent": "1f",
        "unit": "frame",
        "share": "layer",
        "position": "contiguous",
    },
}
"""Protocol fields that are a policy's identity; every other shipped policy pins nothing."""
LATER: dict[str, dict[str, object]] = {
    "future_forcing": {
        "keep": "score",
        "proxy_pass": "observed",
        "key": "tangent",
        "bias": "explicit",
        "merge_where": "cheaper",
        "ridge": 0.01,
    },
}
"""Fields that a policy got after rows of it were published, with their defaults."""
FULL = ("full", "full_eps")
"""Policies that keep everything whatever the budget."""
PLAIN = (bool, int, float, str, list, tuple, dict, type(None))
"""What a field of a policy may be by default, so that a command line can set it."""
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


def told(name: str, fields: Mapping[str, object]) -> dict[str, object]:
    """Return the fields that rows and ids name: later ones only where they differ from their default.

    A video that was made before a field was there is the video with its default, and keeps its id.
    """
    later = LATER.get(name, {})
    return {key: value for key, value in fields.items() if key not in later or later[key] != value}


def defaults(name: str) -> dict[str, Any]:
    """Load a policy and return its hyper-parameters with their defaults.

    Raises:
        UsageError: for one that cannot be loaded, is no dataclass, or has a field that no command line could
            fill.
    """
    try:
        cls: Any = policies.load(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    except Exception as error:  # whatever an installed package raises when it is imported
        raise UsageError(f"policy={name} cannot be loaded: {told_of(error)}") from None
    if not is_dataclass(cls):
        raise UsageError(f"policy={name}: its class is no dataclass; write @dataclass above it")
    found = {}
    for field in fields(cls):
        if not field.init:
            continue
        if field.default is MISSING and field.default_factory is MISSING:
            raise UsageError(f"policy={name}: its field '{field.name}' has no default")
        found[field.name] = _default(name, field)
    return found


def _default(name: str, field: Field[Any]) -> object:
    """Return the default of a field, of which a command line, a file and an id can be made."""
    value: Any = field.default
    if field.default_factory is not MISSING:
        try:
            value = field.default_factory()
        except Exception as error:
            raise UsageError(
                f"policy={name}: the default of its field '{field.name}' fails: {told_of(error)}"
            ) from None
    try:
        plain = _plain(value)
    except RecursionError:
        plain = "nested without end"
    if plain:
        raise UsageError(
            f"policy={name}: its field '{field.name}' is {plain} by default; allowed are finite numbers, "
            "words, lists, mappings and None"
        )
    return value


def _plain(value: object) -> str:
    """Say what in a value is none of the plain ones; empty where all are."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if not isinstance(value, PLAIN):
        return f"a {type(value).__name__}"
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    inner = parts if isinstance(parts, list | tuple) else ()
    return next((told for told in map(_plain, inner) if told), "")
