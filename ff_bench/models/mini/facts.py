"""Sizes of the embedded model's checkpoints, and their files, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ff_bench import checks
from ff_bench.errors import not_one_of
from ff_bench.files import checkpoint_sha256
from ff_bench.models.facts import ModelFacts, Native, Need
from ff_bench.models.mini.prompt import CHUNK_FRAMES, WORLDS
from ff_bench.models.mini.recipe import RECIPES

FOLDER = Path(__file__).parent / "weights"
FIELDS = ("name", "architecture")


@dataclass(frozen=True)
class Variant:
    """What is known of one checkpoint besides its training (`recipe.RECIPES`).

    Attributes:
        position: position mode of the protocol `equal`.
        prefix: how videos start where the protocol says `auto`.
        prompt_sets: worlds that it can follow.
    """

    position: str = "absolute"
    prefix: str = "first_lap"
    prompt_sets: tuple[str, ...] = WORLDS


VARIANTS: Mapping[str, Variant] = {
    "mini": Variant(),
    "mini_b": Variant(),
    "mini_short": Variant("contiguous", "none", ("orbit", "pendulum", "occlusion")),
}
"""`mini_short` is rolled out as real backbones are: positions re-based into its window, and from nothing, as
a first lap of the full cache already ends beyond that window. Events of `cut` and `change` lie beyond it too,
and nothing tells the model when it is there."""


def weights(name: str) -> tuple[Path, ...]:
    """Return the shards of a checkpoint, in order."""
    return tuple(FOLDER / f"{name}-{part:05d}-of-00002.safetensors" for part in (1, 2))


def read(fields: Mapping[str, Any]) -> str:
    """Check that nothing but the name is set: the embedded model is what its weights are.

    Returns:
        The name of the checkpoint.

    Raises:
        UsageError: for a field or a checkpoint that there is not.
    """
    checks.keys("model", fields, FIELDS)
    name = str(fields["name"])
    if name not in VARIANTS:
        raise not_one_of("model.name", name, VARIANTS)
    return name


def describe(fields: Mapping[str, Any]) -> ModelFacts:
    """Return the sizes of a checkpoint of the embedded model."""
    name = read(fields)
    variant = VARIANTS[name]
    return ModelFacts(
        name=name, architecture="mini", layers=6, heads=4, head_dim=64, rows=8, columns=8,
        chunk_frames=CHUNK_FRAMES, first_chunk_frames=CHUNK_FRAMES,
        window_frames=RECIPES[name].chunks * CHUNK_FRAMES, fps=16, temporal_stride=4, first_stride=4,
        height=64, width=64, steps=5, dtype="float32", weights=weights(name), position=variant.position,
        prompt_sets=variant.prompt_sets, default_prompts="orbit", prefix=variant.prefix,
        native=Native(rule="full", policy="full"), chunk_seconds_cpu=0.6,
    )  # fmt: skip


def identity(known: str) -> dict[str, object]:
    """Return nothing: no field changes frames."""
    return {}


def digests(known: str, *, prompts: Sequence[str], dtype: str) -> dict[str, str]:
    """Return the sha256 over the shards in order."""
    return {"checkpoint": checkpoint_sha256(weights(known))}


def command(name: str) -> str:
    """Return what makes the weights of a checkpoint."""
    return f"python scripts/train_mini.py --model {name} --out {FOLDER}"


def needs(known: str) -> list[Need]:
    """Return the shards as one; nothing lacks where the checkpoints for control are not here."""
    digest = checkpoint_sha256(weights(known))
    found = "" if digest == "absent" else f"sha256 {digest[:12]}"
    told = f"{command(known)}, or git checkout of the weights"
    return [Need(f"{known} weights", found, told, is_shipped=known == "mini")]


def missing(known: str, *, prompts: Sequence[str], dtype: str) -> str:
    """Name the shards that are not here and the command that makes them."""
    absent = [path for path in weights(known) if not path.is_file()]
    if not absent:
        return ""
    return f"{', '.join(path.name for path in absent)} is missing, ff-bench doctor says how to get it"
