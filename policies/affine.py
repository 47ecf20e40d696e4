"""A merge that keeps attention mass: exact where two keys differ only across the space of future queries.

Future queries are modelled as q = mean + z with the covariance C of the rotated proxies; a slot j weighs
exp(s q.k_j + b_j), s = 1 / sqrt(D). A group of slots with shares w (of their future attention) becomes one
slot: key sum(w k), value sum(w v), log-mass sum(w (b - log w)). By Jensen's inequality the new logit is at
most the log-sum of the old ones and equals it, with its slope, where the softmax over the group is w; along
directions in which the keys agree it is exact everywhere. Merging pair by pair gives the same slot in any
order. Keys meet rotated, as the queries at hand read them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from policies import history, merging
from policies.base import Pass
from policies.cache import LayerCache
from policies.placing import times_of
from policies.selection import rest

LOG_MASS = "log_mass"
_FLOOR = 1e-30
"""Smallest share, so that a slot nobody reads has a finite logarithm."""


@dataclass(frozen=True)
class Spread:
    """What future queries look like to each key-value head.

    Args:
        mean: Mean rotated query (B, H, D) fp32.
        factor: Lower Cholesky factor of their covariance with its ridge, (B, H, D, D) fp32.
    """

    mean: Tensor
    factor: Tensor

    @classmethod
    def of(cls, queries: Tensor, heads: int, *, ridge: float) -> Spread:
        """Measure queries (B, Hq, horizon, R, D), all rows of a group of heads together.

        Args:
            queries: Rotated to where they will be asked.
            heads: Key-value heads.
            ridge: Variance added to every channel, in mean variances; proxies are averages and vary less
                than queries.
        """
        rows = queries.unflatten(1, (heads, -1)).flatten(2, 4)  # (B, H, rows, D)
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        mean = rows.mean(2, keepdim=True)
        rows = rows - mean
        covariance = rows.mT @ rows / rows.shape[2]
        diagonal = covariance.diagonal(dim1=-2, dim2=-1)
        diagonal += ridge * diagonal.mean(-1, keepdim=True).clone() + _FLOOR**0.5
        factor, _ = torch.linalg.cholesky_ex(covariance)
        return cls(mean.squeeze(2), factor)

    def project(self, keys: Tensor) -> Tensor:
        """Return keys (B, H, S, D) so that squared distances are variances of logit differences, fp32."""
        centred = keys.to(self.factor.dtype)
        centred = centred - centred.mean(2, keepdim=True)
        return torch.matmul(centred, self.factor * keys.shape[-1] ** -0.5)

    def carrier(self) -> Tensor:
        """Return u (B, H, D), which minimises the mean of (q.u - 1)^2: adding b sqrt(D) u to a key adds b.

        Where the mean has a part across the covariance and the ridge vanishes, q.u is one for every query.
        Where queries scatter much around their mean, u shrinks.
        """
        solved = torch.cholesky_solve(self.mean[..., None], self.factor).squeeze(-1)
        carrier: Tensor = solved / (1 + (self.mean * solved).sum(-1, keepdim=True))
        return carrier


@dataclass(frozen=True)
class Groups:
    """Which dropped slots go into which survivors, and the share of each slot in its group.

    Args:
        dropped: Slots that go (B, H, E).
        target: Slot that takes each in (B, H, E), sorted; one that goes alone is its own target.
        is_merged: Which of them are taken in (B, H, E).
        own: Share of each slot (B, H, S) in its group, one where nothing arrives.
        added: Share of each dropped slot (B, H, E), zero where it goes alone.
    """

    dropped: Tensor
    target: Tensor
    is_merged: Tensor
    own: Tensor
    added: Tensor

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean over each group under its shares, at the survivor, of x (B, H, S, C); fp32."""
        out = x.to(self.own.dtype, copy=True)
        merging.blend_values(out, self.own, self.dropped, self.target, self.added)
        return out

    def total(self, x: Tensor) -> Tensor:
        """Return the sum over each group, at the survivor, of x (B, H, S) fp32."""
        out = x[..., None].clone()
        merging.blend_values(out, None, self.dropped, self.target, self.is_merged.to(x.dtype))
        return out.squeeze(-1)

    def log_mass(self, before: Tensor, *, key: str) -> Tensor:
        """Return the log-mass of each slot after the merge, (B, H, S) fp32.

        Args:
            before: What the slots have (B, H, S).
            key: ``tangent``: the key is the mean, so the entropy of the shares is added. ``survivor``: the
                key stays, so the logarithm of what the group has more than its survivor is added.
        """
        if key == "survivor":
            return before - self.own.clamp(min=_FLOOR).log()
        shares = self.own.scatter(2, self.dropped, torch.where(self.is_merged, self.added, 1.0))
        return self.mean((before - shares.clamp(min=_FLOOR).log())[..., None]).squeeze(-1)

    def receives(self) -> Tensor:
        """Return which slots take something in, (B, H, S) bool."""
        return torch.zeros_like(self.own, dtype=torch.bool).scatter(2, self.target, self.is_merged)


