"""The policy, the protocol and the empty caches that a configuration stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

import policies
from ff_bench.config import RunConfig
from policies.base import Budget, Policy, Protocol, Shape
from policies.context import Context
from policies.wrappers import wrapped


def make_policy(config: RunConfig) -> Policy:
    """Build the policy of a configuration with its hyper-parameters and what goes around it.

    Raises:
        ValueError: With the policy's own sentence.
        TypeError: For fields that it does not have.
    """
    policy = policies.load(config.policy.name)(**config.policy.fields)
    return wrapped(policy, config.policy.wrap) if config.policy.wrap else policy


def make_protocol(config: RunConfig) -> Protocol:
    """Return what the caches need of a configuration's protocol."""
    kept = config.protocol
    return Protocol(
        passes=kept.passes, denominator=kept.denominator, unit=kept.unit, share=kept.share,
        position=kept.position, query_stride=kept.query_stride, charge_state=kept.charge_state,
    )  # fmt: skip


def start_policy(
    policy: Policy,
    shape: Shape,
    config: RunConfig,
    *,
    prompts: Sequence[str],
    seeds: Sequence[int],
    frames: int,
    prefix_frames: int,
    pass_tokens: int | None = None,
    passes: str = "",
) -> Context:
    """Tell a policy its videos and start it on empty caches with room for their longest context.

    Args:
        policy: what decides; the configuration's own or one in its place.
        shape: the model, or some of its layers and heads.
        config: protocol, budget, number format and device.
        prompts: of the videos side by side.
        seeds: of the same videos.
        frames: latent frames that a cache without budget comes to hold.
        prefix_frames: latent frames that are kept in full before the budget applies.
        pass_tokens: of the widest pass; None takes a chunk.
        passes: in place of the protocol's own.

    Raises:
        ValueError: With the policy's own sentence.
    """
    kept, tokens, protocol = config.protocol, config.budget.tokens, make_protocol(config)
    is_bound, whole = tokens is not None, frames * shape.frame_tokens
    in_prefix = (prefix_frames - shape.chunk_frames) * shape.frame_tokens
    policy.tell(prompts)
    return Context(
        policy,
        shape,
        Budget(tokens, kept.sink if is_bound else 0, kept.recent if is_bound else 0),
        replace(protocol, passes=passes or protocol.passes),
        batch=len(seeds),
        capacity_tokens=whole if tokens is None else max(min(tokens, whole), in_prefix),
        pass_tokens=pass_tokens,
        seed=list(seeds),
        dtype=getattr(torch, config.dtype),
        device=config.device,
    )
