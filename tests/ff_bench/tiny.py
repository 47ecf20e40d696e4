"""A network of the embedded model's kind with random weights: all of its ways in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import policies
from ff_bench.models.mini.backbone import Mini
from ff_bench.models.mini.network import MiniNetwork, Size
from ff_bench.rollout import Chunk, Take, rollout
from policies.base import Budget, Protocol
from policies.context import Context

SIZE = Size(dim=96, depth=2, heads=2, head_dim=64, mlp=192, cross=32)
PROMPTS = (
    "orbit palette=3 speed=-4 sprite=disc hue=teal path=907",
    "cut palette=1 speed=3 sprite=box hue=red path=955",
)
STEPS = 2
CHUNK = 192
"""Tokens of a chunk."""


def tiny_network(seed: int = 0) -> MiniNetwork:
    """Make a network whose every layer says something (a fresh one predicts zeros)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _spoken(MiniNetwork(SIZE))


def randomised(network: MiniNetwork, *, seed: int) -> MiniNetwork:
    """Draw every layer of a network anew, so that each says something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _spoken(network)


def _spoken(network: MiniNetwork) -> MiniNetwork:
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0, module.in_features**-0.5)
    return network


def tiny_model(seed: int = 0) -> Mini:
    return Mini(tiny_network(seed), checkpoint=f"tiny {seed}")


def roll(
    model: Mini,
    name: str,
    *,
    tokens: int | None,
    frames: int = 18,
    prefix: Tensor | None = None,
    prompts: Sequence[str] = PROMPTS[:1],
    seeds: Sequence[int] = (0,),
    position: str = "absolute",
    sink: int = 0,
) -> list[Chunk]:
    """Run a policy of that name, with one recent chunk protected."""
    budget = Budget(tokens, sink, 0 if tokens is None else CHUNK)
    context = Context(
        policies.load(name)(),
        model.shape,
        budget,
        Protocol(position=position),
        batch=len(prompts),
        capacity_tokens=frames * model.shape.frame_tokens,
        seed=list(seeds),
    )
    return list(rollout(model, context, Take(prompts, seeds, frames, STEPS, prefix)))


def latents(chunks: Sequence[Chunk]) -> Tensor:
    """Join the latents of a rollout, (B, F, C, h, w)."""
    return torch.cat([chunk.latents for chunk in chunks], 1)