def times_in_force(cache: LayerCache, step: Pass, position: str, *, sink: int) -> Tensor:
    """Return the time index of each slot, of the chunk just appended too, (S,) or (B, H, S).

    Args:
        cache: The layer, with the chunk.
        step: The pass that committed the chunk.
        position: Position mode.
        sink: Protected slots at the start, tokens.
    """
    context = cache.tokens[:, :, : cache.size - step.keys.shape[2]]
    frames = step.times.shape[-1]
    held, _ = times_of(
        cache, context, position, shape=cache.shape, sink=sink, first_frame=step.frames, frames=frames
    )
    chunk = step.times.repeat_interleave(cache.shape.frame_tokens, -1)
    lead = torch.broadcast_shapes(held.shape[:-1], chunk.shape[:-1])
    return torch.cat([held.expand(*lead, -1), chunk.expand(*lead, -1)], -1)


def pair(projected: Tensor, values: Tensor, mass: Tensor, kept: Tensor, *, only_cheaper: bool) -> Groups:
    """Give every dropped slot its nearest survivor, and merge where that is cheaper than eviction.

    Args:
        projected: Keys in the metric of future queries (B, H, S, D), `Spread.project`.
        values: (B, H, S, D).
        mass: Share of future attention of each slot (B, H, S).
        kept: Slots that stay (B, H, K).
        only_cheaper: Whether `costs` decides; else everything is merged.
    """
    dropped = rest(kept, mass.shape[2])
    squared, place = merging.closest(
        merging.take_rows(projected, dropped), merging.take_rows(projected, kept)
    )
    target = kept.gather(2, place)
    is_merged = torch.ones_like(target, dtype=torch.bool)
    if only_cheaper:
        merge, evict = costs(squared, values, mass, dropped=dropped, target=target)
        is_merged = merge < evict
    return group(mass, *merging.gathered(dropped, torch.where(is_merged, target, dropped), is_merged))


def group(mass: Tensor, dropped: Tensor, target: Tensor, is_merged: Tensor) -> Groups:
    """Return groups with the shares that follow from ``mass`` (B, H, S)."""
    mass = mass.clamp(min=_FLOOR)
    whole = mass[..., None].clone()
    merging.blend_values(whole, None, dropped, target, is_merged.to(mass.dtype))
    whole = whole.squeeze(-1)
    added = torch.where(is_merged, mass.gather(2, dropped) / whole.gather(2, target), 0.0)
    return Groups(dropped, target, is_merged, mass / whole, added)


