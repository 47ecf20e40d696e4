"""The noise model of `policies.checking.stream`, with policies by name."""

from __future__ import annotations

import policies
from policies.base import Policy
from policies.checking.stream import (
    BUDGET,
    CHUNKS,
    GROUPED,
    SHAPE,
    Stream,
    record,
    run,
    tensors,
)

__all__ = ["BUDGET", "CHUNKS", "GROUPED", "SHAPE", "Stream", "make", "record", "run", "tensors"]


def make(name: str, **fields: object) -> Policy:
    return policies.load(name)(**fields)
