"""The cached context of one rollout: the caches of all layers under one policy.

A model talks to ``Context.attend`` only; the rollout says when chunks and passes begin and end. This is the
place where positions, attention, observation and compression meet in their fixed order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from policies.attention import attend, block_elements
from policies.base import Budget, Pass, Policy, Protocol, Shape
from policies.cache import LayerCache
from policies.charge import charged
from policies.positions import distances, time_indices
from policies.stopwatch import Stopwatch


@dataclasses.dataclass
class _Turn:
    """Positions of the chunk in one layer: times of its frames, cosines and sines of its tokens."""

    times: Tensor
    keys: tuple[Tensor, Tensor]
    queries: tuple[Tensor, Tensor]


class Context:
    """Caches of all layers, and the order of things within a chunk.

    Args:
        policy: Decides what stays; ``start`` is called here.
        shape: The model.
        budget: Slots per layer and head between chunks.
        protocol: What is equal for all policies.
        batch: Videos side by side.
        capacity_tokens: Largest context ever held before a chunk (the length of the video for a full cache,
            of the prefix where it is longer than the budget); None takes the budget. One chunk is added.
        seed: For policies that draw; one for all videos, or one for each.
        dtype: Of keys and values.
        device: Where everything stands.

    Raises:
        ValueError: If no capacity is known or the budget leaves nothing to decide.
    """

    def __init__(
        self,
        policy: Policy,
        shape: Shape,
        budget: Budget,
        protocol: Protocol,
        *,
        batch: int = 1,
        capacity_tokens: int | None = None,
        seed: int | Sequence[int] = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Start the policy and allocate the caches."""
        self.shape, self.protocol, self.device = shape, protocol, torch.device(device)
        self.batch, self.dtype, self.policy = batch, dtype, policy
        self.budget = charged(policy, shape, budget, protocol, batch=batch, dtype=dtype)
        policy.start(shape, self.budget, protocol, seed=seed, device=self.device)
        if capacity_tokens is None and self.budget.tokens is None:
            raise ValueError(
                "context.capacity_tokens is None; a full cache needs the length of the video in tokens"
            )
        held = capacity_tokens if capacity_tokens is not None else self.budget.tokens or 0
        self.caches = [self._make_cache(layer, held + shape.chunk_tokens) for layer in range(shape.layers)]
        self._watch = Stopwatch(self.device)
        self._turns: list[_Turn] = []
        self._reach: list[tuple[Tensor, Tensor]] = []
        self._steps: dict[int, Pass] = {}
        self._is_commit = self._is_cache_only = False
        self._noise = torch.zeros(batch, 0, device=self.device)
        self._chunk = self._first_frame = self._frames = 0

    # -- the order of things ----------------------------------------------------------------------------

    def start_chunk(self, chunk: int, first_frame: int, frames: int | None = None) -> None:
        """Fix the positions of the context and of the chunk for all passes to come.

        Args:
            chunk: Chunk number.
            first_frame: First absolute latent frame of the chunk.
            frames: Latent frames of the chunk; default the model's.
        """
        self._chunk, self._first_frame = chunk, first_frame
        self._frames = self.shape.chunk_frames if frames is None else frames
        self._steps.clear()
        self._reach.clear()
        self._turns.clear()
        shared: dict[int, _Turn] = {}
        for cache in self.caches:
            context, times = self._times(cache)
            cache.start_chunk(context if self._is_moved(cache) else None)
            self._reach.append(
                distances(
                    context, times, frame_tokens=self.shape.frame_tokens, window=self.shape.window_frames
                )
            )
            if times.ndim > 1:  # every head its own times
                self._turns.append(self._turn(times))
                continue
            if cache.size not in shared:
                shared[cache.size] = self._turn(times)
            self._turns.append(shared[cache.size])

    def start_pass(self, noise: Tensor, commit: bool, *, cache_only: bool = False) -> None:
        """Begin a forward of the chunk.

        Args:
            noise: Noise level per latent frame (B, F), 0 (clean) to 1.
            commit: Whether keys and values of this pass are kept.
            cache_only: Nothing behind the last layer is read: its attention is not computed.
        """
        self._noise, self._is_commit, self._is_cache_only = noise, commit, cache_only

    @torch.no_grad()
    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend from the chunk to context and chunk.

        Args:
            layer: Layer number.
            queries: Un-rotated (B, Hq, N, D).
            keys: Un-rotated (B, H, N, D).
            values: (B, H, N, D).

        Returns:
            (B, Hq, N, D) in the dtype of the queries; the queries themselves where nobody reads the result.
        """
        with full_precision(self.device):
            return self._attend(layer, queries, keys, values).to(queries.dtype)

    def _attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        cache, turn, rope = self.caches[layer], self._turns[layer], self.shape.rope
        rotated = rope.turn(queries, *turn.queries).to(self.dtype)
        all_keys, all_values = cache.stage(rope.turn(keys, *turn.keys), values)
        log_mass = cache.staged_state("log_mass") if "log_mass" in cache.state else None
        if self._is_cache_only and layer == self.shape.layers - 1:
            out = queries
        else:
            out = attend(rotated, all_keys, all_values, log_mass=log_mass)
        if self._is_commit or self.protocol.passes == "all":
            step = Pass(
                layer=layer,
                chunk=self._chunk,
                queries=queries,
                rotated_queries=rotated,
                keys=keys,
                noise=self._noise,
                commit=self._is_commit,
                times=turn.times,
                frames=self._first_frame,
            )
            with self._watch.running():
                self.policy.observe(cache, step)
            if self._is_commit:
                cache.append(keys, self._first_frame * self.shape.frame_tokens)
                self._steps[layer] = step
        return out

    @torch.no_grad()
    def finish_chunk(self, compress: bool = True) -> None:
        """End the chunk after its committing pass; bring every layer down to its size.

        Args:
            compress: False while a prefix is kept in full.

        Raises:
            ValueError: If a layer has not seen a committing pass, or a plan does not fit the budget.
        """
        if len(self._steps) < self.shape.layers:
            raise ValueError(
                f"chunk {self._chunk}: {len(self._steps)} of {self.shape.layers} layers were committed"
            )
        if not compress or self.budget.tokens is None:
            return
        with self._watch.running(), full_precision(self.device):
            sizes = self._sizes()
            for cache, tokens in zip(self.caches, sizes, strict=True):
                self.policy.compress(cache, self._steps[cache.layer], tokens=tokens)

    # -- parts ------------------------------------------------------------------------------------------

    def _make_cache(self, layer: int, capacity: int) -> LayerCache:
        cache = LayerCache(
            self.shape, layer=layer, batch=self.batch, capacity=capacity, dtype=self.dtype, device=self.device
        )
        for name, fill in self.policy.slot_state.items():
            cache.slot_state(name, fill=fill)
        return cache

    def _times(self, cache: LayerCache) -> tuple[Tensor, Tensor]:
        return time_indices(
            cache.tokens,
            self.protocol.position if self._is_moved(cache) else "absolute",
            first_frame=self._first_frame,
            frames=self._frames,
            frame_tokens=self.shape.frame_tokens,
            window=self.shape.window_frames,
            sink=self.budget.sink,
        )

    def _is_moved(self, cache: LayerCache) -> bool:
        """Tell whether keys can stand elsewhere than where they were generated."""
        mode = self.protocol.position
        return mode == "clamped" or (mode != "absolute" and cache.has_dropped)

    def _turn(self, times: Tensor) -> _Turn:
        """Return cosines and sines of the chunk's tokens, (N, D/2) or (B, H, N, D/2)."""
        shape = self.shape
        row = torch.arange(shape.rows, device=self.device)[:, None]
        column = torch.arange(shape.columns, device=self.device)
        angles = shape.rope.angles(times[..., None, None], row, column).flatten(-4, -2)
        keys = (angles.cos(), angles.sin())
        if times.ndim == 1:
            return _Turn(times, keys, keys)
        group = shape.query_heads // shape.heads
        return _Turn(times, keys, (keys[0].repeat_interleave(group, 1), keys[1].repeat_interleave(group, 1)))

    def _sizes(self) -> list[int]:
        """Return the slots per layer, from the policy's plan or the budget."""
        tokens = self.budget.tokens or 0
        plan = self.policy.plan(self.caches)
        if plan is None:
            return [tokens] * self.shape.layers
        if bool((plan != plan[:, :1]).any()):
            raise ValueError(
                f"policy '{self.policy.name}': plan differs between heads; allowed: one size per layer"
            )
        if int(plan.sum()) > tokens * plan.numel():
            raise ValueError(f"policy '{self.policy.name}': plan exceeds {tokens} tokens per layer and head")
        return [int(size) for size in plan[:, 0]]

    # -- numbers ----------------------------------------------------------------------------------------

    @property
    def policy_seconds(self) -> float:
        """Seconds in observe and compress since the last reset."""
        return self._watch.seconds

    def reset_policy_seconds(self) -> None:
        """Start counting policy seconds again."""
        self._watch.reset()

    def summary(self) -> dict[str, object]:
        """Return the numbers of the finished chunk; waits for the device, so call it once per chunk."""
        sizes = [cache.size for cache in self.caches]
        state = sum(cache.state_nbytes() for cache in self.caches) + self.policy.state_nbytes()
        return {
            "context_tokens": sum(sizes) / len(sizes),
            "context_tokens_max": max(sizes),
            "kv_bytes": sum(cache.nbytes() for cache in self.caches),
            "state_bytes": state,
            "transient_bytes": self._transient_nbytes(),
            "max_distance": float(torch.stack([reach for reach, _ in self._reach]).max()),
            "beyond_window": round(float(torch.stack([share for _, share in self._reach]).mean()), 6),
            "kept": self._kept(),
        }

    def _transient_nbytes(self) -> int:
        """Bytes of the rotated keys, of the queries held until the chunk ends and of one block of weights."""
        rotated = sum(cache.rotated_nbytes() for cache in self.caches)
        queries = sum(step.queries.nbytes + step.rotated_queries.nbytes for step in self._steps.values())
        rows = self.batch * self.shape.heads * max(cache.size for cache in self.caches)
        block = 4 * min(max(block_elements(self.device), rows), rows * self.shape.chunk_tokens)
        return rotated + queries + (block if "mass" in self.policy.slot_state else 0)

    def _kept(self) -> list[list[float]]:
        """Share of each source chunk's tokens still held, mean over layers and heads, one list per video."""
        chunk_tokens = self.shape.chunk_tokens
        count = -(-(self._first_frame + self._frames) * self.shape.frame_tokens // chunk_tokens)
        held = torch.zeros(self.batch, count, device=self.device)
        for cache in self.caches:
            source = (cache.tokens // chunk_tokens).long().flatten(1)
            held.scatter_add_(1, source, torch.ones(source.shape, device=self.device))
        held /= chunk_tokens * self.shape.layers * self.shape.heads
        return [[round(share, 5) for share in video] for video in held.tolist()]


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context without autocast: scores stay fp32 inside a model that uses it."""
    if device.type in ("cpu", "cuda") and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
