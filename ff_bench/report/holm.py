"""Correction of p-values for the number of comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence


def holm(values: Sequence[float]) -> list[float]:
    """Adjust the p-values of one family, so that below 0.05 the family errs in at most 1 of 20 cases.

    Source: Holm 1979, Scand. J. Stat. 6:65.

    Args:
        values: p-values; NaN for comparisons that could not be made, which do not count.

    Returns:
        Adjusted p-values in the same order, NaN where they were.
    """
    order = sorted((value, place) for place, value in enumerate(values) if not math.isnan(value))
    adjusted, largest = [math.nan] * len(values), 0.0
    for rank, (value, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * value))
        adjusted[place] = largest
    return adjusted
