"""Whether two checkpoints rank policies alike: Kendall's tau, with an interval over prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ff_bench.report.statistics import LEVEL, RESAMPLES, Pair, blocks, resampled_means


@dataclass(frozen=True)
class Agreement:
    """How far two rankings of the same policies agree.

    Attributes:
        tau: Kendall's tau-b in [-1, 1] of the policies' means; NaN where one side ties them all.
        low: Lower end of the interval; None with a single pair, NaN as above.
        high: Upper end.
        policies: Number of policies.
        pairs: Number of (prompt, seed) pairs that every policy has in both tables.
        prompts: Number of prompts among them.
    """

    tau: float
    low: float | None
    high: float | None
    policies: int
    pairs: int
    prompts: int


def kendall(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Kendall's tau-b of each row: concordant minus discordant pairs, over those that are no ties.

    Source: Kendall 1945, Biometrika 33:239 (the treatment of ties).

    Args:
        first: (..., policies) numbers.
        second: The same shape.

    Returns:
        (...,) in [-1, 1]; NaN where all numbers of a side are equal.
    """
    places = np.triu_indices(first.shape[-1], 1)
    signs = [np.sign(side[..., places[0]] - side[..., places[1]]) for side in (first, second)]
    untied = np.sqrt((signs[0] ** 2).sum(-1) * (signs[1] ** 2).sum(-1))
    agreeing = (signs[0] * signs[1]).sum(-1)
    return np.asarray(np.divide(agreeing, untied, out=np.full(untied.shape, np.nan), where=untied > 0))


def agreement(
    first: Mapping[str, Mapping[Pair, float]],
    second: Mapping[str, Mapping[Pair, float]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Agreement | None:
    """Compare the rankings of the policies that both tables have, over the pairs that all of them have.

    Both tables are resampled alike, prompt by prompt, then seeds within each prompt: the interval covers new
    prompts and new noise, not new checkpoints, of which there are two. A resample adds its own noise to the
    order, so that the interval's middle lies below tau where policies are close.

    Args:
        first: Metric of each policy by (prompt, seed) on one checkpoint.
        second: The same on the other.
        seed: Seed of the resampling.
        resamples: Number of resampled rankings.
        level: Coverage of the interval, in (0, 1).

    Returns:
        None with fewer than two policies or no pair in common.
    """
    names = sorted(first.keys() & second.keys())
    columns = [side[name] for side in (first, second) for name in names]
    if len(names) < 2:
        return None
    common = set(columns[0]).intersection(*columns[1:])
    block = next(blocks([{pair: column[pair] for pair in common} for column in columns]), None)
    if block is None:
        return None
    tau = float(_halves(block.prompt_means.mean(0)))
    low, high = None, None
    if len(block.values) > 1:
        drawn = _halves(resampled_means(block, seed=seed, resamples=resamples))
        low, high = _ends(drawn[~np.isnan(drawn)], level)
    return Agreement(tau, low, high, len(names), len(block.values), len(block.counts))


def _halves(means: np.ndarray) -> np.ndarray:
    """Compare the first half of the last axis with the second."""
    middle = means.shape[-1] // 2
    return kendall(means[..., :middle], means[..., middle:])


def _ends(drawn: np.ndarray, level: float) -> tuple[float, float]:
    if not len(drawn):
        return float("nan"), float("nan")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
