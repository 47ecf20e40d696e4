"""The embedded model as a backbone: its weights, its schedule, its patches as latents."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from torch import Tensor

from ff_bench.errors import UsageError, shown
from ff_bench.models.base import Attend, Decoder, Model
from ff_bench.models.facts import ModelFacts, facts
from ff_bench.models.mini.facts import command
from ff_bench.models.mini.motion import GRID, Motion, token_features
from ff_bench.models.mini.network import TOKEN_DIM, MiniNetwork, Size, patchify, unpatchify
from ff_bench.models.mini.prompt import FRAMES_PER_LATENT, MiniPrompt
from ff_bench.models.mini.recipe import RECIPES
from ff_bench.models.mini.world import truth
from ff_bench.models.numbers import refuse_formats, refuse_infinite
from ff_bench.models.schedule import Span, Turn, chunkwise
from policies.base import Shape
from policies.rope import Rope

ROPE = Rope(dims=(24, 20, 20), bases=(3000.0, 100.0, 100.0), layout="half")
SHIFT = 4.0
"""Warp of the noise levels, s(u) = 4u / (1 + 3u) for u equally spaced."""


@dataclass(frozen=True)
class Conditioning:
    """B encoded prompts: their motion and their tokens (B, P, D)."""

    motion: Motion
    tokens: Tensor


class Mini(Model):
    """The embedded model, float32 on a CPU and float32 or bfloat16 on a GPU.

    Latent frames are (768, 8, 8): four pixel frames folded into channels, one 8 x 8 patch per position.
    """

    def __init__(self, network: MiniNetwork, checkpoint: str, name: str = "mini") -> None:
        """Wrap a network.

        Args:
            network: of any size; moved to evaluation without gradients.
            checkpoint: sha256 of its weights.
            name: of the checkpoint, as on the command line.
        """
        self.network = network.eval().requires_grad_(False)
        self.checkpoint = checkpoint
        self.facts = shaped(facts(name), network.size)
        self.shape = Shape(
            layers=network.size.depth,
            query_heads=network.size.heads,
            heads=network.size.heads,
            head_dim=network.size.head_dim,
            rows=GRID,
            columns=GRID,
            chunk_frames=self.facts.chunk_frames,
            window_frames=self.facts.window_frames,
            rope=ROPE,
        )
        self.latent_shape = (TOKEN_DIM, GRID, GRID)
        self.dtype = network.head.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.head.weight.device

    def turns(self, latent_frames: int, *, steps: int, prefix_frames: int = 0) -> tuple[Turn, ...]:
        """Euler steps at shifted levels, then the clean pass at level 0."""
        even = [1 - index / steps for index in range(steps)]
        levels = [SHIFT * u / (1 + (SHIFT - 1) * u) for u in even]
        return chunkwise(self.facts.chunks(latent_frames), levels, end=0.0, prefix_frames=prefix_frames)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Parse B prompts and embed what they tell about looks."""
        parsed = [MiniPrompt.parse(prompt) for prompt in prompts]
        tokens = self.network.prompt_tokens(self.network.read(parsed, self.device).to(self.dtype))
        return Conditioning(Motion.of(parsed, self.device), tokens)

    def denoise(
        self,
        latent: Tensor,
        noise: Tensor,
        conditioning: object,
        attend: Attend,
        *,
        first_frame: int,
        cache_only: bool = False,
    ) -> Tensor:
        """See `Model.denoise`; all frames of a chunk share one noise level."""
        assert isinstance(conditioning, Conditioning), type(conditioning)
        batch, frames = latent.shape[:2]
        numbers = torch.arange(first_frame, first_frame + frames, device=latent.device).expand(batch, frames)
        features = None
        if self.network.has_features:
            features = token_features(conditioning.motion, numbers).to(self.dtype)
        tokens = latent.flatten(3).transpose(2, 3).flatten(1, 2).to(self.dtype)
        predicted = self.network(
            tokens, features, noise[:, :1], conditioning.tokens, attend, cache_only=cache_only
        )
        return folded(predicted.float(), frames)

    def advance(self, latent: Tensor, predicted: Tensor, span: Span, noise: Tensor | None) -> Tensor:
        """One Euler step of the rectified flow; the last one clamps to the range of a picture."""
        assert span.next_level is not None, span
        moved = latent + (span.next_level - span.level) / span.level * (latent - predicted)
        return moved.clamp(-1, 1) if span.next_level == 0 else moved

    def decoder(self) -> Decoder:
        """Unfold patches to pixels; there is no state."""
        return decode

    def truth(self, prompt: str, seed: int, latent_frames: int) -> Tensor:
        """The exact picture of (prompt, seed) as latents, to the rounding of 8 bits."""
        frames, _ = truth(MiniPrompt.parse(prompt), seed, latent_frames * FRAMES_PER_LATENT)
        tokens = patchify(frames.permute(0, 3, 1, 2)[None].float() / 127.5 - 1)
        return folded(tokens, latent_frames)[0].to(self.device)


