"""A model of noise: random queries, keys and values in the order of a real rollout."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from policies.base import Budget, Pass, Policy, Protocol, Shape
from policies.cache import LayerCache
from policies.context import Context
from policies.rope import Rope

SHAPE = Shape(
    layers=2,
    query_heads=2,
    heads=2,
    head_dim=16,
    rows=2,
    columns=4,
    chunk_frames=3,
    window_frames=12,
    rope=Rope((8, 4, 4), (1000.0, 100.0, 100.0)),
)
GROUPED = dataclasses.replace(SHAPE, query_heads=4)
CHUNKS = 6
BUDGET = Budget(64, sink=8, recent=24)  # 8 frames of 8 tokens; the video has 18
Edit = Callable[[Tensor], Tensor]


@dataclass
class Stream:
    """What a run leaves behind."""

    context: Context
    outputs: list[Tensor] = field(default_factory=list)
    tokens: list[list[Tensor]] = field(default_factory=list)  # per chunk and layer, (B, H, S)


def tensors(shape: Shape, *, batch: int, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values number so-and-so, the same for every policy and batch."""
    parts = []
    for element in range(batch):
        generator = torch.Generator().manual_seed(1000 * number + element)
        heads = (shape.query_heads, shape.heads, shape.heads)
        parts.append([torch.randn(h, shape.chunk_tokens, shape.head_dim, generator=generator) for h in heads])
    queries, keys, values = (torch.stack(part) for part in zip(*parts, strict=True))
    return 2 * queries, 2 * keys, values


def run(
    policy: Policy,
    budget: Budget = BUDGET,
    protocol: Protocol | None = None,
    *,
    shape: Shape = SHAPE,
    chunks: int = CHUNKS,
    passes: int = 2,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    edit: Edit = lambda x: x,
    before_finish: Callable[[LayerCache], None] = lambda cache: None,
    prefix: int = 0,
    seed: int | list[int] = 7,
    capacity: int | None = None,
) -> Stream:
    """Run a policy over ``chunks`` chunks of ``passes`` passes, the last of which commits."""
    context = Context(
        policy, shape, budget, Protocol(position="absolute") if protocol is None else protocol,
        batch=edit(torch.zeros(batch, shape.heads, 1, 1)).shape[0],
        capacity_tokens=capacity or chunks * shape.chunk_tokens, seed=seed, dtype=dtype,
    )  # fmt: skip
    stream = Stream(context)
    for chunk in range(chunks):
        context.start_chunk(chunk, chunk * shape.chunk_frames, compress=chunk >= prefix)
        for index in range(passes):
            noise = torch.full((batch, shape.chunk_frames), 1 - index / passes)
            context.start_pass(noise, index == passes - 1)
            for layer in range(shape.layers):
                number = (chunk * passes + index) * shape.layers + layer + 1
                parts = [edit(x).to(dtype) for x in tensors(shape, batch=batch, number=number)]
                stream.outputs.append(context.attend(layer, *parts))
        for cache in context.caches:
            before_finish(cache)
        context.finish_chunk()
        stream.tokens.append([cache.tokens.clone() for cache in context.caches])
    return stream


def record(policy: Policy) -> list[tuple[Tensor, LayerCache, Pass]]:
    """Make a policy remember its scores, with what they were taken from."""
    found: list[tuple[Tensor, LayerCache, Pass]] = []
    original = policy.score

    def score(cache: LayerCache, step: Pass) -> Tensor:
        found.append((original(cache, step).clone(), cache, step))
        return found[-1][0]

    policy.score = score  # type: ignore[method-assign]
    return found
