"""Recordings: un-rotated queries, keys and values of a full-cache rollout, chunk by chunk, on disk.

A recording is a folder: one safetensors file per chunk, `manifest.json` last, so that its presence means that
all is there. Tensors of a chunk of N tokens are (L, Hq or H, N, D), of the layers and heads that were chosen:
`queries`, `keys`, `values` of the clean pass; `noisy0.queries` and so on of noisy passes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ff_bench import files, prefixes
from ff_bench.analysis.rollouts import watched
from ff_bench.errors import UsageError
from ff_bench.models.base import Model
from ff_bench.models.facts import ModelFacts
from ff_bench.quantities import ELEMENT_BYTES
from ff_bench.runs import VideoSpec
from policies.base import Pass, Shape
from policies.cache import LayerCache
from policies.full import Full
from policies.rope import Rope

SCHEMA = 1
FOLDER = "recordings"
MANIFEST = "manifest.json"
PARTS = ("queries", "keys", "values")


@dataclass(frozen=True)
class Choice:
    """What of a rollout is recorded.

    Attributes:
        layers: numbers of layers.
        heads: numbers of key-value heads, the same ones in each layer; their query heads come along.
        noisy: noisy passes of each chunk, from the first; the clean pass is always recorded.
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    noisy: int = 0

    def shape(self, whole: Shape) -> Shape:
        """Return the shape of a model that has the chosen layers and heads alone."""
        group = whole.query_heads // whole.heads
        return replace(
            whole, layers=len(self.layers), heads=len(self.heads), query_heads=group * len(self.heads)
        )

    def nbytes(self, known: ModelFacts, *, latent_frames: int, dtype: str, group: int = 1) -> int:
        """Return the bytes of the recording of one video.

        Args:
            known: sizes of the model.
            latent_frames: length.
            dtype: number format of the cache.
            group: query heads of a key-value head.
        """
        tokens = latent_frames * known.frame_tokens * (1 + self.noisy)
        heads = len(self.layers) * len(self.heads) * (group + 2)
        return tokens * heads * known.head_dim * ELEMENT_BYTES[dtype]


@dataclass(frozen=True)
class Piece:
    """One recorded chunk.

    Attributes:
        number: from 0.
        first: its first latent frame.
        frames: its latent frames.
        levels: noise level of each recorded noisy pass.
    """

    number: int
    first: int
    frames: int
    levels: tuple[float, ...] = ()


@dataclass(frozen=True)
class Recording:
    """A finished recording.

    Attributes:
        folder: where it lies.
        pieces: its chunks in order.
        prefix_frames: latent frames that were given.
        prompt: its text.
        shape: of the layers and heads that were chosen.
    """

    folder: Path
    pieces: tuple[Piece, ...]
    prefix_frames: int
    prompt: str
    shape: Shape

    def load(self, piece: Piece, device: str) -> dict[str, Tensor]:
        """Read the tensors of one chunk."""
        loaded: dict[str, Tensor] = load_file(self.folder / _name(piece.number), device=device)
        return loaded


