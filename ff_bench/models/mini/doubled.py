"""Attention of the doubled sequence: the training graph of what inference does chunk by chunk with a cache.

A sequence of N clean tokens (the past as the cache will hold it) and the same N tokens with noise (the
present of every chunk) go through the network side by side. A clean token sees clean chunks up to its own, as
the clean pass does; a noisy token sees its own noisy chunk and the clean chunks before it, as a noisy pass
does. Training needs gradients and random visibility, inference neither; the same network serves both through
`attend`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ff_bench.models.mini.backbone import ROPE
from ff_bench.models.mini.motion import GRID
from ff_bench.models.mini.network import Attend, MiniNetwork
from ff_bench.models.mini.prompt_indices import PromptIndices
from ff_bench.models.mini.training import CHUNK_TOKENS

FORWARD_TILE: Any = {"fwd_BLOCK_M": 128, "fwd_BLOCK_N": 64, "fwd_num_warps": 4, "fwd_num_stages": 2}
"""FlexAttention's default forward tile is 25 times slower on sm_90 at head dim 64 with a score_mod."""

Attention = Callable[[Tensor, Tensor, Tensor], Attend]
"""From angles (B, N, head_dim / 2), keep (B, N) bool and recent (B,) int64 to an `attend` over 2 N tokens."""


@dataclass(frozen=True)
class Inputs:
    """One forward of B doubled sequences of C chunks, N tokens each half.

    Attributes:
        clean: (B, N, TOKEN_DIM) the past.
        noisy: (B, N, TOKEN_DIM) the present.
        features: (B, N, FEATURES) of both; None for a network without.
        level: (B, C) noise level of the noisy half in [0, 1].
        indices: the prompts.
        angles: (B, N, head_dim / 2) of both.
        keep: (B, N) bool, whether a clean token outlives the recent window.
        recent: (B,) int64, chunks of the recent window.
    """

    clean: Tensor
    noisy: Tensor
    features: Tensor | None
    level: Tensor
    indices: PromptIndices
    angles: Tensor
    keep: Tensor
    recent: Tensor


def predict(network: MiniNetwork, attention: Attention, features: Tensor | None, *inputs: Tensor) -> Tensor:
    """Predict x0 of the noisy half, (B, N, TOKEN_DIM); a plain function of tensors, so that it compiles.

    Args:
        network: the transformer.
        attention: over the doubled sequence.
        features: of `Inputs`.
        *inputs: clean, noisy, level, angles, keep and recent of `Inputs`, then the prompt's tokens (B, P, D).
    """
    clean, noisy, level, angles, keep, recent, prompt = inputs
    doubled = torch.cat([clean, noisy], 1)
    both = None if features is None else torch.cat([features, features], 1)
    levels = torch.cat([torch.zeros_like(level), level], 1)
    attend = attention(angles, keep, recent)
    out: Tensor = network(doubled, both, levels, prompt, attend)
    return out[:, clean.shape[1] :]


def spread(per_chunk: Tensor) -> Tensor:
    """Repeat a number per chunk for each of its tokens: (B, C) -> (B, N)."""
    return per_chunk.repeat_interleave(CHUNK_TOKENS, 1)


def token_angles(latent_frames: Tensor) -> Tensor:
    """Return the RoPE angles (B, N, head_dim / 2) of the tokens of `latent_frames` (B, F)."""
    times = latent_frames[..., None, None].expand(-1, -1, GRID, GRID).flatten(1)
    side = torch.arange(GRID, device=latent_frames.device)
    whole = (latent_frames.shape[1], GRID, GRID)
    row, column = side[:, None].expand(whole).flatten(), side.expand(whole).flatten()
    return ROPE.angles(times, row.expand_as(times), column.expand_as(times))


def visible(query: Tensor, key: Tensor, tokens: int) -> Tensor:
    """Tell which query may see which key of the doubled sequence [clean, noisy], before anything is dropped.

    Args:
        query: int64 index into 2 x `tokens`.
        key: likewise; both broadcast.
        tokens: N.
    """
    query_chunk, key_chunk = query % tokens // CHUNK_TOKENS, key % tokens // CHUNK_TOKENS
    clean_key = (key < tokens) & (((query < tokens) & (key_chunk <= query_chunk)) | (key_chunk < query_chunk))
    return clean_key | ((key >= tokens) & (query >= tokens) & (key_chunk == query_chunk))


def rotation_of(angles: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a differentiable rotation of (B, H, 2 N, D) by angles (B, N, D / 2), alike for both halves."""
    doubled = torch.cat([angles, angles], 1)[:, None]
    cos, sin = doubled.cos(), doubled.sin()

    def turn(x: Tensor) -> Tensor:
        first, second = ROPE.pairs(x.float())  # layout half
        return torch.cat([first * cos - second * sin, first * sin + second * cos], -1).to(x.dtype)

    return turn


def flex_attention_of(tokens: int, device: torch.device) -> Attention:
    """Return FlexAttention over 2 x `tokens`: visibility is a score_mod, the structure a block mask."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def structure(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return visible(q, k, tokens)

    mask = create_block_mask(structure, None, None, 2 * tokens, 2 * tokens, device=str(device))

    def make(angles: Tensor, keep: Tensor, recent: Tensor) -> Attend:
        turn = rotation_of(angles)

        def hide(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            distance = q % tokens // CHUNK_TOKENS - k % tokens // CHUNK_TOKENS
            seen = (k >= tokens) | (distance <= recent[b]) | keep[b, k % tokens]
            return torch.where(seen, score, -float("inf"))

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            rotated = (turn(queries), turn(keys))
            return flex_attention(
                *rotated, values, score_mod=hide, block_mask=mask, kernel_options=FORWARD_TILE
            )

        return attend

    return make


def dense_attention_of(tokens: int) -> Attention:
    """Return the same with a dense mask, for a CPU and short sequences."""
    index = torch.arange(2 * tokens)
    structure = visible(index[:, None], index[None], tokens)
    distance = index[:, None] % tokens // CHUNK_TOKENS - index[None] % tokens // CHUNK_TOKENS

    def make(angles: Tensor, keep: Tensor, recent: Tensor) -> Attend:
        turn = rotation_of(angles)
        seen = (index >= tokens) | (distance <= recent[:, None, None]) | torch.cat([keep, keep], 1)[:, None]
        mask = (structure & seen)[:, None]

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(turn(queries), turn(keys), values, attn_mask=mask)

        return attend

    return make
