"""A reference that knows the world: what would a cache keep that never forgets a place?

No policy: it reads the exact geometry of a prompt, which no model tells. It shows what keeping clean
copies of everything can reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from ff_bench.models.mini.motion import GRID, PATCH, Motion
from ff_bench.models.mini.prompt import FRAMES_PER_LATENT, RING, MiniPrompt
from policies.base import Pass, Policy
from policies.cache import LayerCache

CELLS = RING // PATCH
_OUTDATED = 1e4
"""Ranks behind which a view of what was repainted since stands."""
_SPRITE = 10**6
"""Cells from here on are places of the sprite."""


@dataclass
class GtCoverage(Policy):
    """Keep the earliest views of every cell of the panorama and of the sprite, as they look now.

    The score counts how many older views of the same cell the cache holds: first views come first, then
    second ones, and so on; views of what was repainted since come last. One set serves all heads.

    Source: this project; exact geometry of the embedded worlds.
    Deviates: nothing; a reference, not a policy: it is told the prompt.
    """

    name: ClassVar[str] = "gt_coverage"
    source: ClassVar[str] = "exact geometry of the embedded worlds"
    pins: ClassVar[Mapping[str, object]] = MappingProxyType({})

    def tell(self, prompts: Sequence[str]) -> None:
        """Take the prompts of the videos side by side.

        Raises:
            ValueError: For a prompt that is not one of the embedded model.
        """
        self._prompts = [MiniPrompt.parse(prompt) for prompt in prompts]

    def begin(self) -> None:
        """Begin without views.

        Raises:
            ValueError: For a model without exact geometry.
        """
        if (self.shape.rows, self.shape.columns) != (GRID, GRID) or not hasattr(self, "_prompts"):
            raise ValueError("policy 'gt_coverage' knows the worlds of the embedded model only")
        self._motion = Motion.of(self._prompts, self.device)
        self._radius = self._motion.numbers["sprite_radius"].float()
        self._last: tuple[int, Tensor] = (-1, torch.empty(0))

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return minus the rank among the views of the same cell, (B, H, S); alike for all layers."""
        if self._last[0] != step.chunk:
            tokens = cache.tokens[:, 0].long()  # the same for every head
            ranks = self._ranks(tokens, int(step.frames + self.shape.chunk_frames - 1))
            self._last = (step.chunk, -ranks - tokens.float() / 2**24)
        return self._last[1][:, None].expand(-1, cache.heads, -1)

    def _ranks(self, tokens: Tensor, now: int) -> Tensor:
        """Return how many older views of the same cell there are, (B, S) fp32."""
        cells, is_outdated = self._cells(tokens, now)
        order = cells.argsort(dim=-1, stable=True)  # tokens increase, so that older views stand first
        sorted_cells = cells.gather(1, order)
        slots = torch.arange(cells.shape[1], device=cells.device).expand_as(cells)
        is_first = torch.ones_like(cells, dtype=torch.bool)
        is_first[:, 1:] = sorted_cells[:, 1:] != sorted_cells[:, :-1]
        begins = torch.where(is_first, slots, 0).cummax(1).values
        ranks = torch.empty_like(cells).scatter_(1, order, slots - begins)
        return ranks.float() + _OUTDATED * is_outdated.float()

    def _cells(self, tokens: Tensor, now: int) -> tuple[Tensor, Tensor]:
        """Return which cell each token (B, S) shows, and whether it looks different at latent frame `now`."""
        frame = tokens // (GRID * GRID)
        row, column = tokens % (GRID * GRID) // GRID, tokens % GRID
        times = frame * FRAMES_PER_LATENT + FRAMES_PER_LATENT // 2
        shown = self._motion.places(times)  # (B, S, VIEW)
        middle = (column * PATCH + PATCH // 2)[..., None]
        place = shown.gather(2, middle)[..., 0]
        version, ring = place // RING, place % RING
        cells = (version * CELLS + ring // PATCH) * GRID + row
        x, y = self._motion.sprite(times)
        right = (column * PATCH + (PATCH - 1) / 2 - x) / PATCH
        below = (row * PATCH + (PATCH - 1) / 2 - y) / PATCH
        is_sprite = torch.maximum(right.abs(), below.abs()) * PATCH < self._radius + PATCH / 2
        of_sprite = _SPRITE + (right.round().long() + GRID) * 4 * GRID + below.round().long() + GRID
        return torch.where(is_sprite, of_sprite, cells), (version < self._current(ring, now)) & ~is_sprite

    def _current(self, ring: Tensor, now: int) -> Tensor:
        """Return the version that ring columns (B, S) have at latent frame `now`."""
        time = torch.full((len(ring), 1), float(now * FRAMES_PER_LATENT), device=ring.device)
        versions = self._motion.versions(time)[:, 0]  # (B, SECTORS)
        return versions.gather(1, ring * versions.shape[1] // RING)
