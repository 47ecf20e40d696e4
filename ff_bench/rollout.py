"""The rollout: the only place that executes passes, chunk by chunk, into the cache."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ff_bench.models.base import Decoder, Model
from ff_bench.models.schedule import Pass, Span, Turn
from ff_bench.noise import Draws, OwnDraws
from policies.context import Context


@dataclass(frozen=True)
class Take:
    """What is generated side by side.

    Attributes:
        prompts: B prompts.
        seeds: B seeds.
        latent_frames: length in latent frames, whole chunks.
        steps: noisy passes per chunk.
        prefix: (B, P, C, h, w) latents given for the first P frames, whole chunks; None without a prefix.
        switches: other prompts from a latent frame on: frame, B prompts. They hold from the first chunk that
            starts there or later, given or not; behind the video they do nothing.
        draws: where noise comes from; None takes our own.
        decode: whether chunks are decoded.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    latent_frames: int
    steps: int
    prefix: Tensor | None = None
    switches: Mapping[int, Sequence[str]] = field(default_factory=dict)
    draws: Draws | None = None
    decode: bool = True

    @property
    def prefix_frames(self) -> int:
        """Latent frames that are given."""
        return 0 if self.prefix is None else self.prefix.shape[1]


@dataclass(frozen=True)
class Chunk:
    """One finished chunk.

    Attributes:
        number: from 0.
        first_frame: its first latent frame.
        is_prefix: whether it was given.
        latents: (B, F, C, h, w).
        pictures: (B, T, H, W, 3) uint8 on the model's device; None where nothing is decoded.
        seconds: wall seconds of the chunk, without decoding.
        policy_seconds: part of them in observe and compress.
        decode_seconds: wall seconds of decoding.
        summary: numbers of the cache, see `Context.summary`, and what was made anew for this chunk.
    """

    number: int
    first_frame: int
    is_prefix: bool
    latents: Tensor
    pictures: Tensor | None
    seconds: float
    policy_seconds: float
    decode_seconds: float
    summary: dict[str, Any]


def rollout(model: Model, context: Context, take: Take) -> Iterator[Chunk]:
    """Generate `take` under `context`, one chunk at a time.

    Args:
        model: the backbone.
        context: fresh caches with their policy; capacity for the longest context of the take.
        take: what to generate.

    Yields:
        Every chunk, prefix first.

    Raises:
        FloatingPointError: at the first chunk whose latents are not finite, or whose keys, values or
            scores are not, naming it, its layer and its videos.
    """
    with torch.inference_mode():
        run = _Run(model, context, take)
    turns = model.turns(take.latent_frames, steps=take.steps, prefix_frames=take.prefix_frames)
    for turn in turns:
        begin = time.perf_counter()
        context.reset_policy_seconds()
        with torch.inference_mode():
            made = run.prepare(turn)
            latents = run.passes(turn)
            run.draw_ahead(turns[turn.number + 1 : turn.number + 2])  # while the device is at work
            is_finite = torch.isfinite(latents).flatten(1).all(1)
            policy_seconds = context.policy_seconds  # waits for the device
            _wait(context.device)
            seconds = time.perf_counter() - begin
            where = f"chunk {turn.number} under policy '{context.policy.name}'"
            _check_finite(is_finite, take, where)
            _check_sound(context, take, where)
            pictures, decode_seconds = run.decoded(latents)
        yield Chunk(
            turn.number, turn.first, turn.is_prefix, latents, pictures,
            seconds, policy_seconds, decode_seconds, {**context.summary(), **made},
        )  # fmt: skip


