"""Claims about a margin: that two policies are equivalent, or that one is not worse."""

from __future__ import annotations

import numpy as np


def equivalence(means: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """Return p-values of the claim that the mean difference lies within ±margin (two one-sided t tests).

    Args:
        means: (prompts, columns), the mean difference of each prompt.
        margins: (columns,), above 0; NaN where there is none.

    Returns:
        (columns,); small where the difference lies within the margin. NaN with fewer than two prompts.
    """
    above, below = _above(means, -margins), _above(-means, -margins)
    return np.asarray(np.maximum(above, below))


def noninferiority(means: np.ndarray, margins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return p-values of the claim that the policy is less than a margin worse (a one-sided t test).

    Args:
        means: (prompts, columns), the mean difference of each prompt, policy minus baseline.
        margins: (columns,), above 0; NaN where there is none.
        directions: (columns,), 1 where higher is better, -1 where lower is, 0 where neither.

    Returns:
        (columns,); NaN with fewer than two prompts and where no direction is better.
    """
    found = _above(means * directions, -margins)
    return np.where(directions == 0, np.nan, found)


def _above(means: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return p-values of the claim that a mean is above a bound."""
    from scipy import special

    prompts = len(means)
    if prompts < 2:
        return np.full(means.shape[1], np.nan)
    gaps = means.mean(0) - bounds
    errors = means.std(0, ddof=1) / np.sqrt(prompts)
    # Without any spread the claim holds or does not.
    scores = np.divide(gaps, errors, out=np.copysign(np.full(gaps.shape, np.inf), gaps), where=errors > 0)
    return np.where(np.isnan(gaps), np.nan, special.stdtr(prompts - 1, -scores))
