"""The cached context of one rollout: the caches of all layers under one policy.

A model talks to ``Context.attend`` only; the rollout says when chunks and passes begin and end. This is the
place where positions, attention, observation and compression meet in their fixed order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from policies.attention import attend, block_elements
from policies.base import Budget, Pass, Policy, Protocol, Segment, Shape
from policies.cache import LayerCache, Spare
from policies.charge import charged
from policies.guard import Guard
from policies.kept import kept
from policies.placing import Angles, Placing
from policies.precision import full_precision
from policies.returns import checked_plan, checked_view
from policies.soundness import Soundness
from policies.stopwatch import Stopwatch

_TOGETHER = 6
"""Layers that are selected and folded together: few calls on an accelerator, and not everything at once."""


@dataclasses.dataclass(frozen=True)
class _Forward:
    """What is the same for all layers of the pass under way."""

    noise: Tensor
    frames: int
    is_commit: bool
    is_cache_only: bool
    own: int = 0  # in a pass that makes held slots anew: latent frames at its end that are seen and kept
    sees_older: bool = True  # in such a pass: whether slots that are not made anew are seen


class Context:
    """Caches of all layers, and the order of things within a chunk.

    Args:
        policy: Decides what stays; ``start`` is called here.
        shape: The model.
        budget: Slots per layer and head between chunks.
        protocol: What is equal for all policies.
        batch: Videos side by side.
        capacity_tokens: Largest context ever held before a chunk (the length of the video for a full cache,
            of the prefix where it is longer than the budget); None takes the budget.
        pass_tokens: Tokens of the widest pass, added to the capacity; default one chunk.
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
        pass_tokens: int | None = None,
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
        capacity = int(held * policy.widest_head) + max(pass_tokens or 0, shape.chunk_tokens)
        self.spare = self._make_spare(capacity)
        self.caches = [self._make_cache(layer, capacity) for layer in range(shape.layers)]
        self._watch = Stopwatch(self.device)
        self._placing = Placing(shape, protocol, sink=self.budget.sink, device=self.device)
        self.soundness = Soundness()
        self._guard = Guard(policy, self.soundness)
        self._scores: dict[int, Tensor] = {}
        self._committed: set[int] = set()
        self._forward = _Forward(torch.zeros(batch, 0, device=self.device), 0, False, False)
        self._chunk = self._first_frame = self._frames = 0
        self._is_compressing = True
        self._scratch = 0

    # -- the order of things ----------------------------------------------------------------------------

    def start_chunk(
        self,
        chunk: int,
        first_frame: int,
        frames: int | None = None,
        *,
        widest: int | None = None,
        compress: bool = True,
    ) -> None:
        """Fix the positions of the context and of the chunk for all passes to come.

        Args:
            chunk: Chunk number.
            first_frame: First absolute latent frame of the chunk.
            frames: Latent frames of the chunk; default the model's.
            widest: Latent frames of the widest pass, which may reach into later chunks; default ``frames``.
            compress: False while a prefix is kept in full.
        """
        self._chunk, self._first_frame, self._is_compressing = chunk, first_frame, compress
        self._frames = self.shape.chunk_frames if frames is None else frames
        self._committed.clear()
        self._scores.clear()
        self.soundness.clear()
        self._placing.place(self.caches, first_frame, max(self._frames, widest or 0))

    def start_pass(self, noise: Tensor, commit: bool, *, cache_only: bool = False) -> None:
        """Begin a forward of the chunk.

        Args:
            noise: Noise level per latent frame (B, F), 0 (clean) to 1.
            commit: Whether keys and values of this pass are kept.
            cache_only: Nothing behind the last layer is read: its attention is not computed.
        """
        self._forward = _Forward(noise, noise.shape[1] or self._frames, commit, cache_only)

    def start_refresh(self, first_frame: int, frames: int, *, own: int, sees_older: bool = True) -> None:
        """Begin a clean pass over frames that were generated before, which makes held slots anew.

        Every frame of the pass attends to the held slots that are older than its last ``own`` frames, and to
        these frames; held slots of these frames take the new keys and values (`LayerCache.refresh`).

        Args:
            first_frame: First absolute latent frame of the pass.
            frames: Latent frames of the pass, up to the last one generated.
            own: Frames at the end of the pass that are seen and made anew.
            sees_older: Whether the pass sees the older slots.
        """
        self._first_frame, self._frames = first_frame, frames
        self._placing.place(self.caches, first_frame, frames, is_past=True)
        noise = torch.zeros(self.batch, frames, device=self.device)
        self._forward = _Forward(noise, frames, False, True, own, sees_older)

    @torch.no_grad()
    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend from the frames of the pass to context and pass.

        Args:
            layer: Layer number.
            queries: Un-rotated (B, Hq, N, D).
            keys: Un-rotated (B, H, N, D).
            values: (B, H, N, D).

        Returns:
            (B, Hq, N, D) in the dtype of the queries; the queries themselves where nobody reads the result.
        """
        with full_precision(self.device):
            if self._forward.own:
                return self._refresh(layer, queries, keys, values).to(queries.dtype)
            return self._attend(layer, queries, keys, values).to(queries.dtype)

    def _attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        cache, forward = self.caches[layer], self._forward
        turn = self._placing.turns[layer].first(forward.frames, queries.shape[2])
        rotated = self._rotated(queries, turn.queries)
        all_keys, all_values = cache.stage(keys, values, turn.keys)
        is_observed = forward.is_commit or self.protocol.passes == "all"
        is_biased = "log_mass" in cache.state and (cache.has_dropped or not self.policy.merges)
        if forward.is_cache_only and layer == self.shape.layers - 1:
            out, log_sum = queries, None
        else:
            parts = self.policy.view(
                cache, first_frame=self._first_frame, frames=forward.frames, commit=forward.is_commit
            )
            if parts is not None:
                all_keys, all_values = self._seen(cache, parts, turn.times, keys.shape[2])
            out, log_sum = attend(
                rotated, all_keys, all_values,
                log_mass=cache.staged_state("log_mass") if is_biased else None,
                lengths=cache.lengths, tail=keys.shape[2],
                with_log_sum=is_observed and self.policy.reads_attention,
            )  # fmt: skip
        if is_observed:
            step = Pass(
                layer=layer,
                chunk=self._chunk,
                queries=queries,
                rotated_queries=rotated,
                keys=keys,
                noise=forward.noise,
                commit=forward.is_commit,
                times=turn.times,
                frames=self._first_frame,
                log_sum=log_sum,
            )
            with self._guard.watching("observe", cache, step), self._watch.running():
                self.policy.observe(cache, step)
            if forward.is_commit:
                self.soundness.note("keys", layer, keys)
                self.soundness.note("values", layer, values)
                self._commit(cache, step)
        return out

    def _commit(self, cache: LayerCache, step: Pass) -> None:
        """Append the chunk and take its score while its queries are at hand; they are not held."""
        cache.append(step.keys, self._first_frame * self.shape.frame_tokens)
        self._committed.add(cache.layer)
        tokens = self.budget.tokens
        if tokens is None or not self._is_compressing or self.policy.is_positional:
            return
        if cache.size > tokens or type(self.policy).plan is not Policy.plan:
            with self._guard.watching("score", cache, step), self._watch.running():
                score = self.policy.checked_score(cache, step)
            self.soundness.note_scores(cache.layer, score)
            self._scores[cache.layer] = score

    def _refresh(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        cache, turn, forward = self.caches[layer], self._placing.turns[layer], self._forward
        frame_tokens = self.shape.frame_tokens
        first = self._first_frame + forward.frames - forward.own
        skipped = (forward.frames - forward.own) * frame_tokens
        fresh = (keys[:, :, skipped:], values[:, :, skipped:])
        rotated = self._rotated(fresh[0], turn.behind(skipped))
        bias = torch.zeros(*keys.shape[:2], cache.size + rotated.shape[2], device=self.device)
        if cache.bias is not None:
            bias[:, :, : cache.size] += cache.bias
        hidden = cache.tokens >= first * frame_tokens  # their new keys are among those of the pass
        bias[:, :, : cache.size].masked_fill_(hidden | (not forward.sees_older), -torch.inf)
        out, _ = attend(
            self._rotated(queries, turn.queries),
            torch.cat([cache.rotated, rotated], 2),
            torch.cat([cache.values, fresh[1]], 2),
            log_mass=bias,
        )
        cache.refresh(*fresh, rotated, first * frame_tokens)
        return out

    @torch.no_grad()
    def finish_chunk(self) -> None:
        """End the chunk after its committing pass; bring every layer down to its size.

        Raises:
            ValueError: If a layer has not seen a committing pass, or a plan does not fit the budget.
        """
        if len(self._committed) < self.shape.layers:
            raise ValueError(
                f"chunk {self._chunk}: {len(self._committed)} of {self.shape.layers} layers were committed"
            )
        if not self._is_compressing or self.budget.tokens is None:
            return
        held = self._stats_nbytes() + sum(score.nbytes for score in self._scores.values())
        with self._watch.running(), full_precision(self.device):
            sizes = self._sizes()
            self._compress(sizes)
        self._check_held(sizes)
        self._scores.clear()
        self._scratch = held - self._stats_nbytes()

    def _compress(self, sizes: Sequence[Sequence[int]]) -> None:
        """Bring the layers down to their sizes; those alike are selected together."""
        groups: dict[tuple[int, int], list[LayerCache]] = {}
        for cache, plan in zip(self.caches, sizes, strict=True):
            heads = [min(pair) for pair in zip(plan, cache.held, strict=True)]
            if len(set(heads)) > 1:
                self.policy.apply_by_head(cache, self._scores.pop(cache.layer), heads)
            elif cache.size > heads[0]:
                groups.setdefault((cache.size, heads[0]), []).append(cache)
        for (_, tokens), caches in groups.items():
            if self.policy.is_positional:
                for cache in caches:
                    self.policy.shift(cache, tokens)
                continue
            for begin in range(0, len(caches), _TOGETHER):
                some = caches[begin : begin + _TOGETHER]
                scores = torch.cat([self._scores.pop(cache.layer) for cache in some])
                self.policy.apply(some, self.policy.select(scores, tokens))

    def _check_held(self, sizes: Sequence[Sequence[int]]) -> None:
        """Raise where a layer holds more than it may: some hook of the policy has put something there."""
        for cache, plan in zip(self.caches, sizes, strict=True):
            if any(held > size for held, size in zip(cache.held, plan, strict=True)):
                raise ValueError(
                    f"policy '{self.policy.name}': layer {cache.layer} holds {max(cache.held)} tokens per "
                    f"head after chunk {self._chunk}; allowed: {max(plan)}"
                )

    def clear(self) -> None:
        """Forget the whole context, before it is made anew."""
        for cache in self.caches:
            cache.clear()

    # -- parts ------------------------------------------------------------------------------------------

    def _make_spare(self, capacity: int) -> Spare | None:
        if self.device.type != "cuda" or self.budget.tokens is None or self.policy.is_positional:
            return None
        return Spare((self.batch, self.shape.heads, capacity, self.shape.head_dim), self.dtype, self.device)

    def _make_cache(self, layer: int, capacity: int) -> LayerCache:
        cache = LayerCache(
            self.shape, layer=layer, batch=self.batch, capacity=capacity, dtype=self.dtype,
            device=self.device, spare=self.spare,
        )  # fmt: skip
        for name, fill in self.policy.states.items():
            cache.slot_state(name, fill=fill)
        return cache

    def _rotated(self, x: Tensor, angles: Angles) -> Tensor:
        if not x.is_cuda:
            return self.shape.rope.turn(x, *angles).to(self.dtype)
        out = torch.empty_like(x, dtype=self.dtype)
        self.shape.rope.turn_into(out, x, *angles)
        return out

    def _seen(
        self, cache: LayerCache, parts: Sequence[Segment], times: Tensor, tokens: int
    ) -> tuple[Tensor, Tensor]:
        """Gather the parts of the context that a pass sees, and the ``tokens`` tokens of the pass itself."""
        keys, values, seen = [], [], []
        for part in checked_view(self.policy, parts, cache):
            some = slice(part.start, part.stop)
            held, at = cache.rotated[:, :, some], cache.frames[:, :, some].long()
            if part.time is not None:
                steps = torch.arange(part.stop - part.start, device=self.device) // self.shape.frame_tokens
                at = (part.time + steps).expand_as(at)
                held = held.clone()
                self.shape.rope.retime_(held, cache.keys[:, :, some], *self.shape.rope.time_turn(at[0, 0]))
            keys.append(held)
            values.append(cache.values[:, :, some])
            seen.append(at)
        self._placing.narrow(cache.layer, torch.cat(seen, 2), times)
        keys.append(cache.staged_keys[:, :, -tokens:])
        values.append(cache.staged_values[:, :, -tokens:])
        return torch.cat(keys, 2), torch.cat(values, 2)

    def _sizes(self) -> list[list[int]]:
        """Return the slots per layer and head, from the policy's plan or the budget."""
        tokens = self.budget.tokens or 0
        plan = self.policy.plan(self.caches)
        if plan is None:
            return [[tokens] * self.shape.heads] * self.shape.layers
        plan = checked_plan(self.policy, plan, self.shape.layers, self.shape.heads, tokens)
        return [[int(size) for size in row] for row in plan]

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
        sizes = [sum(cache.held) / cache.heads for cache in self.caches]
        distance, beyond = (torch.stack(part) for part in zip(*self._placing.reach, strict=True))
        state = sum(cache.state_nbytes() for cache in self.caches) + self.policy.state_nbytes()
        return {
            "context_tokens": sum(sizes) / len(sizes),
            "context_tokens_max": max(cache.size for cache in self.caches),
            "kv_bytes": sum(cache.nbytes() for cache in self.caches),
            "state_bytes": state,
            "transient_bytes": self._transient_nbytes(),
            "max_distance": float(distance.max()),
            "beyond_window": round(float(beyond.mean()), 6),
            "kept": kept(self.caches, self.shape),
        }

    def _transient_nbytes(self) -> int:
        """Bytes of rotated keys, of what waits for a chunk's end, of the spare, of one block of weights."""
        rotated = sum(cache.rotated_nbytes() for cache in self.caches)
        spare = self.spare.nbytes() if self.spare is not None else 0
        rows = self.batch * self.shape.heads * max(cache.size for cache in self.caches)
        block = 4 * min(max(block_elements(self.device), rows), rows * self.shape.chunk_tokens)
        return rotated + spare + self._scratch + (block if self.policy.reads_attention else 0)

    def _stats_nbytes(self) -> int:
        return sum(x.nbytes for cache in self.caches for x in cache.stats.values() if isinstance(x, Tensor))
