"""Rank correlations against scipy, and joins that match policies by their fields."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, spearmanr

from ff_bench.analysis import asking, prediction, replay_request
from ff_bench.analysis.replay import Entry
from ff_bench.errors import UsageError

WORDS = ["length=18f"]


def entries(*names: str) -> list[Entry]:
    full = asking.full_cache(WORDS)
    return [replay_request.entry(name, "512", WORDS, full) for name in names]


def row(policy: str, value: float, fields: str = "{}", **changes: object) -> dict[str, object]:
    return {
        "model": "mini", "policy": policy, "policy_fields": fields, "protocol": "equal",
        "budget_tokens": 512, "frames": 72, "prompt_id": "a", "seed": 0, "metric": "world.revisit_psnr",
        "clip": -1, "status": "ok", "value": value, **changes,
    }  # fmt: skip


def test_correlations_are_scipys_with_ties() -> None:
    generator = np.random.default_rng(1)
    one, other = generator.integers(0, 5, (6, 9)), generator.integers(0, 5, (6, 9))
    for place in range(6):
        assert prediction.spearman(one, other)[place] == pytest.approx(
            spearmanr(one[place], other[place]).statistic
        )
        assert prediction.kendall(one, other)[place] == pytest.approx(
            kendalltau(one[place], other[place]).statistic
        )


def test_an_error_that_falls_as_quality_rises_predicts_it() -> None:
    joined = pd.DataFrame(
        [
            {"policy": f"p{place}", "budget_tokens": 1, "prompt_id": prompt, "seed": 0,
             "quality": float(place), "error": -place + 0.1, "coverage": -float(place)}
            for place in range(6) for prompt in "abc"
        ]
    )  # fmt: skip
    right, wrong = (prediction.agreement(joined, name) for name in ("error", "coverage"))
    assert right is not None and wrong is not None
    assert (right.spearman, right.kendall, right.policies, right.groups) == (1, 1, 6, 3)
    assert (right.low, right.high) == (1, 1)
    assert (wrong.spearman, wrong.kendall) == (-1, -1)


def test_noise_has_an_interval_around_zero() -> None:
    generator = np.random.default_rng(0)
    joined = pd.DataFrame(
        [
            {"policy": f"p{place}", "budget_tokens": 1, "prompt_id": str(prompt), "seed": 0,
             "quality": generator.normal(), "error": generator.normal()}
            for place in range(8) for prompt in range(4)
        ]
    )  # fmt: skip
    found = prediction.agreement(joined, "error")
    assert found is not None
    assert found.low < 0 < found.high


def test_three_policies_are_too_few() -> None:
    joined = pd.DataFrame(
        [
            {"policy": name, "budget_tokens": 1, "prompt_id": "a", "seed": 0, "quality": 1.0, "error": 2.0}
            for name in "abc"
        ]
    )
    assert prediction.agreement(joined, "error") is None


def test_rows_are_matched_by_fields_protocol_and_budget() -> None:
    rows = pd.DataFrame(
        [
            row("future_forcing", 1.0, '{"merge":"none"}'),
            row("future_forcing", 2.0, '{"merge":"value"}'),
            row("h2o", 3.0),
            row("h2o", 4.0, budget_tokens=1024),
            row("h2o", 5.0, protocol="published"),
            row("h2o", 6.0, clip=0),
            row("h2o", 7.0, status="undefined"),
        ]
    )
    found, notes = prediction.quality(rows, entries("future_forcing:merge=none", "h2o"), "world.revisit_psnr")
    assert dict(zip(found["policy"], found["quality"], strict=True)) == {
        "future_forcing:merge=none": 1.0,
        "h2o": 3.0,
    }
    assert not notes


def test_rows_of_another_length_are_told() -> None:
    rows = pd.DataFrame([row("h2o", 3.0, frames=960)])
    found, notes = prediction.quality(rows, entries("h2o", "random"), "world.revisit_psnr")
    assert list(found["quality"]) == [3.0]
    assert notes == [
        "h2o: replayed over 72 frames, the rows are of 960",
        "random at 512 tokens is not in the rows",
    ]


def test_a_metric_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(UsageError, match=r"metric=world.memory is not in the rows"):
        prediction.quality(pd.DataFrame([row("h2o", 1.0)]), entries("h2o"), "world.memory")
