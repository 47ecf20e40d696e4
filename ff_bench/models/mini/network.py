"""The embedded model's network: a causal video diffusion transformer of the Wan shape, no cache of its own.

3-D RoPE, q/k RMSNorm, AdaLN from one shared projection and a table per block, cross-attention to the prompt.
It predicts the clean latent x0 (arXiv 2511.13720 argues for that target in pixel space) of a latent that is
the picture itself: a latent frame is four pixel frames, a token one 8 x 8 patch of them (768 numbers).
Self-attention is handed in by the caller as ``attend(layer, queries, keys, values)``, un-rotated, so that the
cache and its positions stay outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ff_bench.models.mini.motion import FEATURES, GRID, PATCH
from ff_bench.models.mini.motion_numbers import MOTION_NUMBERS
from ff_bench.models.mini.painting import VERSIONS
from ff_bench.models.mini.prompt import FRAMES_PER_LATENT, HUES, PALETTES, SPRITES, MiniPrompt
from ff_bench.models.mini.prompt_indices import NUMBERS, PromptIndices

TOKEN_DIM = FRAMES_PER_LATENT * 3 * PATCH * PATCH
MOTION_TOKENS = 4
"""Prompt tokens that carry the motion where nothing else does."""

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Size:
    """Dimensions of the network; head_dim x heads may be smaller than dim."""

    dim: int = 384
    depth: int = 6
    heads: int = 4
    head_dim: int = 64
    mlp: int = 1792
    cross: int = 128


def patchify(video: Tensor) -> Tensor:
    """Fold pixels into tokens, ordered by latent frame, row, column.

    Args:
        video: (B, T, 3, VIEW, VIEW) in [-1, 1], T a multiple of 4.

    Returns:
        (B, T / 4 * GRID * GRID, TOKEN_DIM).
    """
    batch, count = video.shape[:2]
    split = video.reshape(batch, count // FRAMES_PER_LATENT, FRAMES_PER_LATENT, 3, GRID, PATCH, GRID, PATCH)
    return split.permute(0, 1, 4, 6, 2, 3, 5, 7).reshape(batch, -1, TOKEN_DIM)


def unpatchify(tokens: Tensor) -> Tensor:
    """Undo `patchify`: (B, N, TOKEN_DIM) -> (B, T, 3, VIEW, VIEW)."""
    batch, count = tokens.shape[:2]
    split = tokens.reshape(batch, count // (GRID * GRID), GRID, GRID, FRAMES_PER_LATENT, 3, PATCH, PATCH)
    return split.permute(0, 1, 4, 5, 2, 6, 3, 7).reshape(batch, -1, 3, GRID * PATCH, GRID * PATCH)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return AdaLN of x (B, N, D), one shift and scale (B, G, D) for each of G equal groups of tokens."""
    batch, count, dim = x.shape
    grouped = F.layer_norm(x, (dim,)).view(batch, shift.shape[1], -1, dim)
    return torch.addcmul(shift[:, :, None], grouped, 1 + scale[:, :, None]).view(batch, count, dim)


def gated(x: Tensor, branch: Tensor, gate: Tensor) -> Tensor:
    """Return x + gate * branch, (B, N, D), one gate (B, G, D) for each of G equal groups of tokens."""
    batch, count, dim = x.shape
    groups = (batch, gate.shape[1], -1, dim)
    return torch.addcmul(x.view(groups), branch.view(groups), gate[:, :, None]).view(batch, count, dim)


