"""How large a difference is: in spreads of the paired differences, and as a share of wins."""

from __future__ import annotations

import numpy as np


def standardised(means: np.ndarray) -> np.ndarray:
    """Return the mean difference over its standard deviation between prompts, corrected for few prompts.

    Source: Hedges' correction 1 - 3 / (4 (n - 1) - 1), Hedges 1981, J. Educ. Stat. 6:107, eq. 6e.

    Args:
        means: (prompts, columns), the mean difference of each prompt.

    Returns:
        (columns,); NaN with fewer than two prompts and where nothing varies.
    """
    prompts, columns = means.shape
    if prompts < 2:
        return np.full(columns, np.nan)
    spread = means.std(0, ddof=1)
    is_varied = spread > 1e-12 * np.abs(means).max(0)
    found = np.divide(means.mean(0), spread, out=np.full(columns, np.nan), where=is_varied)
    return np.asarray(found * (1 - 3 / (4 * (prompts - 1) - 1)))


def win_rate(differences: np.ndarray, counts: tuple[int, ...], directions: np.ndarray) -> np.ndarray:
    """Return the share of pairs in which the policy is better, ties half, every prompt with equal weight.

    Args:
        differences: (pairs, columns), policy minus baseline, the seeds of a prompt together.
        counts: Seeds of each prompt.
        directions: (columns,), -1 where lower is better; where neither is, the share that is higher.

    Returns:
        (columns,), in [0, 1].
    """
    signs = np.where(directions < 0, -1, 1)
    wins = (np.sign(differences * signs) + 1) / 2
    sizes = np.array(counts)
    weights = np.repeat(1 / (sizes * len(sizes)), sizes)
    return np.asarray(weights @ wins)
