"""The protocol: what must be equal for a comparison to be fair, resolved for one policy and budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from ff_bench import checks, traits
from ff_bench.errors import UsageError
from ff_bench.models.facts import ModelFacts
from ff_bench.quantities import Budget, parse_slots

WORDS: dict[str, tuple[str, ...]] = {
    "passes": ("clean", "all"),
    "denominator": ("all", "context"),
    "unit": ("token", "frame"),
    "share": ("head", "layer"),
    "position": ("absolute", "contiguous", "frame_rank", "clamped", "sink_shifted"),
    "prefix": ("first_lap", "truth", "none"),
    "noise": ("own", "upstream"),
}
SLOTS = ("sink", "recent")


@dataclass(frozen=True)
class ProtocolConfig:
    """What must be equal for a comparison to be fair; slots in tokens, pins of the policy applied.

    Attributes:
        name: the file it comes from.
        label: the name, followed by every field that was set differently from the file.
        pinned: fields that the policy pins.
        base_position: position mode before the pins.
    """

    name: str
    label: str
    sink: int
    recent: int
    passes: str
    denominator: str
    unit: str
    share: str
    position: str
    query_stride: int
    charge_state: bool
    prefix: str
    noise: str
    pinned: tuple[str, ...]
    base_position: str


def resolve(
    tree: object,
    base: Mapping[str, Any],
    *,
    policy: str,
    label: str,
    budget: Budget,
    facts: ModelFacts,
    forced: Mapping[str, object] | None = None,
) -> ProtocolConfig:
    """Check the fields of a protocol, then apply what the policy pins.

    Args:
        tree: the group as composed with every override.
        base: the group as its file has it.
        policy: name of the policy, for its pins.
        label: short name of the policy, for the settings of `published`.
        budget: the budget, of which `recent` may be a share.
        facts: sizes of the model.
        forced: fields of a model's own rule, which beat the pins.

    Raises:
        UsageError: with field, value and what is allowed.
    """
    fields = checks.fields("protocol", tree, base)
    name = checks.text("protocol.name", fields.pop("name"))
    methods = cast(dict[str, dict[str, object]], fields.pop("methods"))
    asked = _checked(fields, budget, facts)
    checks.known("model.native.protocol", forced or {}, fields)
    pins = {**traits.pins(policy), **(forced or {})}
    file = {**{key: base[key] for key in fields}, **methods.get(label, {})}
    touched = {key: value for key, value in fields.items() if value != base[key]}
    final = _checked({**file, **touched, **pins}, budget, facts)
    before = _checked({**file, **pins}, budget, facts)
    notes = "".join(f"+{key}={value}" for key, value in sorted(touched.items()) if final[key] != before[key])
    return ProtocolConfig(
        name=name, label=name + notes, pinned=tuple(sorted(pins)), base_position=asked["position"], **final
    )


def _checked(fields: Mapping[str, object], budget: Budget, facts: ModelFacts) -> dict[str, Any]:
    """Check every field by itself and resolve slots to tokens."""
    found: dict[str, Any] = {
        key: parse_slots(f"protocol.{key}", fields[key], facts, budget=budget) for key in SLOTS
    }
    own = {"position": facts.position, "prefix": facts.prefix}
    for key, allowed in WORDS.items():
        words = ("auto", *allowed) if key in own else allowed
        found[key] = checks.choice(f"protocol.{key}", fields[key], words)
    found.update({key: value for key, value in own.items() if found[key] == "auto"})
    stride = fields["query_stride"]
    found["query_stride"] = checks.whole("protocol.query_stride", stride, low=1, high=facts.chunk_tokens)
    found["charge_state"] = checks.flag("protocol.charge_state", fields["charge_state"])
    _check_for_model(found, facts)
    return found


def _check_for_model(found: Mapping[str, Any], facts: ModelFacts) -> None:
    if not facts.prompt_sets and found["prefix"] != "none":
        raise UsageError(
            f"protocol.prefix={found['prefix']} is not allowed with model={facts.name}: allowed is none"
        )
    if facts.architecture == "mini" and found["noise"] != "own":
        raise UsageError(
            f"protocol.noise={found['noise']} is not allowed with model={facts.name}: "
            "it has no original, allowed is own"
        )
