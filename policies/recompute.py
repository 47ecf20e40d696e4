"""Recompute: no keys and values outlive a chunk; those of the last frames are made anew before each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor

from policies.base import Pass, Policy
from policies.cache import LayerCache
from policies.positional import newest


@dataclass
class Recompute(Policy):
    """Keep the last latents instead of their keys and values: one clean pass over them begins every chunk.

    What stood before the context is really forgotten, as no key or value was computed in its presence.

    Source: krea-ai/realtime-video@acf4b7b4, release_server.py and v2v.py.
    Deviates: the context is one chunk attended in both directions, as the original's block mask has it for
        contexts of one chunk.

    Args:
        frames: Latent frames of the context (released: 3).
    """

    frames: int = 3

    name: ClassVar[str] = "recompute"
    source: ClassVar[str] = "krea-ai/realtime-video@acf4b7b4"
    pins: ClassVar[Mapping[str, object]] = MappingProxyType({"sink": 0, "position": "contiguous"})
    is_positional: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Reject values outside their ranges."""
        if self.frames < 1:
            raise ValueError(f"policy.frames is {self.frames}; allowed: 1 or more latent frames")

    def begin(self) -> None:
        """Check that the context fits the budget.

        Raises:
            ValueError: If it does not.
        """
        tokens, frame_tokens = self.budget.tokens, self.shape.frame_tokens
        if tokens is not None and self.frames * frame_tokens > tokens:
            raise ValueError(
                f"policy.frames is {self.frames} latent frames of {frame_tokens} tokens; "
                f"allowed: up to the budget of {tokens} tokens"
            )

    @property
    def recompute_frames(self) -> int:
        """Latent frames whose keys and values are made anew before each chunk; none under a full cache."""
        return 0 if self.budget.tokens is None else self.frames

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the slot number, (B, H, S)."""
        return newest(cache)
