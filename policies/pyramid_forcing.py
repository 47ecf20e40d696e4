"""Pyramid Forcing: three kinds of heads, each with a middle of its own between first and newest frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from policies import head_types, merging
from policies.base import Pass, Policy
from policies.cache import LayerCache
from policies.positional import newest

_MERGED = "merged"
_HIDDEN = -1e4
"""Log-mass of a slot that a chunk does not see: its weight is exactly 0 in fp32."""
_LEAST_FRAMES = 4
"""Latent frames of context that a rhythm can be read from."""


@dataclass
class PyramidForcing(Policy):
    """Anchor heads keep every sixth frame, Wave heads a phase of it, Veil heads means of patches.

    Kinds are measured once per video, in the first clean pass above the budget, from the mean logit of each
    context frame under the queries of the chunk's last frame. A head with at least ``steady`` of its frames
    on one side of zero is steady; of the others those are Wave whose changes from frame to frame beat in
    periods of at most ``longest_period``. Of the rest those with the fewest positive frames are Veil, the
    others Anchor. All keep their first frames and the newest ``near_frames``. Between these an Anchor head
    keeps frames at multiples of ``period``; a Wave head those in step with chunks, of which a chunk sees the
    ones a multiple of ``period`` before its first frame; a Veil head one slot for each block of patch * patch
    places in patch**2 frames: the mean of un-rotated keys and of values, at the place of its first token.

    Source: arXiv 2605.13111; IF-LAB-PKU/Pyramid-Forcing@4c0ebda, configs/pyramid-forcing.yaml and
        configs/head_configs; headkv/_mega_state_ref.py@62e95d3.
    Deviates: as many heads of a kind as in the released labels (156 Wave, 32 Veil, 172 Anchor of 360), spread
        evenly over the layers, each video its own (the original: labels made offline, voted over many videos
        by the same thresholds); logits are means over all places (which ones the paper means is not said);
        the spectrum is not folded over harmonics, whose weights are not published;
        middles share what the budget leaves in the released proportion, and a budget below both ends has
        fewer first frames (the original: 4 frames a middle,
        Wave heads 4 frames for each of 6 phases, which it does not count); phases at which no chunk begins
        are not held; a block is merged as its frames leave the newest ones and stands at its first frame
        (the original: when it is complete, at its middle frame, while its frames may still be seen); first
        and middle frames are moved only if they are beyond the window (the original: all to one time).

    Args:
        wave: Share of the heads that are Wave, 0 to 0.5 (156 of 360 in the released file).
        veil: Share of the heads that are Veil, 0 to 0.5 (32 of 360).
        sink_frames: First latent frames of Anchor and Veil heads (released: 3); Wave heads keep the sink.
        near_frames: Newest latent frames of every head (released: 4), a chunk at least.
        period: Latent frames between those that stay in the middle (released: 6).
        patch: Rows, columns and root of the frames of a Veil block (released: 2); 1 merges nothing.
        steady: Share of frames on one side of zero that makes a head steady (paper: 0.8).
        longest_period: Longest period of a Wave head, latent frames (paper: 6.4).
    """

    wave: float = 0.433
    veil: float = 0.089
    sink_frames: int = 3
    near_frames: int = 4
    period: int = 6
    patch: int = 2
    steady: float = 0.8
    longest_period: float = 6.4

    name: ClassVar[str] = "pyramid_forcing"
    source: ClassVar[str] = "arXiv 2605.13111; IF-LAB-PKU/Pyramid-Forcing@4c0ebda"
    pins: ClassVar[Mapping[str, object]] = MappingProxyType(
        {"sink": "1f", "recent": "1c", "unit": "token", "share": "head", "position": "clamped"}
    )
    slot_state: ClassVar[Mapping[str, float]] = MappingProxyType({_MERGED: 1.0, "log_mass": 0.0})
    folds_by_head: ClassVar[bool] = True
    widest_head: ClassVar[float] = head_types.WIDEST

    def __post_init__(self) -> None:
        """Reject values outside their ranges."""
        head_types.check_share("wave", self.wave)
        head_types.check_share("veil", self.veil)
        for field in ("sink_frames", "near_frames", "period", "patch"):
            if getattr(self, field) < 1:
                raise ValueError(f"policy.{field} is {getattr(self, field)}; allowed: 1 or more")
        if not 0.5 <= self.steady <= 1:
            raise ValueError(f"policy.steady is {self.steady}; allowed: 0.5 to 1")
        if self.longest_period < 2:
            raise ValueError(f"policy.longest_period is {self.longest_period}; allowed: 2 or more")

    # -- sizes ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Check that sink and newest frames fit the budget.

        Raises:
            ValueError: If they do not.
        """
        tokens, needed = self.budget.tokens, self.budget.sink + self._near
        if tokens is not None and tokens < needed:
            raise ValueError(
                f"budget.tokens is {tokens}; policy 'pyramid_forcing' needs {needed}: "
                f"sink {self.budget.sink} + newest frames of {self._near}"
            )

    def _counts(self, layer: int) -> tuple[int, int]:
        """Return Wave and Veil heads of a layer; none where the protocol asks for sets of one size."""
        heads = self.shape.heads
        if self.protocol.share == "layer" or self.unit > 1:
            return 0, 0
        upto, before = (
            [int(share * heads * count + 0.5) for share in (self.wave, self.veil)]
            for count in (layer + 1, layer)
        )
        wave, veil = (a - b for a, b in zip(upto, before, strict=True))
        return wave, min(veil, heads - wave)

    @property
    def _near(self) -> int:
        """Newest slots of every head, tokens."""
        own = self.near_frames * self.shape.frame_tokens
        return max(own, self.budget.recent, self.shape.chunk_tokens)

    @property
    def _sink(self) -> int:
        """First slots of Anchor and Veil heads, tokens; fewer where the budget cannot hold both ends."""
        frame = self.shape.frame_tokens
        frames = min(self.sink_frames, ((self.budget.tokens or 0) - self._near) // frame)
        return max(frames * frame, self.budget.sink)

    def _parts(self, layer: int) -> list[tuple[int, int]]:
        """Return protected slots and weight of the middle for each head of a layer: Veil, Anchor, Wave."""
        wave, veil = self._counts(layer)
        block = self.patch**2
        phases = self.period // math.gcd(self.period, self.shape.chunk_frames)
        anchor = self.shape.heads - wave - veil
        first, near = self._sink, self._near
        return (
            [(first + near, 1)] * veil
            + [(first + near, block)] * anchor
            + [(self.budget.sink + near, block * phases)] * wave
        )

    def plan(self, caches: Sequence[LayerCache]) -> Tensor | None:
        """Return protected slots and middle for each head by rank, in sum the budget."""
        tokens = self.budget.tokens or 0
        is_early = any(head_types.ranks(cache) is None or cache.size <= tokens for cache in caches)
        if is_early or not any(any(self._counts(cache.layer)) for cache in caches):
            return None
        return torch.tensor([self._sizes(tokens, self._parts(cache.layer)) for cache in caches])

    def _sizes(self, tokens: int, parts: Sequence[tuple[int, int]]) -> list[int]:
        """Return the slots of each head of a layer, in sum ``tokens`` each."""
        free = tokens * len(parts) - sum(part for part, _ in parts)
        whole, widest = sum(weight for _, weight in parts), int(self.widest_head * tokens)
        sizes = [min(part + free * weight // whole, widest) for part, weight in parts]
        for i, size in enumerate(sizes):  # what rounding and the widest head leave
            sizes[i] += min(tokens * len(parts) - sum(sizes), widest - size)
        return sizes

    # -- kinds ------------------------------------------------------------------------------------------

    def ranks(self, cache: LayerCache) -> Tensor | None:
        """Return the place of each head: Veil, Anchor, Wave, (B, H)."""
        return head_types.ranks(cache)

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Tell the kinds of heads in the first clean pass above the budget."""
        tokens, frame = self.budget.tokens, self.shape.frame_tokens
        if tokens is None or not step.commit or cache.size + step.keys.shape[2] <= tokens:
            return
        if head_types.ranks(cache) is not None or cache.size < _LEAST_FRAMES * frame:
            return
        whole = cache.size // frame * frame
        keys = cache.rotated[:, :, :whole].unflatten(2, (-1, frame)).mean(3, dtype=torch.float32)
        asked = step.rotated_queries[:, :, -frame:].mean(2, dtype=torch.float32)  # (B, Hq, D)
        asked = asked.unflatten(1, (cache.heads, -1)).mean(2)
        logits = (keys * asked[:, :, None]).sum(-1) * self.shape.head_dim**-0.5  # (B, H, F)
        head_types.note_ranks(cache, self._places(logits, self._counts(cache.layer)[0]))

    def _places(self, logits: Tensor, wave: int) -> Tensor:
        """Return the place of each head by its mean logit per frame, (B, H, F) to (B, H) int64."""
        frames, mean = logits.shape[-1], logits.mean(-1)
        positive = (logits > 0).sum(-1)
        is_steady = torch.maximum(positive, frames - positive) >= self.steady * frames - 1e-6
        by_rhythm = _ordered(is_steady, -short_share(logits, self.longest_period), mean.abs())
        is_wave = by_rhythm < wave
        return _ordered(is_wave, positive, mean)

    def _kinds(self, cache: LayerCache) -> tuple[Tensor, Tensor]:
        """Tell which heads are Wave and which are Veil, (B, H, 1) each; none before it was measured."""
        wave, veil = self._counts(cache.layer)
        is_veil, others = (head_types.is_narrow(cache, n) for n in (veil, cache.heads - wave))
        return ~others & (head_types.ranks(cache) is not None), is_veil

    # -- slots ------------------------------------------------------------------------------------------

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return the slot number, higher for what a middle is made of, infinite at both ends, (B, H, S)."""
        frame, chunk = self.shape.frame_tokens, step.keys.shape[2]
        stop = step.frames * frame + chunk
        cache.stats["older"] = float(cache.size - chunk)
        tokens, frames = cache.tokens, cache.frames
        is_wave, is_veil = self._kinds(cache)
        sink = torch.where(is_wave, self.budget.sink, self._sink)
        stays = (tokens < sink) | (tokens >= stop - self._near)
        in_step = frames % math.gcd(self.period, self.shape.chunk_frames) == 0
        middle = torch.where(is_wave, in_step, frames % self.period == 0)
        middle = torch.where(is_veil, tokens == self._first_of_block(tokens), middle)
        is_hidden = is_wave & ~stays & (frames % self.period != stop // frame % self.period)
        cache.slot_state("log_mass").copy_(is_hidden * _HIDDEN)
        return (newest(cache) + middle * cache.size).masked_fill(stays, torch.inf)

    def _first_of_block(self, tokens: Tensor) -> Tensor:
        """Return the first token of the block of each token, in frames, rows and columns."""
        frame, columns, patch = self.shape.frame_tokens, self.shape.columns, self.patch
        first = tokens // frame // patch**2 * patch**2
        row, column = (x // patch * patch for x in (tokens % frame // columns, tokens % columns))
        return first * frame + row * columns + column

    def fold(self, caches: Sequence[LayerCache], kept: Tensor) -> None:
        """Move what leaves a Veil head into the first slot of its block."""
        for cache, own in zip(caches, kept.split(caches[0].batch), strict=True):
            places, (_, veil) = head_types.ranks(cache), self._counts(cache.layer)
            if veil and self.patch > 1 and places is not None:
                heads = places.argsort(-1)[:, :veil]
                self._merge(cache, own, torch.arange(cache.batch, device=cache.device)[:, None], heads)

    def _merge(self, cache: LayerCache, kept: Tensor, videos: Tensor, heads: Tensor) -> None:
        """Merge in the heads (B, V) of the videos (B, 1): weighted by how many tokens a slot stands for."""
        tokens = cache.tokens[videos, heads].long()  # (B, V, S)
        slots = torch.arange(cache.size, device=cache.device).expand_as(tokens)
        stays = torch.zeros_like(tokens, dtype=torch.bool).scatter_(2, kept[videos, heads], True)
        first = self._first_of_block(tokens)
        older = tokens[..., : int(cache.stats["older"])].contiguous()  # behind it gaps, and the chunk
        place = torch.searchsorted(older, first).clamp(max=older.shape[-1] - 1)
        is_there = (tokens.gather(2, place) == first) & stays.gather(2, place) & (first >= self._sink)
        moves = is_there & ~stays
        target = torch.where(moves, place, 0)  # the others go nowhere: slot 0 always stays, and gets nothing
        dropped, target, moves = merging.gathered(slots, target, moves)
        state = cache.slot_state(_MERGED)
        weight = state[videos, heads]
        arriving = weight.gather(2, dropped) * moves
        whole = weight.scatter_add(2, target, arriving)  # of whole numbers: exact in any order
        state[videos, heads] = whole
        added = arriving / whole.gather(2, target)
        for rows in (cache.keys, cache.values):
            part = rows[videos, heads]
            merging.blend_values(part, weight / whole, dropped, target, added)
            rows[videos, heads] = part
        parts = (x[videos, heads] for x in (cache.frames, cache.rows, cache.columns))
        angles = self.shape.rope.angles(*parts)
        cache.rotated[videos, heads] = self.shape.rope.rotate(cache.keys[videos, heads], angles)


def short_share(logits: Tensor, longest: float) -> Tensor:
    """Return how much short periods lead in a series of frames: above 0.5 where the leading one is short.

    Args:
        logits: Mean logit per latent frame, (..., F) fp32, at least 4 frames.
        longest: Longest period that is short, latent frames.

    Returns:
        Highest power at a short period over its sum with the highest at a long one, (...) fp32; of the
        series of changes between frames, less its mean, under a Hann window.
    """
    change = logits.diff(dim=-1)
    count = change.shape[-1]
    window = torch.hann_window(count, periodic=False, device=logits.device)
    power = torch.fft.rfft((change - change.mean(-1, keepdim=True)) * window).abs().square()[..., 1:]
    is_short = count <= longest * torch.arange(1, count // 2 + 1, device=logits.device)
    short, long = (power.masked_fill(mask, 0.0).amax(-1) for mask in (~is_short, is_short))
    share: Tensor = short / (short + long).clamp(min=1e-20)
    return share


def _ordered(*keys: Tensor) -> Tensor:
    """Return the place of each head by the first key, of equal ones by the next, (B, H) to (B, H) int64."""
    order = torch.arange(keys[0].shape[-1], device=keys[0].device).expand(keys[0].shape)
    for key in reversed(keys):
        order = order.gather(-1, key.gather(-1, order).argsort(dim=-1, stable=True))
    return order.argsort(-1)
