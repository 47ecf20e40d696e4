"""A member of the Wan family with a tiny transformer of random weights: all of its ways in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ff_bench.models.facts import Native
from ff_bench.models.wan import layouts
from ff_bench.models.wan.backbone import Wan
from ff_bench.models.wan.member import Checkpoint, Member, Source
from ff_bench.models.wan.network import Size, WanNetwork
from ff_bench.models.wan.seeded import random_weights

SIZE = Size(dim=96, heads=3, head_dim=32, layers=2, ffn=192, freq_dim=32, text_dim=40)
TEXT_TOKENS = 16
HEIGHT, WIDTH = 48, 64
"""Pixels: latents of 6 x 8, 12 tokens a frame."""


def tiny_source(path: Path | None = None, name: str = "nothing") -> Source:
    """Say where a file is: at `path`, else in a repository that nobody has."""
    where = None if path is None else str(path)
    return Source(where, repo=f"nobody/{name}", file=f"{name}.pt", licence="none at all")


def tiny_member(**changes: Any) -> Member:
    fields: dict[str, Any] = {
        "name": "tiny", "layers": SIZE.layers, "heads": SIZE.heads, "head_dim": SIZE.head_dim,
        "height": HEIGHT, "width": WIDTH, "fps": 16, "chunk_frames": 3, "first_chunk_frames": 3,
        "window_frames": 21, "passes": "chunkwise", "steps": (1000.0, 750.0, 500.0, 250.0),
        "first_steps": None, "shift": 5.0, "warp": True, "clean_step": 0.0, "recache_frames": 0,
        "recache_sink": False, "text_tokens": TEXT_TOKENS, "native": Native("all", "full"),
        "checkpoint": Checkpoint(tiny_source(), key=None, ema=True),
        "text_encoder": tiny_source(name="text"), "tokenizer": tiny_source(name="words"),
        "vae": tiny_source(name="vae"), "offload": False, "decoder": "vae",
        "preview": tiny_source(name="preview"),
    }  # fmt: skip
    return Member(**{**fields, **changes})


def tiny_network(seed: int = 0, dtype: torch.dtype = torch.float32, size: Size = SIZE) -> WanNetwork:
    network = WanNetwork(size)
    network.load_state_dict(layouts.fused(random_weights(size, seed)))
    return network.to(dtype).eval().requires_grad_(False)


def embed(prompts: Sequence[str]) -> Tensor:
    """Embed prompts: noise that follows from their letters, zeros behind it."""
    rows = torch.zeros(len(prompts), TEXT_TOKENS, SIZE.text_dim)
    for row, prompt in zip(rows, prompts, strict=True):
        generator = torch.Generator().manual_seed(sum(map(ord, prompt)))
        row[:10] = torch.randn(10, SIZE.text_dim, generator=generator)
    return rows


def tiny_model(seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> Wan:
    """Make a backbone; `changes` are those of its member."""
    return Wan(tiny_member(**changes), tiny_network(seed, dtype), f"tiny {seed}", embed=embed)


def dense(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend inside of the pass, without positions."""
    return torch.nn.functional.scaled_dot_product_attention(queries, keys, values)
