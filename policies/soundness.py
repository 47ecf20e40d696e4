"""Which numbers of a chunk are none: noted layer by layer on the device, read once when the chunk is done."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fault:
    """Something that is not finite.

    Attributes:
        what: Keys, values or scores.
        layer: Layer number.
        videos: Places of the videos among those side by side.
    """

    what: str
    layer: int
    videos: tuple[int, ...]


class Soundness:
    """Sums per layer and video, which are not finite where a summand is not; nothing waits for the device."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._noted: list[tuple[str, int]] = []
        self._flags: list[Tensor] = []

    def clear(self) -> None:
        """Forget the last chunk."""
        self._noted.clear()
        self._flags.clear()

    def note(self, what: str, layer: int, numbers: Tensor) -> None:
        """Note numbers that must all be finite, (B, ...); one pass over them, one flag per video is kept."""
        sums = numbers.flatten(1).sum(1, dtype=torch.float32)
        self._add(what, layer, ~torch.isfinite(sums))

    def note_scores(self, layer: int, scores: Tensor) -> None:
        """Note scores (B, H, S), which may be infinite (a slot to keep or to drop first) but not NaN."""
        self._add("scores", layer, scores.isnan().flatten(1).any(1))

    def _add(self, what: str, layer: int, is_wrong: Tensor) -> None:
        self._noted.append((what, layer))
        self._flags.append(is_wrong)

    def fault(self) -> Fault | None:
        """Return the first thing that is not finite, in the order of layers; waits for the device."""
        if not self._flags:
            return None
        found = torch.stack(self._flags).tolist()
        for (what, layer), wrong in zip(self._noted, found, strict=True):
            if any(wrong):
                return Fault(what, layer, tuple(place for place, is_wrong in enumerate(wrong) if is_wrong))
        return None
