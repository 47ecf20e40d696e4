"""Kinds of heads: a fixed number of heads of each layer keeps little, and the others share what that saves.

Which heads these are is measured in every video on its own; how many is the same for all, so that a plan is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from policies import attention
from policies.base import Pass, Policy
from policies.cache import LayerCache

_RANKS = "ranks"
WIDEST = 2.0
"""Budgets that a head gets at most; what is left of half of the heads fits in."""


def check_share(field: str, share: float) -> None:
    """Raise ValueError unless a share of the heads is 0 to 0.5."""
    if not 0 <= share <= 0.5:
        raise ValueError(f"policy.{field} is {share}; allowed: 0 to 0.5")


def few(policy: Policy, share: float) -> int:
    """Return how many heads of a layer keep little: half of them at most, so that the rest can hold the rest.

    None where the protocol asks for sets of one size.
    """
    heads = policy.shape.heads
    is_one_set = policy.protocol.share == "layer" or policy.unit > 1
    return 0 if is_one_set else min(heads // 2, int(share * heads + 0.5))


def received(cache: LayerCache, step: Pass, stride: int) -> Tensor:
    """Return the attention mass that context and chunk receive in a pass, (B, H, S + N) fp32."""
    return attention.mass(
        step.rotated_queries, cache.staged_keys,
        context=cache.size, stride=stride, log_mass=cache.bias, log_sum=step.log_sum,
    )  # fmt: skip


def note_ranks(cache: LayerCache, cost: Tensor) -> None:
    """Fix the kinds of a layer's heads: those of lowest cost (B, H) come first."""
    cache.stats[_RANKS] = cost.argsort(dim=-1, stable=True).argsort(dim=-1)


def ranks(cache: LayerCache) -> Tensor | None:
    """Return the place of each head by cost, (B, H) int64, or None before it was measured."""
    found = cache.stats.get(_RANKS)
    return found if isinstance(found, Tensor) else None


def is_narrow(cache: LayerCache, count: int) -> Tensor:
    """Tell which heads are among the ``count`` of lowest cost, (B, H, 1); none before it was measured."""
    found = ranks(cache)
    if found is None:
        return torch.zeros(cache.batch, cache.heads, 1, dtype=torch.bool, device=cache.device)
    return (found < count)[..., None]


def plan(
    policy: Policy, caches: Sequence[LayerCache], *, share: float, narrow: int, whole_layers: int = 0
) -> Tensor | None:
    """Return slots per (layer, rank): narrow heads first, the others share the rest of the budget.

    Args:
        policy: Whose budget and protocol count.
        caches: All layers.
        share: Share of a layer's heads that are narrow.
        narrow: Slots of a narrow head; sink and recent at least.
        whole_layers: Layers at the start all of whose heads get the budget.

    Returns:
        (layers, heads) int64 on the CPU, or None (the budget everywhere) until all layers are above their
        budget and their heads are known, and where there are no narrow heads.
    """
    tokens, heads = policy.budget.tokens or 0, policy.shape.heads
    count, narrow = few(policy, share), max(narrow, policy.budget.sink + policy.budget.recent)
    is_early = any(ranks(cache) is None or cache.size <= tokens for cache in caches)
    if is_early or not count or narrow >= tokens:
        return None
    wide = min(int(WIDEST * tokens), (tokens * heads - count * narrow) // (heads - count))
    row = torch.tensor([narrow] * count + [wide] * (heads - count))
    found = row.repeat(len(caches), 1)
    found[:whole_layers] = tokens
    return found
