"""The transformer of Wan2.1 with one time step per latent frame: what every member of the family is made of.

It holds no cache, no positions and no mask. Self-attention is handed in by the caller as
``attend(layer, queries, keys, values)``, all un-rotated, so that members differ outside of this file only.
Names of parameters are those of the original files, but for the fused projections (`layouts.py`).

The order of roundings is that of the original: everything between two norms is in the format of the weights.

Source: arXiv 2503.20314; guandeh17/Self-Forcing@33593df3 wan/modules/causal_model.py and model.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 2
"""Latent rows and columns of one token."""
EPSILON = 1e-6

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
TextKV = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Size:
    """Dimensions of the network.

    Attributes:
        dim: channels of a token.
        heads: attention heads.
        head_dim: channels of a head; heads x head_dim is `dim`.
        layers: transformer blocks.
        ffn: hidden channels of the feed-forward part.
        freq_dim: channels of the sinusoid of a time step.
        text_dim: channels of a prompt embedding.
        in_channels: channels of a latent frame, in and out.
    """

    dim: int
    heads: int
    head_dim: int
    layers: int
    ffn: int
    freq_dim: int = 256
    text_dim: int = 4096
    in_channels: int = 16

    def __post_init__(self) -> None:
        """Reject heads that do not fill the channels."""
        if self.heads * self.head_dim != self.dim:
            raise ValueError(f"size.dim is {self.dim}; allowed: {self.heads} x {self.head_dim}")

    @property
    def patch_channels(self) -> int:
        """Numbers of one token of a latent frame."""
        return self.in_channels * PATCH * PATCH


def patchify(latent: Tensor) -> Tensor:
    """Unfold latents (B, F, C, h, w) into tokens (B, F*h/2*w/2, C*4): frame, row, column; channel first."""
    batch, frames, channels, height, width = latent.shape
    split = latent.view(batch, frames, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return split.permute(0, 1, 3, 5, 2, 4, 6).reshape(batch, -1, channels * PATCH * PATCH)


def unpatchify(tokens: Tensor, shape: torch.Size) -> Tensor:
    """Fold tokens (B, N, 4*C), channel last, into latents of `shape` (B, F, C, h, w)."""
    batch, frames, channels, height, width = shape
    split = tokens.view(batch, frames, height // PATCH, width // PATCH, PATCH, PATCH, channels)
    return split.permute(0, 1, 6, 2, 4, 3, 5).reshape(shape)


def sinusoid(timestep: Tensor, channels: int) -> Tensor:
    """Embed time steps in [0, 1000]: (B, F) -> (B, F, channels) fp64, cosines first."""
    half = channels // 2
    steps = torch.arange(half, dtype=torch.float64, device=timestep.device)
    angles = timestep.double()[..., None] * torch.pow(10000, -steps / half)
    return torch.cat([angles.cos(), angles.sin()], -1)


class RMSNorm(nn.Module):
    """Root mean square norm over all heads at once; rounded to the input's format before the weight."""

    def __init__(self, dim: int) -> None:
        """Make the weight (dim,)."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., dim)."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPSILON)
        return normed.to(x.dtype) * self.weight


def modulated(z: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return LN(z) * (1 + scale) + shift, (B, N, d), both (B, F, 1, d) for F equal groups of tokens."""
    normed = F.layer_norm(z, z.shape[-1:], eps=EPSILON)
    grouped = normed.view(z.shape[0], shift.shape[1], -1, z.shape[2])
    return (grouped * (1 + scale) + shift).view(z.shape)


def gated(z: Tensor, branch: Tensor, gate: Tensor) -> Tensor:
    """Return z + branch * gate, (B, N, d), one gate (B, F, 1, d) for each of F equal groups of tokens."""
    grouped = branch.view(z.shape[0], gate.shape[1], -1, z.shape[2])
    return z + (grouped * gate).view(z.shape)


def by_head(x: Tensor, heads: int) -> Tensor:
    """View tokens (B, N, H * D) head by head, (B, H, N, D)."""
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)


