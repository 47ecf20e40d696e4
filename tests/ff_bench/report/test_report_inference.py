"""p-values, equivalence, effect size, power and Holm: agreement with scipy, rates on simulated data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ff_bench.report.contrast import BETTER, EQUIVALENT, OPEN, WORSE, Contrast, contrasts, judged
from ff_bench.report.effect import standardised, win_rate
from ff_bench.report.equivalence import equivalence, noninferiority
from ff_bench.report.holm import holm
from ff_bench.report.permutation import sign_flips
from ff_bench.report.power import LEAST, prompts_needed, smallest_difference
from ff_bench.report.statistics import blocks, bootstrap, intervals


def column(generator: np.random.Generator, effect: float, *, prompts: int, seeds: int = 1) -> dict:
    base = generator.normal(effect, 1, prompts)
    noise = generator.normal(0, 0.5, (prompts, seeds))
    return {(f"p{i:03}", s): float(base[i] + noise[i, s]) for i in range(prompts) for s in range(seeds)}


@pytest.mark.parametrize(("prompts", "tolerance"), [(8, 1e-12), (13, 1e-12), (40, 0.02)])
def test_sign_flips_agree_with_scipy(prompts: int, tolerance: float) -> None:
    sample = np.random.default_rng(prompts).normal(0.3, 1, prompts)
    expected = stats.permutation_test(
        (sample, np.zeros(prompts)), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=10_000, rng=np.random.default_rng(0),
    )  # fmt: skip
    assert sign_flips(sample[:, None])[0] == pytest.approx(expected.pvalue, abs=tolerance)


def test_sign_flips_err_at_their_nominal_rate() -> None:
    found = sign_flips(np.random.default_rng(5).normal(0, 1, (24, 2000)))
    assert np.mean(found < 0.05) == pytest.approx(0.05, abs=0.015)


def test_too_few_prompts_are_never_significant() -> None:
    assert sign_flips(np.full((LEAST - 1, 1), 3.0))[0] == pytest.approx(0.0625)
    assert sign_flips(np.full((LEAST, 1), 3.0))[0] < 0.05
    assert math.isnan(sign_flips(np.ones((1, 1)))[0])
    assert sign_flips(np.zeros((9, 1)))[0] == 1


def test_a_p_value_goes_with_its_interval() -> None:
    generator = np.random.default_rng(6)
    columns = [column(generator, effect, prompts=48, seeds=2) for effect in np.linspace(0, 0.8, 60)]
    made = contrasts(columns, [0.5] * 60, [1] * 60)
    agreed = 0
    for one, interval in zip(made, intervals(columns, resamples=4000), strict=True):
        assert one is not None and interval is not None
        assert interval.low is not None and interval.high is not None
        agreed += (one.p < 0.05) == (not interval.low <= 0 <= interval.high)
    assert agreed >= 55  # the interval also resamples seeds and is a little wider


def test_many_columns_are_worked_on_at_once_as_one_by_one() -> None:
    generator = np.random.default_rng(7)
    columns = [column(generator, 0.1, prompts=12, seeds=2) for _ in range(5)] + [{}, {("a", 0): 1.0}]
    for together, alone in zip(intervals(columns), [bootstrap(one) for one in columns], strict=True):
        assert (together is None) == (alone is None)
        if together is not None and alone is not None and together.low is not None:
            assert together.low == pytest.approx(alone.low, abs=1e-12)
            assert together.high == pytest.approx(alone.high, abs=1e-12)


def test_bootstrap_over_seeds_and_prompts_agrees_with_a_plain_loop() -> None:
    values = column(np.random.default_rng(8), 0.0, prompts=6, seeds=3) | {("p000", 9): 2.0}
    groups = [[v for (name, _), v in values.items() if name == f"p{i:03}"] for i in range(6)]
    generator, means = np.random.default_rng(9), []
    for _ in range(4000):
        drawn = (groups[i] for i in generator.integers(6, size=6))
        means.append(np.mean([generator.choice(group, len(group)).mean() for group in drawn]))
    found = bootstrap(values)
    assert found is not None and found.low is not None and found.high is not None
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.06)


def test_equivalence_and_noninferiority_are_one_sided_t_tests() -> None:
    sample = np.random.default_rng(10).normal(0.05, 0.3, 20)
    above = stats.ttest_1samp(sample, -0.2, alternative="greater").pvalue
    below = stats.ttest_1samp(sample, 0.2, alternative="less").pvalue
    margins, means = np.array([0.2]), sample[:, None]
    assert equivalence(means, margins)[0] == pytest.approx(max(above, below))
    assert noninferiority(means, margins, np.array([1]))[0] == pytest.approx(above)
    assert noninferiority(means, margins, np.array([-1]))[0] == pytest.approx(below)
    assert math.isnan(noninferiority(means, margins, np.array([0]))[0])
    assert equivalence(np.zeros((5, 1)), margins)[0] == 0
    assert equivalence(np.ones((5, 1)), margins)[0] == 1


def test_equivalence_is_claimed_wrongly_in_one_of_twenty_cases() -> None:
    means = np.random.default_rng(11).normal(0.5, 1, (40, 2000))  # at the margin
    assert np.mean(equivalence(means, np.full(2000, 0.5)) < 0.05) == pytest.approx(0.05, abs=0.015)


def test_effect_size_is_corrected_for_few_prompts() -> None:
    means = np.random.default_rng(12).normal(0.8, 1, (8, 20_000))
    assert standardised(means).mean() == pytest.approx(0.8, abs=0.02)
    plain = means.mean(0) / means.std(0, ddof=1)
    assert plain.mean() > 0.85
    assert math.isnan(standardised(np.ones((4, 1)))[0])


def test_win_rate_counts_ties_half_and_prompts_alike() -> None:
    gaps = np.array([[1.0], [-1.0], [0.0], [2.0]])  # a prompt of three seeds, then one of one
    assert win_rate(gaps, (3, 1), np.array([1]))[0] == pytest.approx((0.5 + 1) / 2)
    assert win_rate(gaps, (3, 1), np.array([-1]))[0] == pytest.approx((0.5 + 0) / 2)


def power_of(prompts: int, effect: float) -> float:
    """Power of a two-sided paired t test at 0.05, as in scipy's and statsmodels' formula."""
    limit, shift = stats.t.ppf(0.975, prompts - 1), effect * math.sqrt(prompts)
    return float(stats.nct.sf(limit, prompts - 1, shift) + stats.nct.cdf(-limit, prompts - 1, shift))


@pytest.mark.parametrize("effect", [0.2, 0.35, 0.5, 0.8])
def test_prompts_needed_are_the_fewest_with_enough_power(effect: float) -> None:
    found = prompts_needed(1.0, effect)
    assert found is not None
    assert power_of(found - 1, effect) < 0.8 <= power_of(found, effect)
    smallest = smallest_difference(1.0, found)
    assert smallest is not None
    assert power_of(found, smallest) == pytest.approx(0.8, abs=1e-6)
    assert smallest <= effect


def test_known_numbers_of_prompts() -> None:
    assert prompts_needed(1.0, 0.5) == 34  # the textbook number of a paired t test, d = 0.5
    assert prompts_needed(2.0, 1.0) == 34
    assert prompts_needed(0.0, 0.1) == LEAST
    assert prompts_needed(1.0, 0.0) is None
    assert prompts_needed(1.0, 1e-6) is None
    assert smallest_difference(1.0, LEAST - 1) is None


def test_needed_prompts_find_the_difference_in_four_of_five_cases() -> None:
    count = prompts_needed(1.0, 0.5)
    assert count is not None
    found = sign_flips(np.random.default_rng(13).normal(0.5, 1, (count, 1000)))
    assert np.mean(found < 0.05) == pytest.approx(0.8, abs=0.04)


def test_holm_by_hand() -> None:
    # 0.01 * 4, 0.02 * 3, 0.04 * 2, and 0.04 * 1, which may not fall below the one before.
    assert holm([0.04, 0.01, 0.045, 0.02]) == pytest.approx([0.08, 0.04, 0.08, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    adjusted = holm([0.01, math.nan, 0.02])
    assert adjusted[0] == pytest.approx(0.02)
    assert math.isnan(adjusted[1])


def judge(effect: float, spread: float, *, direction: int = 1, margin: float = 0.5) -> Contrast:
    values = {(f"p{i:02}", 0): effect + spread * (-1) ** i for i in range(12)}
    (made,) = contrasts([values], [margin], [direction])
    assert made is not None
    return judged([made])[0]


def test_verdicts() -> None:
    assert judge(2.0, 0.5).verdict == BETTER
    assert judge(2.0, 0.5, direction=-1).verdict == WORSE
    assert judge(2.0, 0.5, direction=0).verdict == "higher"
    assert judge(0.0, 0.1).verdict == EQUIVALENT
    assert judge(0.2, 0.1).verdict == EQUIVALENT  # surely above zero, surely within the margin
    assert judge(0.2, 3.0).verdict == OPEN
    assert judge(0.2, 0.1, margin=math.nan).verdict == BETTER


def test_blocks_keep_columns_with_their_places() -> None:
    columns = [{("a", 0): 1.0, ("b", 0): 2.0}, {}, {("b", 0): 4.0, ("a", 0): 3.0}, {("a", 0): 5.0}]
    found = list(blocks(columns))
    assert [block.places for block in found] == [(0, 2), (3,)]
    np.testing.assert_array_equal(found[0].values, [[1, 3], [2, 4]])
