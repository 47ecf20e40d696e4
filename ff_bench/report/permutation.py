"""A paired p-value: were the differences of the prompts as likely to have the other sign?"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

EXACT_PROMPTS = 13
"""Up to this number of prompts every choice of signs is gone through: 8192 of them."""
DRAWS = 10_000
_SEED = 0


def sign_flips(means: np.ndarray) -> np.ndarray:
    """Return two-sided p-values of a mean difference of zero, by flipping the signs of prompts.

    A prompt is flipped as a whole, whatever its number of seeds: like the bootstrap, the test counts
    prompts. Exact up to `EXACT_PROMPTS` prompts, else with `DRAWS` choices of a fixed seed, the observed one
    counted among them. With n prompts no p-value is below 2 / 2^n, so that fewer than 6 never reach 0.05.

    Args:
        means: (prompts, columns), the mean difference of each prompt.

    Returns:
        (columns,) in (0, 1]; NaN with fewer than two prompts.
    """
    prompts, columns = means.shape
    if prompts < 2:
        return np.full(columns, np.nan)
    observed = np.abs(means.sum(0))
    tolerance = 1e-12 * np.abs(means).sum(0)  # equal sums in another order of addition
    extreme = (np.abs(_signs(prompts) @ means) >= observed - tolerance).sum(0)
    if prompts <= EXACT_PROMPTS:
        return np.asarray(extreme / 2**prompts)
    return np.asarray((extreme + 1) / (DRAWS + 1))


@lru_cache(maxsize=8)
def _signs(prompts: int) -> np.ndarray:
    """Return choices of signs, (choices, prompts)."""
    if prompts <= EXACT_PROMPTS:
        bits = np.arange(2**prompts)[:, None] >> np.arange(prompts) & 1
    else:
        bits = np.random.default_rng((_SEED, prompts)).integers(2, size=(DRAWS, prompts))
    return np.asarray(2.0 * bits - 1)