def decode(latents: Tensor) -> Tensor:
    """Turn latents (B, F, C, h, w) into pictures (B, T, H, W, 3) uint8."""
    video = unpatchify(latents.flatten(3).transpose(2, 3).flatten(1, 2).float())
    return ((video.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 1, 3, 4, 2)


def folded(tokens: Tensor, frames: int) -> Tensor:
    """Turn tokens (B, frames * GRID * GRID, C) into latent frames (B, frames, C, GRID, GRID)."""
    by_frame: Tensor = tokens.unflatten(1, (frames, GRID * GRID))
    return by_frame.transpose(2, 3).reshape(len(tokens), frames, -1, GRID, GRID)


def shaped(known: ModelFacts, size: Size) -> ModelFacts:
    """Facts for a network of another size (tests use a tiny one)."""
    return replace(known, layers=size.depth, heads=size.heads, head_dim=size.head_dim)


def load(
    files: Sequence[Path],
    *,
    name: str = "mini",
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
) -> Mini:
    """Load the weights.

    Args:
        files: safetensors shards, float16.
        name: of the checkpoint, as on the command line.
        device: where to.
        dtype: number format of weights and cache.

    Raises:
        FileNotFoundError: naming the file and the command that makes it.
        UsageError: where a shard is damaged, or holds other names, shapes or numbers than the network.
    """
    weights, checkpoint = read_shards(files, name)
    refuse_formats(weights, f"checkpoint of the model '{name}'")
    size, has_features = size_of(weights, name), RECIPES[name].has_features
    with torch.device("meta"):  # a file with wrong sizes must not ask for the memory that they would take
        _check_tensors(weights, MiniNetwork(size, has_features=has_features), name)
    network = MiniNetwork(size, has_features=has_features)
    network.load_state_dict({key: value.float() for key, value in weights.items()})
    network = network.to(device=device, dtype=dtype)
    refuse_infinite(network.state_dict(), f"checkpoint of the model '{name}'")
    return Mini(network, checkpoint, name)


def _check_tensors(weights: Mapping[str, Tensor], network: MiniNetwork, name: str) -> None:
    """Raise unless names and shapes are exactly those of the network."""
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if wrong:
        first = wrong[0]
        raise UsageError(
            f"weights of the model '{name}' do not fit: {len(wrong)} tensors differ, the first is "
            f"'{shown(first)}', expected {expected.get(first, 'none')}, found {found.get(first, 'none')}"
        )


def read_shards(files: Sequence[Path], name: str) -> tuple[dict[str, Tensor], str]:
    """Read safetensors shards in order.

    Returns:
        All tensors by name, and the sha256 over the files.

    Raises:
        FileNotFoundError: naming the missing file and the command that makes it.
        UsageError: where a file is damaged, or holds a tensor that another one holds as well.
    """
    weights: dict[str, Tensor] = {}
    digest = hashlib.sha256()
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"weights of the model '{name}' are missing: {file}; make them with '{command(name)}'"
            )
        content = file.read_bytes()
        digest.update(content)
        try:
            held = read_tensors(content)
        except (SafetensorError, LookupError) as error:  # a format of numbers that torch does not have
            raise UsageError(f"weights of the model '{name}' are damaged: {file} ({error})") from None
        twice = sorted(weights.keys() & held.keys())
        if twice:
            raise UsageError(f"weights of the model '{name}' do not fit: {shown(twice[0])} is in two files")
        weights |= held
    return weights, digest.hexdigest()


def size_of(weights: Mapping[str, Tensor], name: str) -> Size:
    """Read the dimensions off the tensors.

    Raises:
        UsageError: where these are not weights of this network.
    """
    try:
        inner, head_dim = weights["blocks.0.out.weight"].shape[1], weights["blocks.0.query_norm"].shape[0]
        mlp, dim = weights["blocks.0.up.weight"].shape
        cross = weights["blocks.0.cross_query.weight"].shape[0]
        depth = len({key.split(".")[1] for key in weights if key.startswith("blocks.")})
    except KeyError as error:
        raise UsageError(f"weights of the model '{name}' do not fit: there is no tensor {error}") from None
    except (ValueError, IndexError):
        raise UsageError(f"weights of the model '{name}' do not fit: tensors of block 0 lack axes") from None
    if head_dim != ROPE.head_dim or inner % head_dim:
        raise UsageError(
            f"weights of the model '{name}' do not fit: heads have {head_dim} channels of {inner}, "
            f"expected {ROPE.head_dim} each"
        )
    return Size(dim, depth, inner // head_dim, head_dim, mlp, cross)
