"""The rollout: a video chunk by chunk, its passes in order, under one cache. The only place that knows that order.

For each chunk: the noisy passes of the model's schedule, then the clean pass, which writes keys and values; the policy
observes passes and brings the cache back to its budget after the clean one. Chunks of a prefix are given, not denoised:
they see the clean pass alone, and the cache keeps all of them until the prefix ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ff_bench import noise
from ff_bench.models.base import Model, Pass
from policies.context import Context


@dataclass(frozen=True)
class Take:
    """What is generated side by side.

    Attributes:
        prompts: B prompts.
        seeds: B seeds.
        latent_frames: length in latent frames, whole chunks.
        steps: noisy passes per chunk.
        prefix: (B, P, C, h, w) latents given for the first P frames, whole chunks; None without a prefix.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    latent_frames: int
    steps: int
    prefix: Tensor | None = None


@dataclass(frozen=True)
class Chunk:
    """One finished chunk.

    Attributes:
        number: from 0.
        first_frame: its first latent frame.
        is_prefix: whether it was given.
        latents: (B, F, C, h, w).
        seconds: wall seconds of the chunk, without decoding.
        policy_seconds: part of them in observe and compress.
        summary: numbers of the cache, see `Context.summary`.
    """

    number: int
    first_frame: int
    is_prefix: bool
    latents: Tensor
    seconds: float
    policy_seconds: float
    summary: dict[str, object]


def rollout(model: Model, context: Context, take: Take) -> Iterator[Chunk]:
    """Generate `take` under `context`, one chunk at a time.

    Args:
        model: the backbone.
        context: fresh caches with their policy; capacity for the longest context of the take.
        take: what to generate.

    Yields:
        Every chunk, prefix first.
    """
    with torch.inference_mode():
        conditioning = model.encode(take.prompts)
    schedule = model.schedule(take.steps)
    frames = model.shape.chunk_frames
    given = 0 if take.prefix is None else take.prefix.shape[1]
    for number in range(take.latent_frames // frames):
        first = number * frames
        begin = time.perf_counter()
        context.reset_policy_seconds()
        with torch.inference_mode():
            context.start_chunk(number, first)
            latents = take.prefix[:, first : first + frames].to(context.device) if take.prefix is not None and first < given else None
            latents = _passes(model, context, take, conditioning, schedule, number, latents)
            context.finish_chunk(compress=first + frames >= given)
            policy_seconds = context.policy_seconds  # waits for the device
            _wait(context.device)
        seconds = time.perf_counter() - begin
        yield Chunk(number, first, first < given, latents, seconds, policy_seconds, context.summary())


def _passes(
    model: Model, context: Context, take: Take, conditioning: object, schedule: Sequence[Pass], number: int, given: Tensor | None
) -> Tensor:
    """Run the passes of one chunk; with `given` latents the clean ones alone. Returns the chunk's latents."""
    frames = model.shape.chunk_frames
    latents = _noise(model, take, number, 0).to(context.device) if given is None else given
    for index, step in enumerate(schedule):
        if given is not None and not step.commit:
            continue
        level = torch.full((len(take.prompts), frames), step.level, device=context.device)
        context.start_pass(level, step.commit)
        predicted = model.denoise(latents, level, conditioning, context.attend, first_frame=number * frames)
        if not step.commit:
            fresh = _noise(model, take, number, index + 1).to(context.device) if model.renoises else None
            latents = model.advance(latents, predicted, step, fresh)
    return latents


def _noise(model: Model, take: Take, chunk: int, step: int) -> Tensor:
    shape = (model.shape.chunk_frames, *model.latent_shape)
    return torch.stack([noise.draw(prompt, seed, chunk=chunk, step=step, shape=shape) for prompt, seed in zip(take.prompts, take.seeds, strict=True)])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
