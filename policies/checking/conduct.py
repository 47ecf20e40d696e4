"""Properties of good conduct: what a policy says of itself, what it leaves alone, what its scores are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from policies.base import Pass, Protocol
from policies.cache import LayerCache
from policies.checking.subject import Broken, NotApplicable, Subject

PARTS = ("keys", "values", "rotated", "tokens")
QUERIES = ("queries", "rotated_queries", "keys")


def says_what_it_is(subject: Subject) -> None:
    """It has a name, a source, a docstring with Source: and Deviates:, and no field of the protocol."""
    policy = type(subject.kind)
    for field in ("name", "source"):
        if not getattr(policy, field, ""):
            raise Broken(f"the class has no `{field}`")
    for word in ("Source:", "Deviates:"):
        if word not in (policy.__doc__ or ""):
            raise Broken(f"its docstring has no line `{word}`")
    known = {"sink", "recent", *(field.name for field in dataclasses.fields(Protocol))}
    if not set(policy.pins) <= known:
        raise Broken(f"it pins {sorted(set(policy.pins) - known)}; allowed: {', '.join(sorted(known))}")
    own = {field.name for field in dataclasses.fields(subject.kind)}  # type: ignore[arg-type]
    if own & known:
        raise Broken(f"its field `{min(own & known)}` belongs to the protocol; pin it instead")


def runs(subject: Subject) -> None:
    """It goes through a video with every hook."""
    stream = subject.run()
    if not all(bool(out.isfinite().all()) for out in stream.outputs):
        raise Broken("attention is not finite")


def scores_are_numbers(subject: Subject) -> None:
    """A score is (B, H, S) float32 without NaN, of the same shape for two videos."""
    _ = subject.tokens
    if subject.kind.is_positional:
        raise NotApplicable("it keeps by slot number, without a score")
    policy = subject.make()
    original = policy.score

    def score(cache: LayerCache, step: Pass) -> Tensor:
        found = original(cache, step)
        if isinstance(found, Tensor) and bool(found.isnan().any()):
            raise Broken(f"score has NaN in chunk {step.chunk}, layer {step.layer}")
        if not isinstance(found, Tensor):
            raise Broken(f"score returns {type(found).__name__}; allowed: a tensor (B, H, S) float32")
        return found

    policy.score = score  # type: ignore[method-assign]
    subject.run(policy=policy, batch=2)


def leaves_the_cache_alone(subject: Subject) -> None:
    """observe, score and plan write to no key, value or token, nor to what they are given; fold may."""
    policy = subject.make()

    def watched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(cache: LayerCache, step: Pass) -> object:
            watching = [(of, part, getattr(of, part).clone()) for of, part in _parts(cache, step)]
            found = original(cache, step)
            for of, part, before in watching:
                if not torch.equal(getattr(of, part), before):
                    raise Broken(f"{name} changes {part}: note things in slot_state, merge in fold")
            return found

        return call

    for name in ("observe", "score"):
        setattr(policy, name, watched(name, getattr(policy, name)))
    subject.run(policy=policy)


def leaves_random_numbers_alone(subject: Subject) -> None:
    """It does not draw from the global generator, whose numbers are the sampler's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        before = torch.get_rng_state()
        subject.run()
        if not torch.equal(before, torch.get_rng_state()):
            raise Broken("it draws from the global generator of torch; make one from `seeds`")


def _parts(cache: LayerCache, step: Pass) -> list[tuple[object, str]]:
    """Return what a policy may read and must not write to: objects and the names of their tensors."""
    return [(cache, part) for part in PARTS] + [(step, part) for part in QUERIES]
