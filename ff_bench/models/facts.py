"""What must be known of a model before torch is imported: sizes for budgets, lengths and plans."""

from __future__ import annotations

import importlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, cast

import yaml

from ff_bench import shipped
from ff_bench.errors import UsageError, not_one_of

ARCHITECTURES: Mapping[str, str] = {
    "mini": "ff_bench.models.mini.facts",
    "wan": "ff_bench.models.wan.facts",
}
"""Module of each architecture that reads its configuration; none of them imports torch."""
SOURCE = ("path", "repo", "file", "licence")
"""Fields of a model's file that say where one of its files is."""
GROUP = "ff_bench.models"
"""Entry points: name of an architecture, module that is an `Architecture` and also has `load`."""


@dataclass(frozen=True)
class Native:
    """The context rule that a model was released with, as a policy, a budget and protocol fields.

    Attributes:
        rule: short name for tables, such as `roll21` or `sink3+roll12`.
        policy: policy of this package that does it.
        fields: hyper-parameters of that policy.
        budget: context tokens as users write them (`18f`, `full`).
        protocol: protocol fields that belong to the rule.
    """

    rule: str
    policy: str
    fields: dict[str, object] = field(default_factory=dict, hash=False)
    budget: str = "full"
    protocol: dict[str, object] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class ModelFacts:
    """Static sizes of one model.

    Attributes:
        name: as on the command line.
        architecture: room of `ff_bench.models` that loads it.
        layers: transformer layers, each with a cache of its own.
        heads: key-value heads of a layer.
        head_dim: channels of a head.
        rows: token rows of a latent frame.
        columns: token columns of a latent frame.
        chunk_frames: latent frames denoised together.
        first_chunk_frames: latent frames of the first chunk where it differs, else `chunk_frames`.
        window_frames: latent frames of the training window.
        fps: decoded frames per second.
        temporal_stride: decoded frames per latent frame.
        first_stride: decoded frames of the very first latent frame.
        height: decoded height in pixels.
        width: decoded width in pixels.
        steps: noisy passes per chunk where the user asks for none.
        dtype: number format where the user asks for none.
        weights: files of the checkpoint, in order.
        position: position mode of the protocol `equal`.
        prompt_sets: sets of prompts that the model understands; empty means any text.
        default_prompts: set that is used where the user names none.
        prefix: how videos start where the protocol says `auto`: `first_lap` or `none`.
        native: the context rule that it was released with.
        chunk_seconds_cpu: rough seconds of one core per chunk at a small budget, for plans.
        latent_record: whether the record is the latents, decoded when they are scored, not the frames.
        latent_values: numbers of a latent frame, where the record is latents.
        takes_start: whether a video can start from given pictures or latents.
        has_own_steps: whether `steps` follows from the model's list of time steps.
    """

    name: str
    architecture: str
    layers: int
    heads: int
    head_dim: int
    rows: int
    columns: int
    chunk_frames: int
    first_chunk_frames: int
    window_frames: int
    fps: int
    temporal_stride: int
    first_stride: int
    height: int
    width: int
    steps: int
    dtype: str
    weights: tuple[Path, ...]
    position: str
    prompt_sets: tuple[str, ...]
    default_prompts: str
    prefix: str
    native: Native
    chunk_seconds_cpu: float
    latent_record: bool = False
    latent_values: int = 0
    takes_start: bool = False
    has_own_steps: bool = False

    @property
    def frame_tokens(self) -> int:
        """Tokens of one latent frame."""
        return self.rows * self.columns

    @property
    def chunk_tokens(self) -> int:
        """Tokens of one chunk."""
        return self.chunk_frames * self.frame_tokens

    def kv_bytes(self, tokens: int, *, element_bytes: int = 4) -> int:
        """Bytes of keys and values of `tokens` tokens per head, all layers and heads, one video."""
        return 2 * self.layers * self.heads * self.head_dim * tokens * element_bytes

    def chunks(self, latent_frames: int) -> list[int]:
        """Latent frames of each chunk of a video, which must be whole chunks."""
        rest, odd = divmod(latent_frames - self.first_chunk_frames, self.chunk_frames)
        if latent_frames < self.first_chunk_frames or odd:
            raise ValueError(f"{latent_frames} latent frames are not whole chunks of model '{self.name}'")
        return [self.first_chunk_frames, *[self.chunk_frames] * rest]

    def whole_chunks(self, latent_frames: int) -> int:
        """Return the least latent frames from `latent_frames` on that are whole chunks."""
        rest = max(0, latent_frames - self.first_chunk_frames)
        return self.first_chunk_frames + -(-rest // self.chunk_frames) * self.chunk_frames

    def decoded_frames(self, latent_frames: int) -> int:
        """Decoded frames of the first `latent_frames` latent frames."""
        return 0 if latent_frames == 0 else self.first_stride + (latent_frames - 1) * self.temporal_stride

    def boundaries(self, latent_frames: int, frames: int) -> tuple[int, ...]:
        """Return the decoded frames, below `frames`, with which a chunk begins, without the first."""
        ends = accumulate(self.chunks(latent_frames))
        return tuple(place for end in ends if (place := self.decoded_frames(end)) < frames)

    def needed_latents(self, frames: int) -> int:
        """Return the least latent frames that decode to at least `frames` frames."""
        return 1 + max(0, -(-(frames - self.first_stride) // self.temporal_stride))

    def latent_at(self, seconds: float) -> int:
        """Return the latent frame, from 0, that is shown at a time."""
        return self.needed_latents(round(seconds * self.fps) + 1) - 1


@dataclass(frozen=True)
class Need:
    """A file that a model loads.

    Attributes:
        what: name for people, the same for models that share it.
        found: what is here, empty where nothing is.
        command: what gets it.
        is_shipped: whether it comes with the package.
    """

    what: str
    found: str
    command: str
    is_shipped: bool = False


class Architecture(Protocol):
    """What a module of `ARCHITECTURES` offers; `read` checks, the others take what it returned."""

    def read(self, fields: Mapping[str, Any]) -> Hashable:
        """Check the fields of a model's file, with every override; None where there is nothing to set.

        Raises:
            UsageError: with field, value and what is allowed.
        """

    def describe(self, fields: Mapping[str, Any]) -> ModelFacts:
        """Return the sizes of the model that the fields describe.

        Raises:
            UsageError: with field, value and what is allowed.
        """

    def identity(self, known: Any) -> dict[str, object]:
        """Return the fields that change frames, in plain values, without checkpoints."""

    def digests(self, known: Any, *, prompts: Sequence[str], dtype: str) -> dict[str, str]:
        """Return sha256 of what the model loads by name, `checkpoint` among them; 'absent' if not here.

        Args:
            known: what `read` returned.
            prompts: texts of the run.
            dtype: number format of the run.
        """

    def needs(self, known: Any) -> list[Need]:
        """List the files that the model loads, here or not; nothing is read."""

    def missing(self, known: Any, *, prompts: Sequence[str], dtype: str) -> str:
        """Say in one sentence which file is not here and how to get it; empty if all that is needed is.

        Args:
            known: what `read` returned.
            prompts: texts of the run.
            dtype: number format of the run.

        Raises:
            UsageError: where a library is missing.
        """


def architecture(name: str) -> Architecture:
    """Find an architecture in the table, then among installed entry points.

    Raises:
        UsageError: where there is none of that name.
    """
    if name in ARCHITECTURES:
        return cast(Architecture, importlib.import_module(ARCHITECTURES[name]))
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if name not in installed:
        raise not_one_of("model.architecture", name, [*ARCHITECTURES, *installed])
    return cast(Architecture, installed[name].load())


def facts(name: str) -> ModelFacts:
    """Return the sizes of a shipped model as its file has them.

    Raises:
        UsageError: naming the shipped ones.
    """
    known = shipped.models()
    if name not in known:
        raise not_one_of("model", name, known)
    fields = shipped.model_fields(name)
    return architecture(str(fields["architecture"])).describe(fields)


def find(label: str) -> ModelFacts | None:
    """Return the sizes of a model met in rows, or None where nobody here knows it.

    Args:
        label: a name, with the fields that were changed: `self_forcing+height=240`.
    """
    name, *changes = label.split("+")
    if name not in shipped.models():
        return None
    fields = shipped.model_fields(name)
    try:
        for change in changes:
            key, _, value = change.partition("=")
            _set(fields, key.split("."), yaml.safe_load(value))
        return architecture(str(fields["architecture"])).describe(fields)
    except (UsageError, yaml.YAMLError):
        return None


def _set(fields: dict[str, Any], path: Sequence[str], value: object) -> None:
    """Set a field within copies of the mappings around it."""
    if len(path) == 1:
        fields[path[0]] = value
        return
    inner = fields.get(path[0])
    fields[path[0]] = dict(inner) if isinstance(inner, Mapping) else {}
    _set(fields[path[0]], path[1:], value)
