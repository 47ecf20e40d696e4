"""What hooks of a policy return: described for a sentence, and checked where another thing would pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from policies.base import Policy
    from policies.cache import LayerCache
    from policies.terms import Segment


def described(value: object) -> str:
    """Say what a hook returned: format, shape and place of a tensor, the type of anything else."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    layout = "" if value.layout == torch.strided else f" {str(value.layout).removeprefix('torch.')}"
    return f"{value.dtype}{layout} {tuple(value.shape)} on {value.device.type}"


def checked_scores(policy: Policy, score: object, cache: LayerCache) -> Tensor:
    """Return a score of one layer, (B, H, S) fp32 where the cache is.

    Raises:
        ValueError: If it is anything else.
    """
    expected = (cache.batch, cache.heads, cache.size)
    if (
        isinstance(score, Tensor)
        and (tuple(score.shape), score.dtype, score.layout) == (expected, torch.float32, torch.strided)
        and score.device.type == cache.device.type
    ):
        return score
    raise ValueError(
        f"policy '{policy.name}': score is {described(score)}; allowed: float32 {expected} on "
        f"{cache.device.type}"
    )


def checked_plan(policy: Policy, plan: object, layers: int, heads: int, tokens: int) -> Tensor:
    """Return a plan of whole numbers (layers, heads) on the CPU, in the mean at most ``tokens``.

    Raises:
        ValueError: If it is anything else, or gives a head more than the policy has declared.
    """
    if not (isinstance(plan, Tensor) and tuple(plan.shape) == (layers, heads)) or plan.is_floating_point():
        raise ValueError(
            f"policy '{policy.name}': plan is {described(plan)}; allowed: whole numbers {(layers, heads)}"
        )
    if int(plan.min()) < 0:
        raise ValueError(f"policy '{policy.name}': plan gives a head {int(plan.min())} tokens")
    if int(plan.sum()) > tokens * plan.numel():
        raise ValueError(f"policy '{policy.name}': plan exceeds {tokens} tokens per layer and head")
    widest, most = int(tokens * policy.widest_head), int(plan.max())
    if most > max(widest, tokens) and bool((plan != plan[:, :1]).any()):
        raise ValueError(f"policy '{policy.name}': plan gives a head {most} tokens; allowed: {widest}")
    return plan


def checked_ranks(policy: Policy, ranks: object, cache: LayerCache) -> Tensor | None:
    """Return which size each head takes, (B, H) int64, or None.

    Raises:
        ValueError: If it is anything else.
    """
    if ranks is None:
        return None
    expected = (cache.batch, cache.heads)
    if not isinstance(ranks, Tensor) or (tuple(ranks.shape), ranks.dtype) != (expected, torch.int64):
        raise ValueError(
            f"policy '{policy.name}': ranks are {described(ranks)}; allowed: torch.int64 {expected}"
        )
    # Two heads of the largest size would hold more than the plan; an accelerator is not waited for.
    if ranks.device.type == "cpu" and bool((ranks.sort(-1).values != torch.arange(cache.heads)).any()):
        raise ValueError(f"policy '{policy.name}': ranks are {ranks[0].tolist()}; allowed: each rank once")
    return ranks


def checked_view(policy: Policy, parts: Sequence[Segment], cache: LayerCache) -> Sequence[Segment]:
    """Return the parts of the context that a pass sees, which must be there.

    Raises:
        ValueError: If one is not.
    """
    if not parts:
        raise ValueError(f"policy '{policy.name}': view names no slots; allowed: at least one segment")
    for part in parts:
        if not 0 <= part.start <= part.stop <= cache.size:
            raise ValueError(
                f"policy '{policy.name}': view names slots {part.start} to {part.stop} of layer "
                f"{cache.layer}, which has {cache.size}"
            )
    return parts