def costs(
    squared: Tensor, values: Tensor, mass: Tensor, *, dropped: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Predict the squared error of the head's output if a slot is merged, and if it is evicted, (B, H, E).

    With A the future attention of the pair, w its shares, d the deviation of their logit difference and o the
    head's mean output: merging costs A^2 (w_i^2 w_j^2 d^2 |v_i - v_j|^2 + 3/4 w_i^2 w_j^2 d^4 |v - o|^2),
    where v is the merged value and the 3 the fourth moment of a Gaussian; evicting costs
    A_j^2 |v_j - o|^2 / (1 - A_j)^2.

    Args:
        squared: d^2 (B, H, E).
        values: (B, H, S, D).
        mass: Share of future attention of each slot (B, H, S), at most one in all.
        dropped: Slots that go (B, H, E).
        target: Survivor that would take each in (B, H, E).
    """
    wide = values.to(mass.dtype)
    output = mass[:, :, None] @ wide / mass.sum(-1)[..., None, None].clamp(min=_FLOOR)  # (B, H, 1, D)
    leaving, staying = (merging.take_rows(wide, index) for index in (dropped, target))
    gone, stays = mass.gather(2, dropped), mass.gather(2, target)
    both = (gone + stays).clamp(min=_FLOOR)
    share = gone / both
    merged = staying + share[..., None] * (leaving - staying)
    across = (both * share * (1 - share)).square() * squared
    apart, from_output, gap = (
        x.square().sum(-1) for x in (leaving - staying, merged - output, leaving - output)
    )
    merge = across * (apart + 0.75 * squared * from_output)
    return merge, (gone / (1 - gone).clamp(min=_FLOOR**0.5)).square() * gap


def merge(
    cache: LayerCache, kept: Tensor, spread: Spread, mass: Tensor, *,
    times: Tensor, key: str, bias: str, only_cheaper: bool,
) -> None:  # fmt: skip
    """Merge what goes into what stays in one layer; slots that take nothing in stay bit-identical.

    Args:
        cache: The layer, before ``keep``.
        kept: Slots that stay (B, H, K).
        spread: The future queries.
        mass: Share of future attention of each slot (B, H, S) fp32.
        times: Time index of each slot in force, (S,) or (B, H, S).
        key: ``tangent``, the mean of the keys, or ``survivor``, its own.
        bias: Where the log-mass goes: ``explicit`` into the slot state, ``absorbed`` into the key, ``none``.
        only_cheaper: Merge only where the predicted error is below that of eviction.
    """
    groups = pair(spread.project(cache.rotated), cache.values, mass, kept, only_cheaper=only_cheaper)
    receives = groups.receives()[..., None]
    if key == "tangent" or bias == "absorbed":
        rotated = groups.mean(cache.rotated) if key == "tangent" else cache.rotated.float()
        if bias == "absorbed":
            log_mass = groups.log_mass(torch.zeros_like(mass), key=key)
            lift = spread.carrier()[:, :, None] * cache.shape.head_dim**0.5
            rotated = rotated + log_mass[..., None] * lift
        write_keys(cache, rotated, receives, times)
    if bias == "explicit":
        held = cache.slot_state(LOG_MASS)
        held.copy_(torch.where(receives.squeeze(-1), groups.log_mass(held, key=key), held))
    cache.values.copy_(torch.where(receives, groups.mean(cache.values).to(cache.dtype), cache.values))
    if history.STATE in cache.state:
        received = history.total(cache)
        received.copy_(groups.total(received))


def write_keys(cache: LayerCache, rotated: Tensor, receives: Tensor, times: Tensor) -> None:
    """Replace keys in place, given as the queries at hand read them; un-rotated at their own positions.

    Args:
        cache: The layer.
        rotated: New keys at the positions in force (B, H, S, D) fp32.
        receives: Which slots take theirs (B, H, S, 1).
        times: Time index of each slot in force, (S,) or (B, H, S).
    """
    rope = cache.shape.rope
    keys = rope.rotate(rotated, -rope.angles(times, cache.rows, cache.columns))
    for held, new in ((cache.rotated, rotated), (cache.keys, keys)):
        held.copy_(torch.where(receives, new.to(held.dtype), held))
