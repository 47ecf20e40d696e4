"""The full cache: the upper bound of every table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from policies.base import Policy


@dataclass
class Full(Policy):
    """Keep everything.

    Source: the model's own causal attention.
    Deviates: nothing.
    """

    name: ClassVar[str] = "full"
    source: ClassVar[str] = "the model's own causal attention"
    is_full: ClassVar[bool] = True
