"""The model of a run: what its file and the overrides say, and what of it changes frames."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ff_bench import checks
from ff_bench.errors import UsageError, shown
from ff_bench.models.facts import SOURCE, Architecture, ModelFacts, architecture


@dataclass(frozen=True)
class ModelConfig:
    """Which model, with every override of its fields.

    Attributes:
        name: as on the command line.
        architecture: room of `ff_bench.models` that loads it.
        fields: what its file says, as the architecture reads it (a `Member` for `wan`); None for `mini`.
        facts: its sizes.
        checkpoint: sha256 of its checkpoint, 'absent' where the weights are not here.
        others: sha256 of its other files by name, such as the VAE, 'absent' where one is not here.
        changed: plain fields that were set differently from the file, as the user would write them.
    """

    name: str
    architecture: str
    fields: Hashable
    facts: ModelFacts
    checkpoint: str = "absent"
    others: tuple[tuple[str, str], ...] = ()
    changed: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """The name, followed by every size or step that was set differently from the file."""
        return self.name + "".join(f"+{key}={value}" for key, value in self.changed)

    @property
    def room(self) -> Architecture:
        """The module that reads its configuration."""
        return architecture(self.architecture)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything of the model that changes frames, in plain values; no paths, no repositories."""
        fields = self.room.identity(self.fields)
        return {"name": self.name, "fields": fields, "checkpoint": self.checkpoint, **dict(self.others)}


def resolve(tree: object, base: Mapping[str, Any]) -> ModelConfig:
    """Check the fields of a model; its files are not looked for.

    Args:
        tree: the group as composed with every override.
        base: the group as its file has it.

    Raises:
        UsageError: with field, value and what is allowed.
    """
    fields = checks.fields("model", tree, base)
    for key in ("name", "architecture"):
        if key in base and fields[key] != base[key]:
            raise UsageError(
                f"model.{key}={fields[key]} is not allowed: choose a model by model={shown(fields[key])}"
            )
    if "name" not in fields or "architecture" not in fields:
        raise UsageError("model has no name or no architecture: its file must set both")
    name, kind = str(fields["name"]), str(fields["architecture"])
    room = architecture(kind)
    read, known = room.read(fields), room.describe(fields)
    return ModelConfig(name, kind, read, known, changed=tuple(_changed(fields, base)))


def _changed(
    fields: Mapping[str, Any], base: Mapping[str, Any], within: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield the fields that were set differently from the file; digests speak for the names of files."""
    for key, value in sorted(fields.items()):
        default = base.get(key)
        if isinstance(value, Mapping):
            yield from _changed(value, default if isinstance(default, Mapping) else {}, f"{within}{key}.")
        elif value != default and key not in SOURCE:
            yield f"{within}{key}", shown(value)
