"""Wrappers: a budget rule or a merge that is put around any policy that scores."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

import policies
from policies.base import Pass, Policy, Protocol, Shape
from policies.cache import LayerCache


@dataclass
class Wrapper(Policy):
    """Hands everything on to the policy inside; a wrapper overrides what it changes.

    Args:
        inner: A policy that scores.
    """

    inner: Policy

    kind: ClassVar[str]
    reads_attention: ClassVar[bool] = True

    def refuse(self) -> None:
        """Reject a policy inside that this wrapper cannot change.

        Raises:
            ValueError: With the policy's name and what it does itself.
        """
        kind, inner = type(self.inner), self.inner
        does = {
            "keeps everything": inner.is_full,
            "shows parts of the context": kind.view is not Policy.view and not isinstance(inner, Wrapper),
            "moves slots by its own rule": kind.absorb is not Policy.absorb,
            "makes its context anew": kind.recompute_frames is not Policy.recompute_frames,
            "gives sizes itself": kind.plan is not Policy.plan,
            "merges itself": inner.merges and self.kind == "merge",
        }
        for what, is_so in does.items():
            if is_so:
                raise ValueError(
                    f"policy.wrap is '{self.name}'; allowed: none, as policy '{inner.name}' {what}"
                )

    def tell(self, prompts: Sequence[str]) -> None:
        """Tell the policy inside the prompts."""
        self.inner.tell(prompts)

    def check(self, protocol: Protocol) -> None:
        """Let the policy inside check its fields against the protocol."""
        self.inner.check(protocol)

    def begin(self) -> None:
        """Start the policy inside."""
        self.inner.start(self.shape, self.budget, self.protocol, seed=self.seeds, device=self.device)

    @property
    def merges(self) -> bool:
        """Whether the policy inside merges."""
        return self.inner.merges

    @property
    def states(self) -> Mapping[str, float]:
        """What each slot carries for the policy inside."""
        return self.inner.states

    def held_nbytes(self, shape: Shape, batch: int) -> int:
        """Return the bytes that the policy inside holds outside slots."""
        return self.inner.held_nbytes(shape, batch)

    def state_nbytes(self) -> int:
        """Return the bytes that the policy object inside holds."""
        return self.inner.state_nbytes()

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Let the policy inside note a pass."""
        self.inner.observe(cache, step)

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the score of the policy inside, (B, H, S)."""
        return self.inner.score(cache, step)

    def fold(self, caches: Sequence[LayerCache], kept: Tensor) -> None:
        """Let the policy inside merge."""
        self.inner.fold(caches, kept)


def wrapped(policy: Policy, names: Sequence[str]) -> Policy:
    """Return a policy with wrappers around it, in the order of `policies.WRAPPERS`: merges inside budgets.

    Args:
        policy: The policy.
        names: Wrappers, each kind once.

    Raises:
        ValueError: If a name is unknown, a kind stands there twice, or the policy does that itself.
    """
    policies.check_wrappers(names)
    for name in policies.WRAPPERS:
        if name in names:
            module, _, attribute = policies.WRAPPERS[name].partition(":")
            wrapper: Wrapper = getattr(importlib.import_module(module), attribute)(policy)
            wrapper.refuse()
            policy = wrapper
    return policy
