"""Watches what a policy of the user's does to the cache: it may read it, and change it in fold and absorb."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from policies.base import Pass, Policy
from policies.cache import LayerCache
from policies.soundness import Soundness

EVERY = 8
"""Chunks between two that are watched whole: a copy of one layer costs little where it is rare."""
PARTS = ("keys", "values", "tokens")
GIVEN = ("queries", "rotated_queries", "keys")


class Guard:
    """Compares a layer before and after a hook of a policy; policies of this package are tested instead."""

    def __init__(self, policy: Policy, soundness: Soundness) -> None:
        """Take the policy, and where what is wrong is noted; nothing waits for the device."""
        self._policy, self._soundness = policy, soundness
        self._is_on = not type(policy).__module__.startswith(("policies.", "ff_bench."))

    @contextmanager
    def watching(self, hook: str, cache: LayerCache, step: Pass) -> Iterator[None]:
        """Let a hook run that must leave the layer and the pass alone.

        Raises:
            ValueError: Where the layer has other slots afterwards.
        """
        size, before = cache.size, self._copies(cache, step)
        yield
        if cache.size != size:
            raise ValueError(
                f"policy '{self._policy.name}': {hook} leaves {cache.size} of {size} slots in layer "
                f"{cache.layer}; allowed: to read them, room is made behind it"
            )
        for old, now in zip(before, self._parts(cache, step) if before else (), strict=True):
            is_other = (old != now) & ~(old.isnan() & now.isnan())
            self._soundness.flag(
                hook, cache.layer, is_other.flatten(1).any(1), how="changed the cache, which only fold may"
            )

    def _copies(self, cache: LayerCache, step: Pass) -> list[Tensor]:
        return [part.clone() for part in self._parts(cache, step)] if self._is_on else []

    def _parts(self, cache: LayerCache, step: Pass) -> list[Tensor]:
        """Return what is compared: which tokens stand where always, all numbers now and then."""
        if step.chunk % EVERY != 1:  # the first chunk has no context to change
            return [cache.tokens]
        return [getattr(cache, name) for name in PARTS] + [getattr(step, name) for name in GIVEN]
