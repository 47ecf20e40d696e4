"""Means and their intervals: a bootstrap over prompts, then over seeds within each prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
_BLOCK = 2_000_000  # weights made at once; bounds the memory

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


@dataclass(frozen=True)
class Block:
    """Several columns of numbers over the same pairs.

    Attributes:
        places: Which of the columns that were given these are.
        values: (pairs, columns); the seeds of a prompt stand together.
        counts: Number of seeds of each prompt.
    """

    places: tuple[int, ...]
    values: np.ndarray
    counts: tuple[int, ...]

    @property
    def prompt_means(self) -> np.ndarray:
        """Mean over the seeds of each prompt, (prompts, columns)."""
        sizes = np.array(self.counts)
        starts = np.cumsum(sizes) - sizes
        means: np.ndarray = np.add.reduceat(self.values, starts, axis=0) / sizes[:, None]
        return means


def blocks(columns: Sequence[Mapping[Pair, float]]) -> Iterator[Block]:
    """Put columns with equal pairs together, so that they are worked on at once; empty ones are left out."""
    found: dict[tuple[Pair, ...], list[int]] = {}
    for place, column in enumerate(columns):
        if column:
            found.setdefault(tuple(sorted(column)), []).append(place)
    for pairs, places in found.items():
        counts: dict[str, int] = {}
        for prompt, _ in pairs:
            counts[prompt] = counts.get(prompt, 0) + 1
        values = np.array([[columns[place][pair] for place in places] for pair in pairs], np.float64)
        yield Block(tuple(places), values, tuple(counts.values()))


def differences(values: Mapping[Pair, float], baseline: Mapping[Pair, float]) -> dict[Pair, float]:
    """Subtract the baseline pair by pair, over the pairs that both have."""
    return {pair: values[pair] - baseline[pair] for pair in sorted(values) if pair in baseline}


def bootstrap(
    values: Mapping[Pair, float], *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval | None:
    """Estimate the mean over prompts and its percentile interval; see `intervals`."""
    return intervals([values], seed=seed, resamples=resamples, level=level)[0]


def intervals(
    columns: Sequence[Mapping[Pair, float]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> list[Interval | None]:
    """Estimate the mean over prompts and its percentile interval of each column.

    Prompts are resampled with replacement, then the seeds within each drawn prompt, so that the interval
    covers new prompts and new noise. Every prompt weighs the same, however many seeds it has. With one
    prompt the interval covers new noise only.

    Args:
        columns: One number per (prompt, seed) each: a metric, or a paired difference.
        seed: Seed of the resampling; columns over the same pairs are resampled alike.
        resamples: Number of bootstrap means.
        level: Coverage of the interval, in (0, 1).

    Returns:
        An interval per column, None where it has no values. Its ends are None with a single value.
    """
    found: list[Interval | None] = [None] * len(columns)
    for block in blocks(columns):
        pairs, prompts = len(block.values), len(block.counts)
        means = block.prompt_means.mean(0)
        ends: list[tuple[float | None, float | None]] = [(None, None)] * len(means)
        if pairs > 1:
            drawn = resampled_means(block, seed=seed, resamples=resamples)
            low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
            ends = list(zip(low.tolist(), high.tolist(), strict=True))
        for place, mean, (low_end, high_end) in zip(block.places, means.tolist(), ends, strict=True):
            found[place] = Interval(mean, low_end, high_end, pairs, prompts)
    return found


def resampled_means(block: Block, *, seed: int, resamples: int) -> np.ndarray:
    """Return the means of `intervals`' resamples, (resamples, columns); all columns are resampled alike."""
    return np.concatenate([part @ block.values for part in _resampled(block, seed, resamples)])


def _resampled(block: Block, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Yield the weights of every resampled mean, (size, pairs), in parts of bounded size."""
    most = len(block.counts) * max(block.counts)
    size = max(1, _BLOCK // most)
    for number, start in enumerate(range(0, resamples, size)):
        yield _weights(block.counts, (seed, number), min(size, resamples - start))


@lru_cache(maxsize=8)
def _weights(counts: tuple[int, ...], seed: tuple[int, int], size: int) -> np.ndarray:
    """Draw how much each pair weighs in each resampled mean, (size, pairs); the weights of a mean sum to 1.

    A mean is linear in the numbers, so that one draw serves every column over the same pairs.
    """
    generator = np.random.default_rng(seed)
    sizes = np.array(counts)
    prompts, most, pairs = len(sizes), int(sizes.max()), int(sizes.sum())
    drawn = generator.integers(prompts, size=(size, prompts))
    seeds_of = sizes[drawn][..., None]  # (size, prompts, 1)
    chosen = (generator.random((size, prompts, most)) * seeds_of).astype(np.int64)
    places = (np.cumsum(sizes) - sizes)[drawn][..., None] + chosen
    places += np.arange(size)[:, None, None] * pairs
    shares = (np.arange(most) < seeds_of) / (prompts * seeds_of)
    return np.bincount(places.ravel(), shares.ravel(), minlength=size * pairs).reshape(size, pairs)
