"""What the class of a policy declares: checked when it is loaded, so that no rollout meets what is none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields

from policies.base import Policy, Protocol

PINNED = ("sink", "recent", *(field.name for field in fields(Protocol)))
"""Fields of the protocol that a policy may pin."""
WIDEST = 1000.0
"""Budgets of one head: no model has more heads in a layer that could lend them."""
FLAGS = ("is_full", "is_positional", "reads_attention")
FINAL = tuple(name for name, value in vars(Policy).items() if getattr(value, "__final__", False))


def check_class(kind: type[Policy]) -> None:
    """Check what a class declares, and that it leaves alone what is the same for all policies.

    Raises:
        ValueError: With the attribute, what it is and what is allowed.
    """
    for method in FINAL:
        if getattr(kind, method) is not getattr(Policy, method):
            raise ValueError(f"its class overrides '{method}', which must be the same for all policies")
    name = getattr(kind, "name", None)
    if not (isinstance(name, str) and name.strip() and name.isprintable()):
        raise ValueError(f"its `name` is {name!r:.80}; allowed: a word")
    for flag in FLAGS:
        if not isinstance(getattr(kind, flag), bool):
            raise ValueError(f"its `{flag}` is a {_kind(getattr(kind, flag))}; allowed: True or False")
    _check_numbers(kind)
    if not isinstance(kind.pins, Mapping):
        raise ValueError(f"its `pins` is a {_kind(kind.pins)}; allowed: a mapping of fields of the protocol")
    for field in kind.pins:
        if field not in PINNED:
            raise ValueError(f"its `pins` names {field!r:.80}; allowed: {', '.join(PINNED)}")


def _check_numbers(kind: type[Policy]) -> None:
    widest, state = kind.widest_head, kind.slot_state
    if isinstance(widest, bool) or not isinstance(widest, int | float) or not 1 <= widest <= WIDEST:
        raise ValueError(f"its `widest_head` is {widest!r:.80}; allowed: a number of budgets from 1 on")
    if not isinstance(state, Mapping):
        raise ValueError(f"its `slot_state` is a {_kind(state)}; allowed: a mapping of names to numbers")
    for name, fill in state.items():
        if not (isinstance(name, str) and isinstance(fill, int | float) and math.isfinite(fill)):
            raise ValueError(f"its `slot_state` holds {name!r:.80}: {fill!r:.80}; allowed: names and numbers")


def _kind(value: object) -> str:
    return type(value).__name__
