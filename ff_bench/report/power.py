"""How many prompts it takes to see a difference, and what the present ones can show."""

from __future__ import annotations

import math
from functools import lru_cache

ALPHA = 0.05
POWER = 0.8
LEAST = 6
"""Prompts below which no choice of signs gives a p-value below 0.05."""
MOST = 1_000_000


def smallest_difference(spread: float, prompts: int) -> float | None:
    """Return the smallest true difference that is found with probability `POWER` at level `ALPHA`.

    Args:
        spread: Standard deviation of the paired differences between prompts.
        prompts: How many there are.

    Returns:
        In the unit of the spread; None below `LEAST` prompts, which cannot show any.
    """
    return None if prompts < LEAST else _shift(prompts) * spread / math.sqrt(prompts)


def prompts_needed(spread: float, difference: float) -> int | None:
    """Return the number of prompts that resolves a difference with probability `POWER` at level `ALPHA`.

    Args:
        spread: Standard deviation of the paired differences between prompts.
        difference: True difference, in the same unit; its sign does not matter.

    Returns:
        At least `LEAST`; None where a million do not suffice.
    """
    target = abs(difference) / spread if spread > 0 else math.inf
    if not target > 0:
        return None
    low, high = LEAST - 1, LEAST
    while _shift(high) / math.sqrt(high) > target:
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        is_enough = _shift(middle) / math.sqrt(middle) <= target
        low, high = (low, middle) if is_enough else (middle, high)
    return high


@lru_cache(maxsize=4096)
def _shift(prompts: int) -> float:
    """Return the mean of the t statistic, in its standard errors, at which a paired t test has `POWER`."""
    from scipy import special

    freedom = prompts - 1
    limit = float(special.stdtrit(freedom, 1 - ALPHA / 2))
    low, high = 0.0, limit + 10
    for _ in range(60):
        middle = (low + high) / 2
        missed = special.nctdtr(freedom, middle, limit) - special.nctdtr(freedom, middle, -limit)
        low, high = (middle, high) if 1 - missed < POWER else (low, middle)
    return high
