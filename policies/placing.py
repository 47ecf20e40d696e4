"""Where keys and queries of a pass stand: times of the context, angles of the frames that are generated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policies.base import Protocol, Shape
from policies.cache import LayerCache
from policies.positions import distances, time_indices

Angles = tuple[Tensor, Tensor]
"""Cosines and sines."""


@dataclass
class Turn:
    """Positions of the frames of a pass in one layer: their times, cosines and sines of their tokens."""

    times: Tensor
    keys: Angles
    queries: Angles

    def first(self, frames: int, tokens: int) -> Turn:
        """Return the part of the first ``frames`` latent frames, ``tokens`` tokens."""
        if frames == self.times.shape[-1]:
            return self
        keys, queries = (
            (cos[..., :tokens, :], sin[..., :tokens, :]) for cos, sin in (self.keys, self.queries)
        )
        return Turn(self.times[..., :frames], keys, queries)

    def behind(self, tokens: int) -> Angles:
        """Return cosines and sines of the keys behind the first ``tokens`` tokens."""
        cos, sin = self.keys
        return cos[..., tokens:, :], sin[..., tokens:, :]


class Placing:
    """Positions of all layers for the passes of a chunk.

    Attributes:
        turns: Of the new frames, per layer.
        reach: Largest relative distance and share of keys beyond the training window, per layer (0-d fp32).
    """

    def __init__(self, shape: Shape, protocol: Protocol, *, sink: int, device: torch.device) -> None:
        """Begin without positions.

        Args:
            shape: The model.
            protocol: Its ``position`` is followed.
            sink: Protected slots at the start, tokens.
            device: Where the caches stand.
        """
        self.shape, self.mode, self.sink, self.device = shape, protocol.position, sink, device
        self.turns: list[Turn] = []
        self.reach: list[tuple[Tensor, Tensor]] = []
        self._narrowed: set[int] = set()

    def place(
        self, caches: Sequence[LayerCache], first_frame: int, frames: int, *, is_past: bool = False
    ) -> None:
        """Put the context where the position mode wants it, and new frames behind it or, past, at its end.

        Args:
            caches: All layers.
            first_frame: First absolute latent frame of the new frames.
            frames: How many there are.
            is_past: Whether they are the last frames of the context, made anew.
        """
        self.turns, self.reach = [], []
        self._narrowed.clear()
        shared: dict[tuple[int, bool], tuple[Turn, Angles | None, tuple[Tensor, Tensor]]] = {}
        for cache in caches:
            is_moved = can_move(cache, self.mode)
            key = (cache.size, is_moved)
            found = shared.get(key)
            if found is None:
                context, times = self._times(cache, first_frame, frames)
                if is_past and is_moved:
                    times = times - frames
                reach = distances(
                    context, times, frame_tokens=self.shape.frame_tokens, window=self.shape.window_frames
                )
                found = (self._turn(times), self.shape.rope.time_turn(context) if is_moved else None, reach)
                if context.ndim == 1:  # the same for every layer of this size
                    shared[key] = found
            turn, moved, reach = found
            cache.start_chunk(moved)
            self.turns.append(turn)
            self.reach.append(reach)

    def narrow(self, layer: int, context: Tensor, times: Tensor) -> None:
        """Note that a pass saw a part of the context only: what it reached, and the most of several passes.

        Args:
            layer: Which one.
            context: Times of the slots that it saw, (S,) or (B, H, S).
            times: Times of its own frames, (F,).
        """
        found = distances(
            context, times, frame_tokens=self.shape.frame_tokens, window=self.shape.window_frames
        )
        if layer in self._narrowed:
            before = self.reach[layer]
            found = (torch.maximum(found[0], before[0]), torch.maximum(found[1], before[1]))
        self._narrowed.add(layer)
        self.reach[layer] = found

    def _times(self, cache: LayerCache, first_frame: int, frames: int) -> tuple[Tensor, Tensor]:
        return times_of(
            cache, cache.tokens, self.mode,
            shape=self.shape, sink=self.sink, first_frame=first_frame, frames=frames,
        )  # fmt: skip

    def _turn(self, times: Tensor) -> Turn:
        """Return cosines and sines of the new tokens, (N, D/2) or (B, H, N, D/2)."""
        shape = self.shape
        row = torch.arange(shape.rows, device=self.device)[:, None]
        column = torch.arange(shape.columns, device=self.device)
        angles = shape.rope.angles(times[..., None, None], row, column).flatten(-4, -2)
        keys = (angles.cos(), angles.sin())
        if times.ndim == 1:
            return Turn(times, keys, keys)
        group = shape.query_heads // shape.heads
        return Turn(times, keys, (keys[0].repeat_interleave(group, 1), keys[1].repeat_interleave(group, 1)))


def can_move(cache: LayerCache, mode: str) -> bool:
    """Tell whether keys can stand elsewhere than where they were generated."""
    return mode == "clamped" or (mode != "absolute" and cache.has_dropped)


def times_of(
    cache: LayerCache, tokens: Tensor, mode: str, *, shape: Shape, sink: int, first_frame: int, frames: int
) -> tuple[Tensor, Tensor]:
    """Return the times in force of context slots, given as tokens (B, H, S), and of the frames behind them.

    Returns:
        (S,) or (B, H, S), and (F,) or (B, H, F), see `policies.positions.time_indices`.
    """
    return time_indices(
        tokens,
        mode if can_move(cache, mode) else "absolute",
        first_frame=first_frame,
        frames=frames,
        frame_tokens=shape.frame_tokens,
        window=shape.window_frames,
        sink=sink,
    )
