"""What distinguishes the training of one checkpoint of the embedded model from that of another."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint is trained; everything else is alike.

    Attributes:
        name: of the checkpoint and its shards.
        seed: of the weights and of all draws.
        chunks: per sequence.
        batch: sequences per GPU.
        has_features: whether every token is told where it looks (`motion.token_features`); without, the
            motion comes from the prompt's tokens alone.
        is_spread: whether a sequence is spread over a long timeline, with gaps of time; without, it is one
            clip whose positions run from 0.
        drops_context: whether tokens of the past are missing at random, as they are under a budget.
    """

    name: str
    seed: int = 1
    chunks: int = 20
    batch: int = 16
    has_features: bool = True
    is_spread: bool = True
    drops_context: bool = True


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("mini"),
        Recipe("mini_b", seed=2),
        Recipe("mini_short", chunks=7, batch=48, has_features=False, is_spread=False, drops_context=False),
    )
}
"""`mini`; `mini_b`, the same from another seed; `mini_short`, trained as real backbones are: on 21 contiguous
latent frames, whole, with nothing but a prompt to say how things move."""


def is_mini(model: str) -> bool:
    """Say whether a model of that name is a checkpoint of the embedded one: prompts fix the geometry."""
    return model in RECIPES
