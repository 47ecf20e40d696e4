"""Paired differences and their intervals: a bootstrap over prompts, then over seeds within each prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
_BLOCK = 4_000_000  # numbers drawn at once; bounds the memory

Pair = tuple[str, int]
"""Prompt id and seed."""


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval.

    Attributes:
        mean: Mean over prompts of the mean over each prompt's seeds.
        low: Lower end; None with a single pair.
        high: Upper end; None with a single pair.
        pairs: Number of (prompt, seed) pairs.
        prompts: Number of prompts among them.
    """

    mean: float
    low: float | None
    high: float | None
    pairs: int
    prompts: int

    @property
    def half_width(self) -> float | None:
        """Half the interval's width, or None when there is no interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def differences(values: Mapping[Pair, float], baseline: Mapping[Pair, float]) -> dict[Pair, float]:
    """Subtract the baseline pair by pair, over the pairs that both have."""
    return {pair: values[pair] - baseline[pair] for pair in sorted(values) if pair in baseline}


def bootstrap(
    values: Mapping[Pair, float], *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval | None:
    """Estimate the mean over prompts and its percentile interval.

    Prompts are resampled with replacement, then the seeds within each drawn prompt, so that the interval
    covers new prompts and new noise. Every prompt weighs the same, however many seeds it has. With one
    prompt the interval covers new noise only.

    Args:
        values: One number per (prompt, seed): a metric, or a paired difference.
        seed: Seed of the resampling; equal input gives equal output.
        resamples: Number of bootstrap means.
        level: Coverage of the interval, in (0, 1).

    Returns:
        The interval, or None when there are no values. Its ends are None with a single value.
    """
    if not values:
        return None
    table, counts = _by_prompt(values)
    sums = table.sum(1) / counts
    mean = float(sums.mean())
    if len(values) == 1:
        return Interval(mean, None, None, 1, 1)
    means = _resampled_means(table, counts, np.random.default_rng(seed), resamples)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), len(values), len(table))


def _by_prompt(values: Mapping[Pair, float]) -> tuple[np.ndarray, np.ndarray]:
    """Lay values out as (prompts, most seeds) padded with zeros, with the number of seeds of each prompt."""
    groups: dict[str, list[float]] = {}
    for (prompt, _), value in sorted(values.items()):
        groups.setdefault(prompt, []).append(value)
    counts = np.array([len(group) for group in groups.values()])
    table = np.zeros((len(groups), counts.max()))
    for row, group in zip(table, groups.values(), strict=True):
        row[: len(group)] = group
    return table, counts


def _resampled_means(
    table: np.ndarray, counts: np.ndarray, generator: np.random.Generator, resamples: int
) -> np.ndarray:
    prompts, most = table.shape
    block = max(1, _BLOCK // (prompts * most))
    means = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = generator.integers(prompts, size=(size, prompts))
        seeds_of = counts[drawn][..., None]  # (size, prompts, 1)
        chosen = (generator.random((size, prompts, most)) * seeds_of).astype(np.int64)
        picked = table[drawn[..., None], chosen] * (np.arange(most) < seeds_of)
        means.append((picked.sum(-1) / seeds_of[..., 0]).mean(-1))
    return np.concatenate(means)
