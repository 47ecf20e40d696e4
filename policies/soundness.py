"""Which numbers of a chunk are none: noted layer by layer on the device, read once when the chunk is done."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NOT_FINITE = "are not finite"


@dataclass(frozen=True)
class Fault:
    """Something that is not finite.

    Attributes:
        what: Keys, values, scores, or a hook of the policy.
        layer: Layer number.
        videos: Places of the videos among those side by side.
        how: What is wrong with it.
    """

    what: str
    layer: int
    videos: tuple[int, ...]
    how: str = NOT_FINITE

    @property
    def told(self) -> str:
        """What is wrong, and in which layer."""
        return f"{self.what} of layer {self.layer} {self.how}"


class Soundness:
    """Sums per layer and video, which are not finite where a summand is not; nothing waits for the device."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._noted: list[tuple[str, int, str]] = []
        self._flags: list[Tensor] = []

    def clear(self) -> None:
        """Forget the last chunk."""
        self._noted.clear()
        self._flags.clear()

    def note(self, what: str, layer: int, numbers: Tensor) -> None:
        """Note numbers that must all be finite, (B, ...); one pass over them, one flag per video is kept."""
        sums = numbers.flatten(1).sum(1, dtype=torch.float32)
        self.flag(what, layer, ~torch.isfinite(sums))

    def note_scores(self, layer: int, scores: Tensor) -> None:
        """Note scores (B, H, S), which may be infinite (a slot to keep or to drop first) but not NaN."""
        self.flag("scores", layer, scores.isnan().flatten(1).any(1))

    def flag(self, what: str, layer: int, is_wrong: Tensor, *, how: str = NOT_FINITE) -> None:
        """Note which videos (B,) something is wrong with."""
        self._noted.append((what, layer, how))
        self._flags.append(is_wrong)

    def fault(self) -> Fault | None:
        """Return the first thing that is wrong, in the order of layers; waits for the device."""
        if not self._flags:
            return None
        found = torch.stack(self._flags).tolist()
        for (what, layer, how), wrong in zip(self._noted, found, strict=True):
            if any(wrong):
                places = tuple(place for place, is_wrong in enumerate(wrong) if is_wrong)
                return Fault(what, layer, places, how)
        return None
