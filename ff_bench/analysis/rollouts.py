"""Full-cache rollouts that somebody watches, through the real code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ff_bench import prefixes
from ff_bench.generate import make_take
from ff_bench.making import start_policy
from ff_bench.models.base import Model
from ff_bench.rollout import Chunk, rollout
from ff_bench.runs import VideoSpec
from policies.full import Full


def watched(model: Model, spec: VideoSpec, watcher: Full, *, passes: str) -> Iterator[Chunk]:
    """Generate one video with the full cache, prefix first; nothing is decoded.

    Args:
        model: the backbone.
        spec: the video; its configuration is one of the full cache.
        watcher: a full cache whose `observe` sees every pass asked for.
        passes: `clean` or `all`.

    Yields:
        Every chunk.
    """
    config = spec.config
    given = prefixes.length(config, spec.prompt)
    prefix = prefixes.latents(model, config, [spec], given)
    take = replace(make_take(model, config, [spec], prefix), decode=False)
    widest = max(turn.widest for turn in model.turns(take.latent_frames, steps=take.steps))
    context = start_policy(
        watcher, model.shape, config, prompts=take.prompts, seeds=take.seeds, frames=take.latent_frames,
        prefix_frames=given, pass_tokens=widest * model.shape.frame_tokens, passes=passes,
    )  # fmt: skip
    yield from rollout(model, context, take)