class _Run:
    """What goes from chunk to chunk: conditioning, unfinished and last finished latents, the decoder."""

    def __init__(self, model: Model, context: Context, take: Take) -> None:
        self.model, self.context, self.take = model, context, take
        self.conditioning = model.encode(take.prompts)
        self.later = {frame: model.encode(prompts) for frame, prompts in sorted(take.switches.items())}
        self.draws = take.draws or OwnDraws(take.prompts, take.seeds, model.latent_shape)
        self.noise: dict[tuple[Span, int], Tensor] = {}  # drawn ahead: what spans begin with (0) and add (1)
        self.drawn: set[int] = set()  # numbers of the unfinished turns it was drawn for
        self.open: dict[int, Tensor] = {}  # latents of chunks under way, by number
        self.past: Tensor | None = None  # the last finished latents (B, F, C, h, w), as many as are asked for
        self.decode: Decoder | None = model.decoder() if take.decode else None
        self.pictures: Tensor | None = None

    # -- before a chunk -----------------------------------------------------------------------------------

    def prepare(self, turn: Turn) -> dict[str, Any]:
        """Change the prompt where it is time, make anew what must be, and place the chunk.

        Returns:
            What was made anew: latent frames [first, end), for the trace.
        """
        made: dict[str, Any] = {}
        due = [frame for frame in self.later if frame <= turn.first]
        for frame in due:
            self.conditioning = self.later.pop(frame)
        if due:
            made["prompt"] = turn.first
            if self.model.recache_frames and turn.first:
                made["recached"] = self._recache(turn.first)
        frames = self.context.policy.recompute_frames
        if frames and turn.first:
            made["recomputed"] = self._recompute(turn, min(frames, turn.first))
        end = turn.first + turn.frames
        self.context.start_chunk(
            turn.number, turn.first, turn.frames, widest=turn.widest, compress=end >= self.take.prefix_frames
        )
        return made

    def _recache(self, first: int) -> list[int]:
        """Make the last frames of the context anew under the prompt in force."""
        assert self.past is not None, "there is nothing to make anew before the first chunk"
        frames = min(self.model.recache_frames, first)
        sink = self.context.budget.sink // self.model.shape.frame_tokens
        keeps_sink = self.model.recache_sink and first > frames
        own = max(1, frames - sink) if keeps_sink else frames
        self.context.start_refresh(first - frames, frames, own=own, sees_older=keeps_sink)
        self._clean(self.past[:, -frames:], first - frames)
        return [first - own, first]

    def _recompute(self, turn: Turn, frames: int) -> list[int]:
        """Make the whole context anew from the last latents."""
        assert self.past is not None, "there is nothing to make anew before the first chunk"
        latents = self.past[:, -frames:]
        if self.pictures is not None and turn.number > 1 and self.model.facts.first_stride == 1:
            latents = torch.cat([self.model.first_latent(self.pictures[:, 0]), latents[:, 1:]], 1)
        self.context.clear()
        self.context.start_chunk(turn.number, turn.first - frames, frames, compress=False)
        self.context.start_pass(_levels([0.0] * frames, len(latents), latents.device), True, cache_only=True)
        self._clean(latents, 0)
        self.context.finish_chunk()
        return [turn.first - frames, turn.first]

    def _clean(self, latents: Tensor, first: int) -> None:
        level = _levels([0.0] * latents.shape[1], len(latents), latents.device)
        self.model.denoise(
            latents, level, self.conditioning, self.context.attend, first_frame=first, cache_only=True
        )

    # -- a chunk ------------------------------------------------------------------------------------------

    def passes(self, turn: Turn) -> Tensor:
        """Run the passes of one turn; return the latents of its chunk (B, F, C, h, w)."""
        self.draw_ahead([turn])
        for step in turn.passes:
            if step.commit and self.context.policy.recompute_frames:
                continue  # its keys and values are made from the latents when they are needed
            latents = torch.cat([self._latents(span, turn) for span in step.spans], 1)
            level = _levels(step.levels, len(latents), latents.device)
            self.context.start_pass(level, step.commit, cache_only=step.commit)
            predicted = self.model.denoise(
                latents, level, self.conditioning, self.context.attend,
                first_frame=step.first, cache_only=step.commit,
            )  # fmt: skip
            if not step.commit:
                self._advance(step, latents, predicted)
        if not self.context.policy.recompute_frames:
            self.context.finish_chunk()
        latents = self.open.pop(turn.number)
        self.drawn.discard(turn.number)
        self._remember(latents)
        return latents

    def _advance(self, step: Pass, latents: Tensor, predicted: Tensor) -> None:
        begin = 0
        for span in step.spans:
            part = slice(begin, begin + span.frames)
            fresh = self.noise.pop((span, 1), None)
            self.open[span.chunk] = self.model.advance(latents[:, part], predicted[:, part], span, fresh)
            begin += span.frames

    def _latents(self, span: Span, turn: Turn) -> Tensor:
        """Return the latents of a chunk under way, those of a given or new one from its beginning."""
        if span.chunk not in self.open:
            if turn.is_prefix:
                assert self.take.prefix is not None, turn
                given = self.take.prefix[:, span.first : span.first + span.frames]
                self.open[span.chunk] = _sent(given, self.context.device)
            else:
                self.open[span.chunk] = self.noise.pop((span, 0))
        return self.open[span.chunk]

    def draw_ahead(self, turns: Sequence[Turn]) -> None:
        """Draw what the passes of turns begin with and add, where it is not drawn: no pass waits for it."""
        for turn in turns:
            if turn.is_prefix or turn.number in self.drawn:
                continue
            self.drawn.add(turn.number)
            for span in [span for step in turn.passes if not step.commit for span in step.spans]:
                if span.step == 0:
                    self.noise[span, 0] = _sent(self.draws.initial(span), self.context.device)
                if self.model.renoises and span.next_level is not None:
                    self.noise[span, 1] = _sent(self.draws.fresh(span), self.context.device)

    def _remember(self, latents: Tensor) -> None:
        most = max(self.model.recache_frames, self.context.policy.recompute_frames)
        if most:
            whole = latents if self.past is None else torch.cat([self.past, latents], 1)
            self.past = whole[:, -most:]

    # -- behind a chunk -----------------------------------------------------------------------------------

    def decoded(self, latents: Tensor) -> tuple[Tensor | None, float]:
        """Decode a chunk; return its pictures and the seconds that it took."""
        if self.decode is None:
            return None, 0.0
        begin = time.perf_counter()
        pictures = self.decode(latents)
        _wait(pictures.device)
        seen = (self.context.policy.recompute_frames - 1) * self.model.facts.temporal_stride + 1
        if seen > 0:  # the pictures of the next context, the oldest first
            whole = pictures if self.pictures is None else torch.cat([self.pictures, pictures], 1)
            self.pictures = whole[:, -seen:]
        return pictures, time.perf_counter() - begin


def _levels(levels: Sequence[float], batch: int, device: torch.device) -> Tensor:
    """Return noise levels (B, F) fp32, without a copy from the host."""
    if len(set(levels)) == 1:
        return torch.full((batch, len(levels)), levels[0], device=device)
    return torch.cat([torch.full((batch, 1), level, device=device) for level in levels], 1)


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """Send a tensor to the device without waiting for what runs there."""
    if device.type != "cuda" or values.is_cuda:
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _check_finite(is_finite: Tensor, take: Take, where: str) -> None:
    """Raise unless the latents of every video are numbers; is_finite (B,) bool."""
    lost = [index for index, fine in enumerate(is_finite.tolist()) if not fine]
    if lost:
        raise FloatingPointError(f"latents are not finite in {where}: {_told(take, lost)}")


def _check_sound(context: Context, take: Take, where: str) -> None:
    """Raise where keys, values or scores of the chunk are no numbers: a policy would choose by them."""
    fault = context.soundness.fault()
    if fault is not None:
        raise FloatingPointError(f"{fault.told} in {where}: {_told(take, fault.videos)}")


def _told(take: Take, places: Sequence[int]) -> str:
    return ", ".join(f"'{take.prompts[place]}' seed {take.seeds[place]}" for place in places)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
