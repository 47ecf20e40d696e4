"""The paired hierarchical bootstrap: coverage on simulated data, agreement with scipy, edge cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ff_bench.report.statistics import bootstrap, differences


def simulated(
    generator: np.random.Generator, *, prompts: int, seeds: int, effect: float
) -> dict[tuple[str, int], float]:
    """Differences with a spread between prompts and one within."""
    base = generator.normal(effect, 1.0, prompts)
    return {
        (f"p{i:03}", s): float(base[i] + generator.normal(0, 0.7))
        for i in range(prompts)
        for s in range(seeds)
    }


def test_intervals_cover_at_their_nominal_rate() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    trials = 300
    for _ in range(trials):
        found = bootstrap(simulated(generator, prompts=24, seeds=3, effect=0.4), resamples=600)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.4 <= found.high
    assert 0.91 <= hits / trials <= 0.985


def test_one_seed_per_prompt_agrees_with_scipy() -> None:
    values = simulated(np.random.default_rng(1), prompts=40, seeds=1, effect=0.2)
    found = bootstrap(values)
    sample = (np.array(list(values.values())),)
    expected = stats.bootstrap(
        sample, np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(2)
    )
    assert found is not None
    assert found.mean == pytest.approx(sample[0].mean())
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.02)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.02)


def test_seeds_are_nested_in_prompts() -> None:
    # Many seeds of few prompts must not look like many independent videos.
    values = simulated(np.random.default_rng(3), prompts=8, seeds=50, effect=0.0)
    nested = bootstrap(values)
    flat = bootstrap({(f"{prompt}-{seed}", 0): value for (prompt, seed), value in values.items()})
    assert nested is not None
    assert flat is not None
    assert nested.half_width is not None
    assert flat.half_width is not None
    assert nested.half_width > 3 * flat.half_width


def test_prompts_weigh_the_same_however_many_seeds() -> None:
    found = bootstrap({("a", 0): 0.0, ("b", 0): 1.0, ("b", 1): 1.0, ("b", 2): 1.0})
    assert found is not None
    assert found.mean == pytest.approx(0.5)
    assert (found.pairs, found.prompts) == (4, 2)


def test_edge_cases() -> None:
    assert bootstrap({}) is None
    single = bootstrap({("a", 0): 3.0})
    assert single is not None
    assert (single.mean, single.low, single.half_width) == (3.0, None, None)
    first, second = (bootstrap({("a", 0): 1.0, ("b", 0): 2.0, ("c", 0): 4.0}) for _ in range(2))
    assert first == second


def test_differences_use_common_pairs_only() -> None:
    found = differences(
        {("a", 0): 3.0, ("a", 1): 5.0, ("b", 0): 1.0}, {("a", 0): 1.0, ("b", 0): 2.0, ("c", 0): 9.0}
    )
    assert found == {("a", 0): 2.0, ("b", 0): -1.0}


def test_pairing_narrows_the_interval() -> None:
    generator = np.random.default_rng(4)
    hard = generator.normal(30, 5, 16)
    first = {(f"p{i}", 0): float(value) for i, value in enumerate(hard)}
    second = {pair: value - 1 + float(generator.normal(0, 0.2)) for pair, value in first.items()}
    own, paired = bootstrap(first), bootstrap(differences(first, second))
    assert own is not None
    assert paired is not None
    assert own.half_width is not None
    assert paired.half_width is not None
    assert paired.half_width < own.half_width / 5
    assert paired.mean == pytest.approx(1, abs=0.2)
