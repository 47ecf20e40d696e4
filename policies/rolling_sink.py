"""Rolling Sink: the first frames back and forth, as if time went on among them, and the newest chunk."""

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
class RollingSink(Policy):
    """Hold the first frames and the newest chunk; a pass sees the first ones to and fro at the times between.

    With W first frames held, latent frame f of the past is stood in for by the first frame f mod 2W, read
    backwards from W on (2W - 1 - f mod 2W); the W frames before the newest chunk are seen so.

    Source: arXiv 2602.07775; haodong2000/RollingSink@d7fc0d9, wan/modules/causal_model.py.
    Deviates: W is what the budget leaves beside the newest chunk (the original holds 18 first frames outside
        its window of 18 and sees 15 of them at a time); slots behind the last whole first frame are not seen.
    """

    name: ClassVar[str] = "rolling_sink"
    source: ClassVar[str] = "arXiv 2602.07775; haodong2000/RollingSink@d7fc0d9"
    pins: ClassVar[Mapping[str, object]] = MappingProxyType(
        {"sink": 0, "recent": "1c", "unit": "frame", "position": "absolute"}
    )

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the negative slot number, (B, H, S); the newest chunk is protected by the budget."""
        return -newest(cache)

    def view(
        self, cache: LayerCache, *, first_frame: int, frames: int, commit: bool
    ) -> Sequence[Segment] | None:
        """Return the first frames to and fro and the newest slots, once a slot has gone."""
        if self.budget.tokens is None or not cache.has_dropped:
            return None
        frame = self.shape.frame_tokens
        recent = -(-self.budget.recent // self.unit) * self.unit
        held, newest_frames = (cache.size - recent) // frame, -(-recent // frame)
        counts_slots = self.protocol.position in ("contiguous", "frame_rank")
        begin = first_frame - newest_frames - held
        segments = []
        for offset in range(held):
            source = ping_pong(begin + offset, held)
            time = offset if counts_slots else begin + offset
            segments.append(Segment(source * frame, (source + 1) * frame, time=time))
        return [*segments, Segment(cache.size - recent, cache.size)]


def ping_pong(frame: int, count: int) -> int:
    """Return which of ``count`` first frames stands in for a frame of the past."""
    place = frame % (2 * count)
    return place if place < count else 2 * count - 1 - place
