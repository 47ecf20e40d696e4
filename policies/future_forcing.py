"""Future Forcing: keep what the next frames' queries will read, fold the rest into look-alikes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from policies import affine, history, merging
from policies.attention import group_mass, products
from policies.base import Pass, Policy, Protocol, Shape
from policies.cache import LayerCache
from policies.positional import newest
from policies.proxy import Ahead, future_queries, note_queries
from policies.selection import rest

_CHOICES = {
    "keep": ("score", "newest"),
    "merge": ("value", "affine", "none"),
    "proxy_pass": ("observed", "first"),
    "profile": ("pooled", "rows"),
    "row_reduction": ("mean", "sum"),
    "key": ("tangent", "survivor"),
    "bias": ("explicit", "absorbed", "none"),
    "merge_where": ("cheaper", "all"),
}


@dataclass
class FutureForcing(Policy):
    """Score slots by the attention of future query proxies and by past attention; merge what is redundant.

    Source: arXiv 2605.30083, section 4, Eq 2 (score) and Eq 3 (merge); no code is published.
    Deviates: with the published fields nothing known; what the paper leaves open is a field here or a line in
        docs/policies.md. ``merge=affine`` is ours: the paper's abstract names the affine subspace that future
        queries induce, its Eq 3 does not use it.

    Args:
        lam: Weight of the future against the past, 0 to 1 (paper: 0.5).
        horizon: Future latent frames that are anticipated (paper: 6).
        window: Latent frames that the proxy averages (open in the paper; ours: 3, one chunk).
        tau: Cosine of profiles from which a dropped slot is merged, for ``merge=value`` (paper: 0.95).
        keep: ``score`` (Eq 2) or ``newest``, the ablation without score: the protocol's sink and FIFO.
        merge: ``value`` (Eq 3), ``none``, or ``affine``, which keeps attention mass (policies/affine.py).
        proxy_pass: Whose queries make the proxy: ``observed``, the passes that the protocol observes, or
            ``first``, the noisiest pass of a chunk; that needs ``protocol.passes=all``.
        profile: Logits that are compared: ``pooled``, under the mean of each future frame's proxy rows (the
            paper's N x horizon); ``rows``, under ``profile_rows`` rows of each future frame.
        profile_rows: Rows per future frame for ``rows``, evenly spaced.
        row_reduction: Future score over the rows of a proxy: ``mean`` (ours: both terms of Eq 2 then sum to
            at most one over the slots) or ``sum``.
        key: For ``merge=affine``, the merged key: ``tangent``, the mean under the shares, or ``survivor``.
        bias: For ``merge=affine``, where the log-mass goes: ``explicit`` (4 bytes per slot, added to the
            logit), ``absorbed`` into the key, or ``none``.
        merge_where: For ``merge=affine``: ``cheaper``, where the predicted error is below that of eviction,
            or ``all``.
        ridge: For ``merge=affine``, variance added to every channel of the queries, in mean variances.
    """

    lam: float = 0.5
    horizon: int = 6
    window: int = 3
    tau: float = 0.95
    keep: str = "score"
    merge: str = "value"
    proxy_pass: str = "observed"
    profile: str = "pooled"
    profile_rows: int = 8
    row_reduction: str = "mean"
    key: str = "tangent"
    bias: str = "explicit"
    merge_where: str = "cheaper"
    ridge: float = 0.01

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
        if not self.ridge >= 0:
            raise ValueError(f"policy.ridge is {self.ridge}; allowed: 0 or more")

    def check(self, protocol: Protocol) -> None:
        """Reject a pass for the proxy that the protocol does not observe."""
        if self.proxy_pass == "first" and protocol.passes != "all":
            raise ValueError("policy.proxy_pass is 'first'; allowed with protocol.passes=all, else: observed")

    def begin(self) -> None:
        """Begin a rollout; angles are shared by its layers."""
        self._ahead = Ahead()

    @property
    def merges(self) -> bool:
        """Whether anything is merged."""
        return self.merge != "none"

    @property
    def states(self) -> Mapping[str, float]:
        """What each slot carries: its past attention, and with an explicit bias its log-mass."""
        if self._is_blind:
            return {}
        is_explicit = self.merge == "affine" and self.bias == "explicit"
        return {**self.slot_state, affine.LOG_MASS: 0.0} if is_explicit else self.slot_state

    def held_nbytes(self, shape: Shape, batch: int) -> int:
        """Return the bytes of the queries of earlier chunks that the proxy still needs."""
        if self._is_blind:
            return 0
        frames = max(0, self.window - shape.chunk_frames)
        return 4 * batch * shape.layers * shape.query_heads * frames * shape.frame_tokens * shape.head_dim

    @property
    def _is_blind(self) -> bool:
        """Whether neither scores nor merges look at queries."""
        return self.keep == "newest" and not self.merges

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Add the attention of this pass and update the mean query of each position."""
        if self.budget.tokens is not None and not self._is_blind:
            history.accumulate(cache, step, self.protocol)
            note_queries(
                cache, step, self.protocol,
                frame_tokens=self.shape.frame_tokens, window=self.window, horizon=self.horizon,
                takes_first=self.proxy_pass == "first",
            )  # fmt: skip

    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        """Return Eq 2, lam * future + (1 - lam) * past, (B, H, S); or the slot number with keep=newest."""
        if self._is_blind:
            return newest(cache)
        stride = self.protocol.query_stride
        queries = future_queries(cache, step, self.shape, self._ahead, horizon=self.horizon, stride=stride)
        rows = queries.shape[3]
        groups = queries if self.merge == "value" else queries.flatten(2, 3)[:, :, None]
        future = group_mass(groups, cache.rotated, log_mass=cache.bias)  # (B, H, horizon or 1, S)
        future *= groups.shape[2] / (self.horizon * rows)
        self._note_for_merge(cache, step, queries, future)
        if self.keep == "newest":
            return newest(cache)
        scale = self.shape.frame_tokens if self.row_reduction == "sum" else 1
        return self.lam * scale * future.mean(2) + (1 - self.lam) * history.mean_per_query(cache)

    def _note_for_merge(self, cache: LayerCache, step: Pass, queries: Tensor, future: Tensor) -> None:
        """Note what `fold` needs of the future queries, which are not held."""
        stats = cache.stats
        if self.merge == "value":
            stats["future"], stats["profile"] = future, self._profiles(cache, queries)
        elif self.merge == "affine":
            spread = affine.Spread.of(queries, cache.heads, ridge=self.ridge)
            stats["future"], stats["mean"], stats["factor"] = future.squeeze(2), spread.mean, spread.factor
            stats["times"] = affine.times_in_force(cache, step, self.protocol.position, sink=self.budget.sink)

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
        """Merge what goes into what stays."""
        if self.merge == "value":
            self._fold_values(caches, kept)
        elif self.merge == "affine":
            for cache, own in zip(caches, kept.split(caches[0].batch), strict=True):
                self._fold_affine(cache, own)

    def _fold_affine(self, cache: LayerCache, kept: Tensor) -> None:
        """Merge in the metric of the future queries; the past attention of what goes is added too."""
        future, mean, factor, times = (
            x for x in map(cache.stats.pop, ("future", "mean", "factor", "times")) if isinstance(x, Tensor)
        )
        affine.merge(
            cache, kept, affine.Spread(mean, factor), future,
            times=times, key=self.key, bias=self.bias, only_cheaper=self.merge_where == "cheaper",
        )  # fmt: skip

    def _fold_values(self, caches: Sequence[LayerCache], kept: Tensor) -> None:
        """Merge Eq 3: add the values of redundant dropped slots to their most similar survivor; keys stay."""
        parts = [[cache.stats.pop(name) for cache in caches] for name in ("future", "profile")]
        future, profile = (torch.cat([x for x in part if isinstance(x, Tensor)]) for part in parts)
        dropped = rest(kept, caches[0].size)  # (LB, H, E)
        cosine, nearest = merging.nearest(
            merging.take_rows(profile, dropped), merging.take_rows(profile, kept)
        )
        is_merged = cosine >= self.tau
        target = torch.where(is_merged, kept.gather(2, nearest), dropped)  # the others go with themselves
        dropped, target, is_merged = merging.gathered(dropped, target, is_merged)
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
