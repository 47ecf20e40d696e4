"""The reference that knows the world, against places counted one token at a time."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

import policies
from ff_bench.models.mini import world as worlds
from ff_bench.models.mini.backbone import ROPE
from ff_bench.models.mini.gt_coverage import GtCoverage
from ff_bench.models.mini.prompt import RING, MiniPrompt
from policies.base import Budget, Pass, Protocol, Shape
from policies.cache import LayerCache

SHAPE = Shape(
    layers=1, query_heads=2, heads=2, head_dim=64, rows=8, columns=8,
    chunk_frames=3, window_frames=60, rope=ROPE,
)  # fmt: skip
ORBIT = "orbit palette=3 speed=4 sprite=disc hue=teal path=996"
CHANGE = "change palette=3 speed=4 sprite=disc hue=teal path=900"


def scores(prompt: str, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Score a cache that holds every token of so many latent frames; return tokens and scores (S,)."""
    policy = GtCoverage()
    policy.tell([prompt])
    tokens = frames * SHAPE.frame_tokens
    policy.start(SHAPE, Budget(tokens // 2, recent=192), Protocol(), seed=0, device="cpu")
    cache = LayerCache(SHAPE, layer=0, batch=1, capacity=tokens, dtype=torch.float32, device="cpu")
    empty = torch.zeros(1, SHAPE.heads, tokens, SHAPE.head_dim)
    turn = torch.ones(tokens, SHAPE.head_dim // 2), torch.zeros(tokens, SHAPE.head_dim // 2)
    cache.start_chunk()
    cache.stage(empty, empty, turn)
    cache.append(empty, 0)
    step = Pass(
        layer=0, chunk=1, queries=empty, rotated_queries=empty, keys=empty, noise=torch.zeros(1, 3),
        commit=True, times=torch.arange(3), frames=frames - SHAPE.chunk_frames,
    )  # fmt: skip
    return cache.tokens[0, 0], policy.score(cache, step)[0, 0]


def test_a_score_is_minus_the_number_of_older_views_of_the_cell() -> None:
    frames = 30
    tokens, score = scores(ORBIT, frames)
    shown = worlds.places(MiniPrompt.parse(ORBIT), 4 * frames)
    alpha = worlds.sprite_alpha(MiniPrompt.parse(ORBIT), 4 * frames)
    seen: Counter[tuple[int, int]] = Counter()
    checked = 0
    for token, value in zip(tokens.tolist(), score.tolist(), strict=True):
        frame, row, column = token // 64, token % 64 // 8, token % 8
        cell = (row, int(shown[4 * frame + 2, 8 * column + 4]) // 8)
        patch = alpha[4 * frame + 2, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        if float(patch.max()) == 0 and round(-value) == seen[cell]:
            checked += 1
        if float(patch.max()) == 0:
            seen[cell] += 1
    plain = sum(seen.values())
    assert checked > 0.9 * plain  # beside the sprite's border, whose patches count as the sprite's


def test_what_was_repainted_since_goes_first() -> None:
    frames = 150
    tokens, score = scores(CHANGE, frames)
    shown = worlds.places(MiniPrompt.parse(CHANGE), 4 * frames)
    now = {int(place) % RING: int(place) // RING for place in shown[-1]}  # what the last frame shows
    agreed, old = [], []
    for token, value in zip(tokens.tolist(), score.tolist(), strict=True):
        place = int(shown[4 * (token // 64) + 2, 8 * (token % 8) + 4])
        if place % RING in now:
            old.append(place // RING < now[place % RING])
            agreed.append(old[-1] == (value < -5000))
    assert sum(old) > 100 and sum(agreed) > 0.95 * len(agreed)  # patches of the sprite are no places


def test_it_is_found_by_name_and_refuses_other_models() -> None:
    assert policies.load("gt_coverage") is GtCoverage
    policy = GtCoverage()
    with pytest.raises(ValueError, match="knows the worlds of the embedded model only"):
        policy.start(SHAPE, Budget(1024), Protocol(), seed=0, device="cpu")
