"""What is examined: a policy as it is made, with the budget and the protocol that it pins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from policies.base import Budget, Policy, Protocol
from policies.checking.stream import BUDGET, SHAPE, Stream, run
from policies.full import Full
from policies.positions import MODES

UNITS = {"c": SHAPE.chunk_tokens, "f": SHAPE.frame_tokens}
"""Tokens of a chunk and of a latent frame, by the letter that pins use."""


class Broken(Exception):
    """A property that a policy does not have; its text is one sentence."""


class NotApplicable(Exception):
    """A property that asks for something that a policy does not claim; its text says why."""


@dataclass(frozen=True)
class Subject:
    """A policy under examination.

    Attributes:
        make: makes it anew.
        moving: makes it under fields that move slots and change none; None where there are none.
    """

    make: Callable[[], Policy]
    moving: Callable[[], Policy] | None = None

    @classmethod
    def of(cls, make: Callable[[], Policy]) -> Subject:
        """Examine a policy as it is; one that changes slots as they leave has no moving variant."""
        policy = make()
        changes = policy.merges or type(policy).absorb is not Policy.absorb
        return cls(make, None if changes else make)

    @cached_property
    def kind(self) -> Policy:
        """One that is only asked what it is."""
        return self.make()

    @cached_property
    def budget(self) -> Budget:
        """Eight latent frames, or as many as the pinned sink and recent slots and three frames need."""
        sink = _tokens(self.kind.pins.get("sink", BUDGET.sink))
        recent = _tokens(self.kind.pins.get("recent", BUDGET.recent))
        needed = sink + recent + 3 * SHAPE.frame_tokens
        return Budget(max(BUDGET.tokens or 0, needed), sink=sink, recent=recent)

    @property
    def tokens(self) -> int:
        """Slots per layer and head of `budget`.

        Raises:
            NotApplicable: for a policy that keeps everything.
        """
        if self.kind.is_full:
            raise NotApplicable("it keeps everything")
        return self.budget.tokens or 0

    @property
    def chunks(self) -> int:
        """Chunks of a video that is twice as long as the budget and more."""
        return 1 + 2 * (self.budget.tokens or 0) // SHAPE.chunk_tokens

    @property
    def is_planned(self) -> bool:
        """Whether it gives heads or layers sizes of their own."""
        return type(self.kind).plan is not Policy.plan

    def protocol(self, **asked: object) -> Protocol:
        """Return a protocol with what is asked, except where the policy pins a field."""
        known = {field.name for field in fields(Protocol)}
        pinned = {name: value for name, value in self.kind.pins.items() if name in known}
        return Protocol(**{"position": "absolute", **asked, **pinned})  # type: ignore[arg-type]

    def protocols(self, field: str = "position", values: tuple[object, ...] = MODES) -> Iterator[Protocol]:
        """Yield a protocol for each value of a field, or one alone where the policy pins it."""
        yield from dict.fromkeys(self.protocol(**{field: value}) for value in values)

    def run(
        self, protocol: Protocol | None = None, *, policy: Policy | None = None, **asked: object
    ) -> Stream:
        """Run it over the noise model with its own budget; `asked` are arguments of `stream.run`."""
        given = {"chunks": self.chunks, **asked}
        budget = given.pop("budget", self.budget)
        return run(policy or self.make(), budget, protocol or self.protocol(), **given)  # type: ignore[arg-type]

    def usual(self, protocol: Protocol) -> Stream:
        """Return a run under a protocol, which several properties look at."""
        if protocol not in self._usual:
            self._usual[protocol] = self.run(protocol)
        return self._usual[protocol]

    @cached_property
    def _usual(self) -> dict[Protocol, Stream]:
        return {}

    def full(self, protocol: Protocol, **asked: object) -> Stream:
        """Run the full cache on the same stream."""
        return self.run(protocol, policy=Full(), budget=Budget(None), **asked)


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    """Say whether two lists of tensors are equal to the last bit."""
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def sets(stream: Stream) -> list[Tensor]:
    """Return what was held after each chunk in each layer, token numbers (B, H, S)."""
    return [tokens for layers in stream.tokens for tokens in layers]


def _tokens(value: object) -> int:
    """Read a number of slots as pins give it: tokens, or `2f` latent frames, `1c` chunks."""
    text = str(value)
    unit = UNITS.get(text[-1:], 0)
    return int(text[:-1]) * unit if unit else int(text)