class Recorder(Full):
    """A full cache that hands on what it is given, pass by pass."""

    def __init__(self, choice: Choice) -> None:
        """Begin with nothing."""
        self.choice = choice
        self.levels: list[float] = []
        self._parts: dict[str, list[Tensor]] = {}
        self._passes = 0

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Keep queries, keys and values of one layer where they are asked for."""
        noisy = self._passes
        if step.layer == self.shape.layers - 1:
            self._passes = 0 if step.commit else self._passes + 1
        if not step.commit and noisy >= self.choice.noisy:
            return
        if step.layer == self.shape.layers - 1 and not step.commit:
            self.levels.append(float(step.noise.mean()))
        if step.layer not in self.choice.layers:
            return
        values = cache.staged_values[:, :, -step.keys.shape[2] :]
        group = self.shape.query_heads // self.shape.heads
        ahead = "" if step.commit else f"noisy{noisy}."
        for name, tensor in zip(PARTS, (step.queries, step.keys, values), strict=True):
            of_head = tensor[0].unflatten(0, (-1, group)) if name == "queries" else tensor[0][:, None]
            chosen = of_head[list(self.choice.heads)].flatten(0, 1)
            self._parts.setdefault(ahead + name, []).append(chosen.to("cpu", copy=True))

    def take(self) -> tuple[dict[str, Tensor], tuple[float, ...]]:
        """Return the tensors of the finished chunk and the levels of its noisy passes; begin anew."""
        tensors = {name: torch.stack(parts).contiguous() for name, parts in self._parts.items()}
        levels = tuple(self.levels)
        self._parts, self.levels = {}, []
        return tensors, levels


def place(spec: VideoSpec, choice: Choice) -> Path:
    """Return the folder of a recording: named by everything that changes its tensors."""
    config = spec.config
    name = files.short_hash({"video": spec.identity, "choice": asdict(choice), "schema": SCHEMA})
    return config.runs_dir / config.model.name / FOLDER / f"{spec.prompt.id}-s{spec.seed}-{name}"


def record(
    model: Callable[[], Model],
    spec: VideoSpec,
    choice: Choice,
    advance: Callable[[int], object] = lambda _: None,
) -> Recording:
    """Return the recording of a video, made by one full-cache rollout where it is missing.

    Args:
        model: loads the backbone, called where there is something to generate.
        spec: a video of the full cache.
        choice: what is recorded.
        advance: called with latent frames as they are done.

    Raises:
        UsageError: for a video whose cache is made anew on the way.
        Locked: where another process makes it.
    """
    folder = place(spec, choice)
    found = read(folder)
    if found is not None:
        advance(spec.config.length.latent_frames)
        return found
    loaded = model()
    if spec.prompt.switches and loaded.recache_frames:
        raise UsageError(
            f"prompt '{spec.prompt.id}' is not allowed: its prompt changes, at which model "
            f"{spec.config.model.name} makes its cache anew; a recording holds every key once"
        )
    with files.lock(folder):
        return _make(loaded, spec, choice, folder, advance)


def _make(
    model: Model, spec: VideoSpec, choice: Choice, folder: Path, advance: Callable[[int], object]
) -> Recording:
    """Generate and write, the manifest last."""
    files.sweep_up(folder, deep=False)
    recorder, pieces = Recorder(choice), []
    for chunk in watched(model, spec, recorder, passes="all" if choice.noisy else "clean"):
        tensors, levels = recorder.take()
        frames = chunk.latents.shape[1]
        pieces.append(Piece(chunk.number, chunk.first_frame, frames, levels))
        _check(tensors, frames * model.shape.frame_tokens, spec.config.model.name)
        files.write_atomically(folder / _name(chunk.number), save(tensors))
        advance(frames)
    given, shape = prefixes.length(spec.config, spec.prompt), choice.shape(model.shape)
    manifest = {
        "schema": SCHEMA, "pieces": [asdict(piece) for piece in pieces], "prefix_frames": given,
        "prompt": spec.prompt.text, "shape": asdict(shape), "video": spec.identity, "choice": asdict(choice),
    }  # fmt: skip
    files.write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return Recording(folder, tuple(pieces), given, spec.prompt.text, shape)


def read(folder: Path) -> Recording | None:
    """Read the manifest of a recording; None where it is not finished."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    pieces = tuple(Piece(**{**piece, "levels": tuple(piece["levels"])}) for piece in found["pieces"])
    rope = found["shape"]["rope"]
    turned = Rope(dims=tuple(rope["dims"]), bases=tuple(rope["bases"]), layout=rope["layout"])
    shape = Shape(**{**found["shape"], "rope": turned})
    return Recording(folder, pieces, found["prefix_frames"], found["prompt"], shape)


def _check(tensors: Mapping[str, Tensor], tokens: int, model: str) -> None:
    """Refuse noisy passes over several chunks at once."""
    for name, tensor in tensors.items():
        if tensor.shape[2] != tokens:
            raise UsageError(
                f"noisy={name.partition('.')[0]} is not allowed with model={model}: its noisy passes cover "
                "several chunks at once, allowed is 0"
            )


def _name(number: int) -> str:
    return f"chunk-{number:05d}.safetensors"
