"""Kendall's tau between two checkpoints' rankings, against scipy and against what must hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ff_bench.report.agreement import agreement, kendall
from ff_bench.report.statistics import Pair

NAMES = [f"p{number}" for number in range(6)]
Table = dict[str, dict[Pair, float]]


def table(qualities: list[float], *, noise: float, seed: int, prompts: int = 12, seeds: int = 2) -> Table:
    """Draw a metric: quality of the policy, difficulty of the prompt, noise of the pair."""
    draws = np.random.default_rng(seed)
    hard = draws.normal(size=prompts)
    return {
        name: {
            (f"prompt{prompt}", one): quality + hard[prompt] + noise * draws.normal()
            for prompt in range(prompts)
            for one in range(seeds)
        }
        for name, quality in zip(NAMES, qualities, strict=True)
    }


@pytest.mark.parametrize("levels", [3, 1000])
def test_tau_is_scipys_with_and_without_ties(levels: int) -> None:
    draws = np.random.default_rng(0)
    first, second = draws.integers(levels, size=(2, 40, 7)).astype(float)
    expected = [stats.kendalltau(a, b, variant="b").statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(kendall(first, second), expected, atol=1e-12)


def test_tau_is_not_defined_where_all_tie() -> None:
    assert math.isnan(float(kendall(np.ones(4), np.arange(4.0))))


def test_the_same_table_agrees_and_its_negative_disagrees() -> None:
    first = table([0, 1, 2, 3, 4, 5], noise=0.1, seed=1)
    turned = {name: {pair: -value for pair, value in column.items()} for name, column in first.items()}
    same, opposite = agreement(first, first), agreement(first, turned)
    assert same is not None
    assert opposite is not None
    assert (same.tau, same.low, same.high) == (1, 1, 1)
    assert (opposite.tau, opposite.low, opposite.high) == (-1, -1, -1)
    assert (same.policies, same.pairs, same.prompts) == (6, 24, 12)


def test_tau_is_that_of_the_means_over_common_policies_and_pairs() -> None:
    first = table([0, 1, 2, 3, 4, 5], noise=2.0, seed=2)
    second = table([0, 2, 1, 3, 5, 4], noise=2.0, seed=3)
    first["only here"] = dict(first["p0"])
    lacking = ("prompt3", 1)
    del second["p2"][lacking]
    found = agreement(first, second)
    assert found is not None
    assert (found.policies, found.pairs, found.prompts) == (6, 23, 12)

    def means(side: Table) -> list[float]:
        by_prompt: dict[str, list[list[float]]] = {}
        for pair in sorted(first["p0"]):
            if pair != lacking:
                by_prompt.setdefault(pair[0], []).append([side[name][pair] for name in NAMES])
        return list(np.mean([np.mean(rows, 0) for rows in by_prompt.values()], 0))

    assert found.tau == pytest.approx(stats.kendalltau(means(first), means(second)).statistic)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.tau <= found.high


def test_the_interval_is_wide_where_policies_are_close() -> None:
    clear = agreement(
        table([0, 1, 2, 3, 4, 5], noise=0.2, seed=4), table([0, 1, 2, 3, 4, 5], noise=0.2, seed=5)
    )
    close = agreement(table([0.0] * 6, noise=1.0, seed=6), table([0.0] * 6, noise=1.0, seed=7))
    assert clear is not None
    assert close is not None
    assert (clear.low, clear.high) == (1, 1)
    assert close.low is not None
    assert close.high is not None
    assert close.high - close.low > 0.5
    assert close.low < 0 < close.high


def test_both_tables_are_resampled_alike() -> None:
    """Two copies of one noisy table agree in every resample; two independent ones would not."""
    noisy = table([0, 0.1, 0.2, 0.3, 0.4, 0.5], noise=3.0, seed=8)
    found = agreement(noisy, {name: dict(column) for name, column in noisy.items()})
    assert found is not None
    assert (found.low, found.high) == (1, 1)


@pytest.mark.parametrize("count", [0, 1])
def test_one_policy_has_no_ranking(count: int) -> None:
    first = table([0, 1, 2, 3, 4, 5], noise=1, seed=9)
    assert agreement(first, dict(list(first.items())[:count])) is None


def test_nothing_in_common_gives_nothing_and_one_pair_no_interval() -> None:
    first = table([0, 1, 2, 3, 4, 5], noise=1, seed=10)
    other = {name: {("another", 0): 1.0} for name in first}
    assert agreement(first, other) is None
    single = {name: {("prompt0", 0): column["prompt0", 0]} for name, column in first.items()}
    found = agreement(first, single)
    assert found is not None
    assert (found.tau, found.low, found.high, found.pairs) == (1, None, None, 1)
