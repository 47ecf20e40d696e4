"""The rollout: a video chunk by chunk under one cache. The only place that knows the order of passes.

For each chunk: the noisy passes of the model's schedule, then the clean pass, which writes keys and values;
the policy observes passes and brings the cache back to its budget after the clean one. Chunks of a prefix are
given, not denoised: they see the clean pass alone, and the cache keeps all of them until the prefix ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ff_bench import noise
from ff_bench.models.base import Model
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
    summary: dict[str, Any]


def rollout(model: Model, context: Context, take: Take) -> Iterator[Chunk]:
    """Generate `take` under `context`, one chunk at a time.

    Args:
        model: the backbone.
        context: fresh caches with their policy; capacity for the longest context of the take.
        take: what to generate.

    Yields:
        Every chunk, prefix first.

    Raises:
        FloatingPointError: at the first chunk whose latents are not finite, naming it and its videos.
    """
    with torch.inference_mode():
        conditioning = model.encode(take.prompts)
    frames = model.shape.chunk_frames
    prefix_frames = 0 if take.prefix is None else take.prefix.shape[1]
    for number in range(take.latent_frames // frames):
        first = number * frames
        begin = time.perf_counter()
        context.reset_policy_seconds()
        with torch.inference_mode():
            context.start_chunk(number, first)
            latents = _passes(model, context, take, conditioning=conditioning, number=number)
            is_finite = torch.isfinite(latents).flatten(1).all(1)
            context.finish_chunk(compress=first + frames >= prefix_frames)
            policy_seconds = context.policy_seconds  # waits for the device
            _wait(context.device)
        seconds = time.perf_counter() - begin
        _check_finite(is_finite, take, f"chunk {number} under policy '{context.policy.name}'")
        is_prefix = first < prefix_frames
        yield Chunk(number, first, is_prefix, latents, seconds, policy_seconds, context.summary())


def _passes(model: Model, context: Context, take: Take, *, conditioning: object, number: int) -> Tensor:
    """Run the passes of one chunk, of a given one the clean pass alone; return latents (B, F, C, h, w)."""
    frames = model.shape.chunk_frames
    first, schedule = number * frames, model.schedule(take.steps)
    if take.prefix is not None and first < take.prefix.shape[1]:
        latents = take.prefix[:, first : first + frames].to(context.device)
        schedule = tuple(step for step in schedule if step.commit)
    else:
        latents = _noise(model, take, number, step=0).to(context.device)
    for index, step in enumerate(schedule):
        level = torch.full((len(take.prompts), frames), step.level, device=context.device)
        context.start_pass(level, step.commit, cache_only=step.commit)
        predicted = model.denoise(
            latents, level, conditioning, context.attend, first_frame=first, cache_only=step.commit
        )
        if not step.commit:
            fresh = _noise(model, take, number, step=index + 1).to(context.device) if model.renoises else None
            latents = model.advance(latents, predicted, step, fresh)
    return latents


def _noise(model: Model, take: Take, chunk: int, *, step: int) -> Tensor:
    shape = (model.shape.chunk_frames, *model.latent_shape)
    return torch.stack(
        [
            noise.draw(prompt, seed, chunk=chunk, step=step, shape=shape)
            for prompt, seed in zip(take.prompts, take.seeds, strict=True)
        ]
    )


def _check_finite(is_finite: Tensor, take: Take, where: str) -> None:
    """Raise unless the latents of every video are numbers; is_finite (B,) bool."""
    lost = [index for index, fine in enumerate(is_finite.tolist()) if not fine]
    if lost:
        videos = ", ".join(f"'{take.prompts[index]}' seed {take.seeds[index]}" for index in lost)
        raise FloatingPointError(f"latents are not finite in {where}: {videos}")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
