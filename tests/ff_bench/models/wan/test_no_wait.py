"""Nothing in a chunk asks the device for a value: passes run on tensors that have none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import policies
from ff_bench.models.schedule import Span
from ff_bench.models.wan.backbone import Wan
from ff_bench.models.wan.network import WanNetwork
from ff_bench.noise import Draws
from ff_bench.rollout import Take, _Run
from policies.base import Budget, Protocol
from policies.context import Context
from tests.ff_bench.models.wan.tiny import SIZE, TEXT_TOKENS, tiny_member

TOKENS = 12
"""Tokens of a latent frame."""


class Nothing(Draws):
    """Noise without values."""

    def initial(self, span: Span) -> Tensor:
        return torch.empty(1, span.frames, 16, 6, 8, device="meta")

    fresh = initial


def model(**changes: object) -> Wan:
    with torch.device("meta"):
        network = WanNetwork(SIZE)
        text = torch.empty(1, TEXT_TOKENS, SIZE.text_dim)
    return Wan(tiny_member(**changes), network, "meta", embed=lambda prompts: text)


ROLLING = {"passes": "rolling", "steps": (1000.0, 800.0, 600.0, 400.0, 200.0)}


RECACHING = {"recache_frames": 6, "recache_sink": True}
CASES = [(name, {}) for name in policies.names()]
CASES += [
    (name, changes)
    for name in ("h2o", "attention_sink", "rolling_anchor")
    for changes in (ROLLING, RECACHING)
]


@pytest.mark.parametrize("name,changes", CASES)
def test_no_value_is_asked_for_while_a_chunk_is_made(name: str, changes: dict[str, object]) -> None:
    made = model(**changes)
    sink = 0 if name in ("sliding_window", "recompute") else 1
    context = Context(
        policies.load(name)(),
        made.shape,
        Budget(7 * TOKENS, sink=sink * TOKENS),
        Protocol(position="contiguous"),
        capacity_tokens=18 * TOKENS,
        pass_tokens=15 * TOKENS,
        device="meta",
    )
    take = Take(
        ["one"], [0], 18, len(made.member.steps), switches={9: ["two"]}, draws=Nothing(), decode=False
    )
    with torch.inference_mode():
        run = _Run(made, context, take)
        turns = made.turns(take.latent_frames, steps=take.steps)
        for turn in turns:
            run.prepare(turn)
            latents = run.passes(turn)
            run.draw_ahead(turns[turn.number + 1 : turn.number + 2])
            assert latents.shape == (1, 3, 16, 6, 8) and latents.is_meta
    if not policies.load(name).is_full and name != "recompute":
        held = context.caches[0].held
        assert sum(held) == len(held) * 7 * TOKENS  # heads may differ