class Block(nn.Module):
    """Self-attention through `attend`, cross-attention to the prompt, MLP; each behind its norm."""

    def __init__(self, size: Size) -> None:
        """Make the layers; `MiniNetwork` initialises them."""
        super().__init__()
        inner = size.heads * size.head_dim
        self.heads, self.head_dim = size.heads, size.head_dim
        self.qkv = nn.Linear(size.dim, 3 * inner)
        self.out = nn.Linear(inner, size.dim)
        self.query_norm = nn.Parameter(torch.ones(size.head_dim))
        self.key_norm = nn.Parameter(torch.ones(size.head_dim))
        self.cross_norm = nn.Parameter(torch.ones(size.dim))
        self.cross_query = nn.Linear(size.dim, size.cross)
        self.cross_kv = nn.Linear(size.dim, 2 * size.cross)
        self.cross_out = nn.Linear(size.cross, size.dim)
        self.up = nn.Linear(size.dim, size.mlp)
        self.down = nn.Linear(size.mlp, size.dim)
        self.table = nn.Parameter(torch.zeros(6, size.dim))

    def forward(self, x: Tensor, levels: Tensor, prompt: Tensor, attend: Attend, layer: int) -> Tensor:
        """Run the block.

        Args:
            x: (B, N, D).
            levels: (B, G, 6, D) modulation of each of G equal groups of tokens.
            prompt: (B, P, D).
            attend: self-attention, see `MiniNetwork.forward`.
            layer: number of this block.

        Returns:
            (B, N, D).
        """
        batch, count, _ = x.shape
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = (levels + self.table).to(x.dtype).unbind(2)
        seen = attend(layer, *self._projected(modulate(x, shift, scale)))
        x = gated(x, self.out(seen.transpose(1, 2).reshape(batch, count, -1)), gate)
        x = x + self._cross(x, prompt)
        hidden = F.gelu(self.up(modulate(x, shift_mlp, scale_mlp)), approximate="tanh")
        return gated(x, self.down(hidden), gate_mlp)

    def project(self, x: Tensor, levels: Tensor, attend: Attend, layer: int) -> None:
        """Hand queries, keys and values to `attend` and stop: what a cache needs of the last block."""
        shift, scale = (levels + self.table).to(x.dtype)[:, :, :2].unbind(2)
        attend(layer, *self._projected(modulate(x, shift, scale)))

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, H, N, head_dim), normalised, un-rotated."""
        qkv = self.qkv(x).view(*x.shape[:2], 3, self.heads, self.head_dim)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4)
        queries = F.rms_norm(queries, (self.head_dim,), self.query_norm.to(x.dtype), 1e-6)
        keys = F.rms_norm(keys, (self.head_dim,), self.key_norm.to(x.dtype), 1e-6)
        return queries, keys, values

    def _cross(self, x: Tensor, prompt: Tensor) -> Tensor:
        batch, count, dim = x.shape
        normed = F.rms_norm(x, (dim,), self.cross_norm.to(x.dtype), 1e-6)
        queries = self.cross_query(normed).view(batch, count, 2, -1).transpose(1, 2)
        keys, values = self.cross_kv(prompt).view(batch, prompt.shape[1], 2, 2, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(queries, keys, values)
        out: Tensor = self.cross_out(seen.transpose(1, 2).reshape(batch, count, -1))
        return out


class MiniNetwork(nn.Module):
    """The whole transformer, 13.6 M parameters at the default size.

    With features, every token is told where it looks, and the prompt tells looks and sizes. Without, a token
    knows its place in the view (an embedding of row and column, alike for all frames and worlds), and all
    motion comes from the prompt.
    """

    def __init__(self, size: Size | None = None, *, has_features: bool = True) -> None:
        """Make and initialise every layer.

        Args:
            size: dimensions; None takes the default.
            has_features: whether every token is told where it looks (`motion.token_features`).
        """
        super().__init__()
        self.size = size = size or Size()
        self.has_features = has_features
        self.patch = nn.Linear(TOKEN_DIM, size.dim)
        if has_features:
            self.feature = nn.Sequential(nn.Linear(FEATURES, 256), nn.GELU(), nn.Linear(256, size.dim))
        else:
            self.place = nn.Embedding(GRID * GRID, size.dim)
        self.time = nn.Sequential(nn.Linear(128, size.dim), nn.SiLU(), nn.Linear(size.dim, size.dim))
        self.level = nn.Linear(size.dim, 6 * size.dim)
        self.palette = nn.Embedding(PALETTES, size.dim)
        self.version = nn.Embedding(VERSIONS, size.dim)
        self.shape = nn.Embedding(len(SPRITES) + 1, size.dim)
        self.hue = nn.Embedding(len(HUES) + 1, size.dim)
        if has_features:
            self.number: nn.Module = nn.Linear(len(NUMBERS), size.dim)
        else:
            wide = nn.Linear(256, MOTION_TOKENS * size.dim)
            self.number = nn.Sequential(nn.Linear(MOTION_NUMBERS, 256), nn.GELU(), wide)
        blocks = [Block(size) for _ in range(size.depth)]
        self.blocks = nn.ModuleList(blocks)
        self.head_table = nn.Parameter(torch.zeros(2, size.dim))
        self.head = nn.Linear(size.dim, TOKEN_DIM)
        self._initialise(blocks)

    def read(
        self, prompts: list[MiniPrompt], device: torch.device | str, starts: Sequence[int] | None = None
    ) -> PromptIndices:
        """Read off the prompts what this network is told; `starts` as in `PromptIndices.of_clips`."""
        if self.has_features:
            return PromptIndices.of(prompts, device)
        return PromptIndices.of_clips(prompts, device, starts)

    def prompt_tokens(self, indices: PromptIndices) -> Tensor:
        """Embed prompts: (B, VERSIONS + 3, D), or (B, VERSIONS + 2 + MOTION_TOKENS, D) without features."""
        palettes = self.palette(indices.palettes) + self.version.weight
        looks = torch.stack([self.shape(indices.shapes), self.hue(indices.hues)], 1)
        numbers = self.number(indices.numbers).unflatten(-1, (-1, self.size.dim))
        return torch.cat([palettes, looks, numbers], 1)

    def forward(
        self,
        x: Tensor,
        features: Tensor | None,
        noise: Tensor,
        prompt: Tensor,
        attend: Attend,
        *,
        cache_only: bool = False,
    ) -> Tensor:
        """Predict the clean tokens.

        Args:
            x: (B, N, TOKEN_DIM) noisy tokens of whole latent frames.
            features: (B, N, FEATURES) from `motion.token_features`; None for a network without.
            noise: (B, G) noise level in [0, 1] of each of G equal groups of tokens.
            prompt: (B, P, D) from `prompt_tokens`.
            attend: self-attention, `(layer, queries, keys, values) -> (B, H, N, head_dim)`, all un-rotated.
            cache_only: stop at the last block's keys and values.

        Returns:
            (B, N, TOKEN_DIM), the predicted x0; `x` where `cache_only`.
        """
        hidden = self.patch(x)
        hidden = hidden + self._told(hidden, features)
        embedded = self.time(_sinusoid(noise).to(x.dtype))
        levels = self.level(F.silu(embedded)).unflatten(-1, (6, self.size.dim))
        for layer, block in enumerate(self.blocks):
            if cache_only and layer == self.size.depth - 1:
                assert isinstance(block, Block), type(block)
                block.project(hidden, levels, attend, layer)
                return x
            hidden = block(hidden, levels, prompt, attend, layer)
        shift, scale = (self.head_table + embedded[:, :, None]).to(hidden.dtype).unbind(2)
        predicted: Tensor = self.head(modulate(hidden, shift, scale))
        return predicted

    def _told(self, x: Tensor, features: Tensor | None) -> Tensor:
        """Embed what each token is told besides its content: (B, N, D), or (N, D) without features."""
        if self.has_features:
            assert features is not None
            told: Tensor = self.feature(features)
            return told
        return self.place.weight.repeat(x.shape[1] // len(self.place.weight), 1).to(x.dtype)

    def _initialise(self, blocks: Sequence[Block]) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                wide = module.in_features > 256
                nn.init.normal_(module.weight, std=0.02 if wide else 0.5 * module.in_features**-0.5)
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.3)
        for block in blocks:
            for linear in (block.out, block.cross_out, block.down):
                nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * self.size.depth))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.level.weight)
        with torch.no_grad():
            gates = self.level.bias.view(6, self.size.dim)
            gates[2] = gates[5] = 1.0


def _sinusoid(noise: Tensor) -> Tensor:
    """Embed noise levels in [0, 1]: (B, G) -> (B, G, 128)."""
    rates = torch.exp(-math.log(1000.0) * torch.arange(64, device=noise.device) / 64)
    angle = noise.float()[..., None] * 100 * rates
    return torch.cat([angle.sin(), angle.cos()], -1)
