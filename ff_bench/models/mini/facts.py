"""Sizes of the embedded model, and its files, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ff_bench import checks
from ff_bench.files import checkpoint_sha256
from ff_bench.models.facts import ModelFacts, Native, Need

FOLDER = Path(__file__).parent / "weights"
WEIGHTS = tuple(FOLDER / f"mini-{part:05d}-of-00002.safetensors" for part in (1, 2))
FIELDS = ("name", "architecture")


def read(fields: Mapping[str, Any]) -> None:
    """Check that nothing but the name is set: the embedded model is what its weights are.

    Raises:
        UsageError: for a field that there is not.
    """
    checks.keys("model", fields, FIELDS)


def describe(fields: Mapping[str, Any]) -> ModelFacts:
    """Return the sizes of the embedded model."""
    read(fields)
    return ModelFacts(
        name=str(fields["name"]), architecture="mini", layers=6, heads=4, head_dim=64, rows=8, columns=8,
        chunk_frames=3, first_chunk_frames=3, window_frames=60, fps=16, temporal_stride=4, first_stride=4,
        height=64, width=64, steps=5, dtype="float32", weights=WEIGHTS, position="absolute",
        prompt_sets=("orbit", "pendulum", "cut", "occlusion", "change"), default_prompts="orbit",
        prefix="first_lap", native=Native(rule="full", policy="full"), chunk_seconds_cpu=0.6,
    )  # fmt: skip


def identity(known: None) -> dict[str, object]:
    """Return nothing: no field changes frames."""
    return {}


def digests(known: None, *, prompts: Sequence[str], dtype: str) -> dict[str, str]:
    """Return the sha256 over the shards in order."""
    return {"checkpoint": checkpoint_sha256(WEIGHTS)}


def needs(known: None) -> list[Need]:
    """Return the shards as one."""
    digest = checkpoint_sha256(WEIGHTS)
    found = "" if digest == "absent" else f"sha256 {digest[:12]}"
    command = "python scripts/train_mini.py, or git checkout of the weights"
    return [Need("mini weights", found, command, is_shipped=True)]


def missing(known: None, *, prompts: Sequence[str], dtype: str) -> str:
    """Name the shards that are not here and the command that makes them."""
    absent = [path for path in WEIGHTS if not path.is_file()]
    if not absent:
        return ""
    return f"{', '.join(path.name for path in absent)} is missing, ff-bench doctor says how to get it"
