"""Future Forcing: keep what the next frames' queries will read, fold the rest into look-alikes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from policies import history, merging
from policies.attention import group_mass, products
from policies.base import Pass, Policy, Shape
from policies.cache import LayerCache
from policies.proxy import Ahead, future_queries, note_queries
from policies.selection import rest

_CHOICES = {"merge": ("value", "none"), "profile": ("pooled", "rows"), "row_reduction": ("mean", "sum")}


@dataclass
class FutureForcing(Policy):
    """Score slots by the attention of future query proxies and by past attention; merge redundant values.

    Source: arXiv 2605.30083, section 4, Eq 2 (score) and Eq 3 (merge); no code is published.
    Deviates: nothing known; what the paper leaves open is a field here or a line in docs/policies.md.

    Args:
        lam: Weight of the future against the past, 0 to 1 (paper: 0.5).
        horizon: Future latent frames that are anticipated (paper: 6).
        window: Latent frames that the proxy averages (open in the paper; ours: 3, one chunk).
        tau: Cosine of profiles from which a dropped slot is merged (paper: 0.95).
        merge: ``value`` (paper) or ``none``.
        profile: Logits that are compared: ``pooled``, under the mean of each future frame's proxy rows (the
            paper's N x horizon); ``rows``, under ``profile_rows`` rows of each future frame.
        profile_rows: Rows per future frame for ``rows``, evenly spaced.
        row_reduction: Future score over the rows of a proxy: ``mean`` (ours: both terms of Eq 2 then sum to
            at most one over the slots) or ``sum``.
    """

    lam: float = 0.5
    horizon: int = 6
    window: int = 3
    tau: float = 0.95
    merge: str = "value"
    profile: str = "pooled"
    profile_rows: int = 8
    row_reduction: str = "mean"

    name: ClassVar[str] = "future_forcing"
    source: ClassVar[str] = "arXiv 2605.30083, Eq 2 and Eq 3"
    slot_state: ClassVar[Mapping[str, float]] = MappingProxyType({history.STATE: 0.0})
    reads_attention: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Reject values outside their ranges."""
        for field, allowed in _CHOICES.items():
            if getattr(self, field) not in allowed:
                raise ValueError(f"policy.{field} is '{getattr(self, field)}'; allowed: {', '.join(allowed)}")
        if not 0 <= self.lam <= 1:
            raise ValueError(f"policy.lam is {self.lam}; allowed: 0 to 1")
        if not -1 <= self.tau <= 1:
            raise ValueError(f"policy.tau is {self.tau}; allowed: -1 to 1")
        for field in ("horizon", "window", "profile_rows"):
            if getattr(self, field) < 1:
                raise ValueError(f"policy.{field} is {getattr(self, field)}; allowed: 1 or more")

    def begin(self) -> None:
        """Begin a rollout; angles are shared by its layers."""
        self._ahead = Ahead()

    def held_nbytes(self, shape: Shape, batch: int) -> int:
        """Return the bytes of the queries of earlier chunks that the proxy still needs."""
        frames = max(0, self.window - shape.chunk_frames)
        return 4 * batch * shape.layers * shape.query_heads * frames * shape.frame_tokens * shape.head_dim

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Add the attention of this pass and update the mean query of each position."""
        if self.budget.tokens is not None:
            history.accumulate(cache, step, self.protocol)
            note_queries(
                cache, step, self.protocol,
                frame_tokens=self.shape.frame_tokens, window=self.window, horizon=self.horizon,
            )  # fmt: skip

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return Eq 2, lam * future + (1 - lam) * past, (B, H, S)."""
        stride = self.protocol.query_stride
        queries = future_queries(cache, step, self.shape, self._ahead, horizon=self.horizon, stride=stride)
        rows = queries.shape[3]
        groups = queries if self.merge == "value" else queries.flatten(2, 3)[:, :, None]
        future = group_mass(groups, cache.rotated, log_mass=cache.bias)  # (B, H, horizon or 1, S)
        future *= groups.shape[2] / (self.horizon * rows)
        if self.row_reduction == "sum":
            future *= self.shape.frame_tokens
        if self.merge == "value":
            cache.stats["future"], cache.stats["profile"] = future, self._profiles(cache, queries)
        return self.lam * future.mean(2) + (1 - self.lam) * history.mean_per_query(cache)

    def _profiles(self, cache: LayerCache, queries: Tensor) -> Tensor:
        """Return the logits of every slot under the compared queries, (B, H, S, P) fp32, unscaled."""
        rows = queries.shape[3]
        if self.profile == "pooled":
            queries = queries.mean(3, keepdim=True)
        else:
            step = -(-rows // min(self.profile_rows, rows))
            queries = queries[:, :, :, step // 2 :: step]
        compared = queries.reshape(
            cache.batch, cache.heads, -1, queries.shape[-1]
        )  # (B, H, G * horizon * P, D)
        return products(cache.rotated, compared)

    def fold(self, caches: Sequence[LayerCache], kept: Tensor) -> None:
        """Merge Eq 3: add the values of redundant dropped slots to their most similar survivor; keys stay."""
        if self.merge == "none":
            return
        parts = [[cache.stats.pop(name) for cache in caches] for name in ("future", "profile")]
        future, profile = (torch.cat([x for x in part if isinstance(x, Tensor)]) for part in parts)
        dropped = rest(kept, caches[0].size)  # (LB, H, E)
        cosine, nearest = merging.nearest(
            merging.take_rows(profile, dropped), merging.take_rows(profile, kept)
        )
        is_merged = cosine >= self.tau
        target = torch.where(is_merged, kept.gather(2, nearest), dropped)  # the others go with themselves
        target, order = torch.sort(target, dim=2, stable=True)  # those that meet are neighbours
        dropped, is_merged = dropped.gather(2, order), is_merged.gather(2, order)
        own, added = merge_weights(future, dropped, target, is_merged)
        batch = caches[0].batch
        layers = zip(*(x.split(batch) for x in (own, dropped, target, added)), strict=True)
        for cache, layer in zip(caches, layers, strict=True):
            merging.blend_values(cache.values, *layer)


def merge_weights(
    future: Tensor, dropped: Tensor, target: Tensor, is_merged: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the weights of Eq 3: of each slot's own value and of each dropped slot's value in its target.

    Args:
        future: Attention under the proxies, (B, H, horizon, S).
        dropped: Slots that go, (B, H, E).
        target: Slot that takes each of them in, (B, H, E), sorted.
        is_merged: Which of them are taken in, (B, H, E).

    Returns:
        Own weights (B, H, S), exactly one where nothing arrives, and added weights (B, H, E).
    """
    by_slot = future.transpose(2, 3).contiguous()  # (B, H, S, horizon)
    whole = by_slot.clone()
    merging.blend_values(whole, None, dropped, target, is_merged.float())
    own = torch.where(whole > 0, by_slot / whole, 1.0).mean(-1)
    arriving = merging.take_rows(by_slot, dropped) * is_merged[..., None]  # (B, H, E, horizon)
    share = merging.take_rows(whole, target)
    added = torch.where(share > 0, arriving / share, 0.0).mean(-1)
    return own, added
