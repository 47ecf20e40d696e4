"""Rolling-Forcing's context: an anchor that moves along in time, and a working window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor

from policies.base import Pass, Policy, Segment
from policies.cache import LayerCache
from policies.positional import newest


@dataclass
class RollingAnchor(Policy):
    """Sink and first in, first out; noisy passes see the sink as if right before the working frames.

    A noisy pass of q frames sees the anchor (the sink), the last ``window`` - q - anchor frames, and itself;
    the clean pass sees the last frames up to ``window`` with itself, the anchor only while it is one of them.

    Source: Rolling-Forcing, arXiv 2509.25161; TencentARC/RollingForcing@a1477d09,
    wan/modules/causal_model.py.
    Deviates: nothing.

    Args:
        window: Latent frames that a pass sees, itself included (released: 21).
    """

    window: int = 21

    name: ClassVar[str] = "rolling_anchor"
    source: ClassVar[str] = "arXiv 2509.25161; TencentARC/RollingForcing@a1477d09"
    pins: ClassVar[Mapping[str, object]] = MappingProxyType({"sink": "1c", "position": "absolute"})
    is_positional: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Reject values outside their ranges."""
        if self.window < 1:
            raise ValueError(f"policy.window is {self.window}; allowed: 1 or more latent frames")

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the slot number, (B, H, S); the sink is protected by the budget."""
        return newest(cache)

    def view(
        self, cache: LayerCache, *, first_frame: int, frames: int, commit: bool
    ) -> Sequence[Segment] | None:
        """Return the anchor and the working frames of a pass."""
        if self.budget.tokens is None or cache.size == 0:
            return None
        tokens, size, anchor = self.shape.frame_tokens, cache.size, min(self.budget.sink, cache.size)
        if commit:
            return [Segment(max(0, size - max(0, self.window - frames) * tokens), size)]
        room = max(0, self.window - frames - anchor // tokens)
        working = min(room * tokens, size - anchor)
        begin = first_frame - working // tokens - anchor // tokens
        return [Segment(0, anchor, time=begin), Segment(size - working, size)]