class SelfAttention(nn.Module):
    """Projections around an attention that is computed elsewhere."""

    def __init__(self, size: Size) -> None:
        """Make the layers, uninitialised but for torch's defaults."""
        super().__init__()
        self.heads = size.heads
        self.qkv = nn.Linear(size.dim, 3 * size.dim)
        self.o = nn.Linear(size.dim, size.dim)
        self.norm_q = RMSNorm(size.dim)
        self.norm_k = RMSNorm(size.dim)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, H, N, D) of tokens (B, N, d), un-rotated; views of (B, N, H, D)."""
        queries, keys, values = self.qkv(x).chunk(3, -1)
        queries, keys = self.norm_q(queries), self.norm_k(keys)
        return by_head(queries, self.heads), by_head(keys, self.heads), by_head(values, self.heads)

    def join(self, attended: Tensor) -> Tensor:
        """Project what was attended (B, H, N, D) back to tokens (B, N, d)."""
        out: Tensor = self.o(attended.transpose(1, 2).flatten(2))
        return out


class CrossAttention(nn.Module):
    """Attention to all tokens of the prompt, padding included: the models were trained without a mask."""

    def __init__(self, size: Size) -> None:
        """Make the layers, uninitialised but for torch's defaults."""
        super().__init__()
        self.heads = size.heads
        self.q = nn.Linear(size.dim, size.dim)
        self.kv = nn.Linear(size.dim, 2 * size.dim)
        self.o = nn.Linear(size.dim, size.dim)
        self.norm_q = RMSNorm(size.dim)
        self.norm_k = RMSNorm(size.dim)

    def text_kv(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, T, D) of embedded text (B, T, d); they are kept, so nothing else is."""
        keys, values = self.kv(text).chunk(2, -1)
        return by_head(self.norm_k(keys), self.heads), by_head(values.contiguous(), self.heads)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend from tokens (B, N, d) to the text."""
        queries = by_head(self.norm_q(self.q(x)), self.heads)
        attended = F.scaled_dot_product_attention(queries, keys, values)
        out: Tensor = self.o(attended.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Self-attention, cross-attention and feed-forward, in two halves around `attend`."""

    def __init__(self, size: Size) -> None:
        """Make the layers, uninitialised but for torch's defaults."""
        super().__init__()
        self.modulation = nn.Parameter(torch.zeros(1, 6, size.dim))
        self.self_attn = SelfAttention(size)
        self.norm3 = nn.LayerNorm(size.dim, eps=EPSILON)
        self.cross_attn = CrossAttention(size)
        self.ffn = nn.Sequential(
            nn.Linear(size.dim, size.ffn), nn.GELU(approximate="tanh"), nn.Linear(size.ffn, size.dim)
        )

    def before(self, z: Tensor, modulation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prepare self-attention.

        Args:
            z: (B, N, d) tokens of F latent frames.
            modulation: (B, F, 6, d) from the time steps.

        Returns:
            Queries, keys, values (B, H, N, D), un-rotated.
        """
        shift, scale = (self.modulation[:, None, :2] + modulation[:, :, :2]).chunk(2, 2)
        return self.self_attn.project(modulated(z, shift, scale))

    def after(
        self, z: Tensor, attended: Tensor, modulation: Tensor, text_k: Tensor, text_v: Tensor
    ) -> Tensor:
        """Do everything behind self-attention.

        Args:
            z: (B, N, d), as given to `before`.
            attended: (B, H, N, D) result of self-attention.
            modulation: (B, F, 6, d), as given to `before`.
            text_k: (B, H, T, D) keys of the prompt.
            text_v: (B, H, T, D) values of the prompt.

        Returns:
            (B, N, d).
        """
        gate, shift, scale, ffn_gate = (self.modulation[:, None, 2:] + modulation[:, :, 2:]).chunk(4, 2)
        z = gated(z, self.self_attn.join(attended), gate)
        z = z + self.cross_attn(self.norm3(z), text_k, text_v)
        return gated(z, self.ffn(modulated(z, shift, scale)), ffn_gate)


class Head(nn.Module):
    """Modulated norm and the projection to patches."""

    def __init__(self, size: Size) -> None:
        """Make the layers, uninitialised but for torch's defaults."""
        super().__init__()
        self.modulation = nn.Parameter(torch.zeros(1, 2, size.dim))
        self.head = nn.Linear(size.dim, size.patch_channels)

    def forward(self, z: Tensor, embedded: Tensor) -> Tensor:
        """Turn tokens (B, N, d) and the embedded time steps (B, F, d) into patches (B, N, 4*C)."""
        shift, scale = (self.modulation[:, None] + embedded[:, :, None]).chunk(2, 2)
        out: Tensor = self.head(modulated(z, shift, scale))
        return out


class WanNetwork(nn.Module):
    """The whole transformer: 1.42 G parameters at the size of the 1.3B members, 14.3 G at 14B."""

    def __init__(self, size: Size) -> None:
        """Make every layer; `checkpoint.load_network` fills them.

        Args:
            size: dimensions.
        """
        super().__init__()
        self.size = size
        self.patch_embedding = nn.Linear(size.patch_channels, size.dim)
        self.text_embedding = nn.Sequential(
            nn.Linear(size.text_dim, size.dim), nn.GELU(approximate="tanh"), nn.Linear(size.dim, size.dim)
        )
        self.time_embedding = nn.Sequential(
            nn.Linear(size.freq_dim, size.dim), nn.SiLU(), nn.Linear(size.dim, size.dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(size.dim, 6 * size.dim))
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.head = Head(size)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return self.patch_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.patch_embedding.weight.device

    def text_kv(self, embeddings: Tensor) -> TextKV:
        """Keys and values of prompts, a pure function of the embeddings and the weights.

        Args:
            embeddings: (B, T, text_dim), zeros behind the prompt.

        Returns:
            Per layer, keys and values (B, H, T, D).
        """
        text = self.text_embedding(embeddings.to(self.dtype))
        return [block.cross_attn.text_kv(text) for block in self._blocks()]

    def forward(
        self,
        latent: Tensor,
        timestep: Tensor,
        text_kv: Sequence[tuple[Tensor, Tensor]],
        attend: Attend,
        *,
        cache_only: bool = False,
    ) -> Tensor:
        """Predict the flow, noise minus picture.

        Args:
            latent: (B, F, C, h, w) noisy latent frames, neighbours in time.
            timestep: (B, F) fp32 in [0, 1000], one for each frame.
            text_kv: from `text_kv`.
            attend: self-attention, `(layer, queries, keys, values) -> (B, H, N, D)`, all un-rotated.
            cache_only: stop behind the last layer's `attend`.

        Returns:
            (B, F, C, h, w) in the format of the weights; `latent` where `cache_only`.
        """
        z = self.patch_embedding(patchify(latent.to(self.dtype)))  # (B, N, d)
        embedded = self.time_embedding(sinusoid(timestep, self.size.freq_dim).to(self.dtype))  # (B, F, d)
        modulation = self.time_projection(embedded).unflatten(-1, (6, self.size.dim))  # (B, F, 6, d)
        for layer, block in enumerate(self._blocks()):
            attended = attend(layer, *block.before(z, modulation))
            if cache_only and layer == self.size.layers - 1:
                return latent
            z = block.after(z, attended, modulation, *text_kv[layer])
        return unpatchify(self.head(z, embedded), latent.shape)

    def _blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))
