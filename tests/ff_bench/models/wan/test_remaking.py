"""Keys and values that are made anew: when the prompt changes, and before every chunk."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import policies
from ff_bench.models.wan.backbone import Wan
from ff_bench.rollout import Chunk, Take, rollout
from policies.base import Budget, Protocol
from policies.context import Context
from tests.ff_bench.models.wan.tiny import dense, tiny_model

TOKENS = 12
"""Tokens of a latent frame."""


def context(model: Wan, name: str, frames: int | None, *, sink: int = 0, video: int = 30) -> Context:
    """Start a policy whose budget is `frames` latent frames."""
    position = "contiguous" if name == "recompute" else "absolute"
    return Context(
        policies.load(name)(),
        model.shape,
        Budget(None if frames is None else frames * TOKENS, sink=sink * TOKENS),
        Protocol(position=position),
        capacity_tokens=video * TOKENS if frames is None else frames * TOKENS,
    )


def clean(model: Wan, latents: Tensor, first: int, prompt: str) -> Context:
    """Return a cache of latents that were committed in one pass at their frames."""
    frames = latents.shape[1]
    made = context(model, "full", None)
    made.start_chunk(0, first, frames)
    made.start_pass(torch.zeros(1, frames), True)
    model.denoise(latents, torch.zeros(1, frames), model.encode([prompt]), made.attend, first_frame=first)
    return made


def test_a_new_prompt_remakes_the_whole_context_of_a_young_video() -> None:
    """LongLive up to its window: one pass over all frames, in both directions, sink and all."""
    model = tiny_model(recache_frames=12, recache_sink=True)
    caches = context(model, "attention_sink", 9, sink=3)
    take = Take(["one"], [0], 12, 4, switches={9: ["two"]}, decode=False)
    chunks = []
    for chunk in rollout(model, caches, take):
        chunks.append(chunk)
        if chunk.number == 2:
            before = [cache.keys.clone() for cache in caches.caches]
    assert [chunk.summary.get("recached") for chunk in chunks] == [None, None, None, [0, 9]]
    assert [chunk.summary.get("prompt") for chunk in chunks] == [None, None, None, 9]
    latents = torch.cat([chunk.latents for chunk in chunks], 1)
    expected = clean(model, latents[:, :9], 0, "two")
    for cache, other in zip(caches.caches, expected.caches, strict=True):
        held = cache.tokens[0, 0].long()
        held = held[held < 9 * TOKENS]  # the last chunk came behind
        torch.testing.assert_close(cache.keys[:, :, : len(held)], other.keys[:, :, held])
        torch.testing.assert_close(cache.values[:, :, : len(held)], other.values[:, :, held])
        torch.testing.assert_close(cache.rotated[:, :, : len(held)], other.rotated[:, :, held])
    second = caches.caches[1]  # the first layer's keys know nothing of the prompt
    held = second.tokens[0, 0].long()
    held = held[held < 9 * TOKENS]
    assert not torch.allclose(second.keys[:, :, : len(held)], before[1][:, :, held])


@pytest.mark.parametrize("sees", [True, False])
def test_an_older_sink_stays_and_is_seen(sees: bool) -> None:
    """LongLive behind its window: the sink keeps the first prompt; the pass sees it and its last frames."""
    model = tiny_model(recache_frames=12, recache_sink=sees)
    caches = context(model, "attention_sink", 9, sink=3)
    take = Take(["one"], [0], 24, 4, switches={18: ["two"]}, decode=False)
    made = rollout(model, caches, take)
    chunks = [next(made) for _ in range(6)]
    sinks = [cache.keys[:, :, : 3 * TOKENS].clone() for cache in caches.caches]
    old = [(cache.rotated.clone(), cache.values.clone()) for cache in caches.caches]
    seen: list[Tensor] = []
    attend = caches.attend

    def watched(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        out = attend(layer, queries, keys, values)
        if len(seen) < 2:  # the pass that makes anew is the first one
            seen.append(out)
            own = 9 if sees else 12
            expected = by_hand(caches, old[layer], queries, keys, values, first=6, own=own, sees=sees)
            torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
        return out

    caches.attend = watched  # type: ignore[method-assign]
    chunks.append(next(made))
    assert chunks[-1].summary["recached"] == ([9, 18] if sees else [6, 18])
    assert len(seen) == 2 and seen[0].shape[2] == 12 * TOKENS
    for cache, sink in zip(caches.caches, sinks, strict=True):
        assert torch.equal(cache.keys[:, :, : 3 * TOKENS], sink)


def by_hand(
    caches: Context,
    old: tuple[Tensor, Tensor],
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    first: int,
    own: int,
    sees: bool,
) -> Tensor:
    """Attend from all frames of the pass to the old sink and to the last `own` frames."""
    rope, frames = caches.shape.rope, queries.shape[2] // TOKENS
    grid = torch.meshgrid(
        torch.arange(first, first + frames),
        torch.arange(caches.shape.rows),
        torch.arange(caches.shape.columns),
        indexing="ij",
    )
    angles = rope.angles(*(axis.flatten() for axis in grid))
    skipped = (frames - own) * TOKENS
    mine = rope.rotate(keys, angles)[:, :, skipped:]
    sink = slice(0, 3 * TOKENS if sees else 0)
    return dense(
        0,
        rope.rotate(queries, angles),
        torch.cat([old[0][:, :, sink], mine], 2),
        torch.cat([old[1][:, :, sink], values[:, :, skipped:]], 2),
    )


def test_a_prompt_may_change_twice_and_the_same_prompt_changes_nothing_but_the_context() -> None:
    model = tiny_model()
    plain = [
        c.latents
        for c in rollout(model, context(model, "full", None), Take(["one"], [0], 12, 4, decode=False))
    ]
    same = Take(["one"], [0], 12, 4, switches={6: ["one"]}, decode=False)
    again = [chunk.latents for chunk in rollout(model, context(model, "full", None), same)]
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    twice = Take(["one"], [0], 12, 4, switches={4: ["two"], 5: ["three"], 9: ["one"]}, decode=False)
    chunks: list[Chunk] = list(rollout(model, context(model, "full", None), twice))
    assert [chunk.summary.get("prompt") for chunk in chunks] == [None, None, 6, 9]
    direct = Take(["one"], [0], 12, 4, switches={6: ["three"], 9: ["one"]}, decode=False)
    expected = list(rollout(model, context(model, "full", None), direct))
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(chunks, expected, strict=True))


def test_a_context_that_is_recomputed_is_that_of_its_latents_alone() -> None:
    model = tiny_model()
    caches = context(model, "recompute", 3)
    chunks: list[Chunk] = []
    for chunk in rollout(model, caches, Take(["one"], [0], 12, 4, decode=False)):
        if chunk.number:
            last = chunks[-1].latents
            expected = clean(model, last, 0, "one")
            for cache, other in zip(caches.caches, expected.caches, strict=True):
                torch.testing.assert_close(cache.keys, other.keys)
                torch.testing.assert_close(cache.values, other.values)
                torch.testing.assert_close(
                    cache.rotated, other.rotated
                )  # at frames 0, 1, 2 whatever the chunk
                assert cache.tokens[0, 0, 0] == (chunk.first_frame - 3) * TOKENS
        chunks.append(chunk)
    assert [chunk.summary.get("recomputed") for chunk in chunks] == [None, [0, 3], [3, 6], [6, 9]]


def test_what_a_moving_anchor_reaches_is_what_is_told() -> None:
    """Rolling-Forcing never looks further than its window, however old the anchor is."""
    model = tiny_model(passes="rolling", steps=(1000.0, 800.0, 600.0, 400.0, 200.0))
    caches = Context(
        policies.load("rolling_anchor")(),
        model.shape,
        Budget(21 * TOKENS, sink=3 * TOKENS),
        Protocol(position="absolute"),
        pass_tokens=15 * TOKENS,
    )
    chunks = list(rollout(model, caches, Take(["one"], [0], 42, 5, decode=False)))
    assert max(chunk.summary["max_distance"] for chunk in chunks) == 20
    assert [chunk.summary["max_distance"] for chunk in chunks[:3]] == [14, 17, 20]
    assert {chunk.summary["beyond_window"] for chunk in chunks} == {0.0}
