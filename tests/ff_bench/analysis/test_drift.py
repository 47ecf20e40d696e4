"""Distances of samples: against scipy, against closed forms, and independent of how they stream in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from ff_bench.analysis.drift import Drift, Sample, bures
from ff_bench.analysis.stationarity import AFTER, BEFORE, W1, Sampling, Watcher, channel_axes
from policies.base import Budget, Protocol, Shape
from policies.context import Context
from policies.rope import Rope

SHAPE = Shape(
    layers=2, query_heads=4, heads=2, head_dim=16, rows=2, columns=3, chunk_frames=3, window_frames=9,
    rope=Rope(dims=(8, 4, 4), bases=(100.0, 10.0, 10.0)),
)  # fmt: skip


def samples(count: int, *, heads: int = 2, rows: int = 12, channels: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(heads, rows, channels, generator=generator) * (1 + place) for place in range(count)]


def test_wasserstein_is_scipys_over_the_standard_deviation_of_all_rows() -> None:
    given = samples(5)
    drift = Drift([1, 3], has_frechet=False)
    for one in given:
        drift.add(one)
    spread = torch.cat(given, 1).numpy().std(1)
    for lag, found in drift.wasserstein().items():
        pairs = list(zip(given[lag:], given[:-lag], strict=True))
        for head in range(2):
            for channel in range(4):
                one = [wasserstein_distance(a[head, :, channel], b[head, :, channel]) for a, b in pairs]
                assert found[head, channel] == pytest.approx(np.mean(one) / spread[head, channel], rel=1e-5)


def test_other_versions_of_the_rows_are_compared_with_them() -> None:
    given = samples(3)
    drift = Drift([1], has_frechet=False)
    for one in given:
        drift.add(one, [one + 2.0, one.flip(1)])  # moved by two, and the same values in another order
    against = drift.against()
    assert torch.allclose(against[0], 2.0 / drift.spread)
    assert against[1].abs().max() == 0


def test_bures_distance_of_commuting_covariances_is_that_of_their_roots() -> None:
    first, second = torch.tensor([4.0, 1.0, 9.0]), torch.tensor([1.0, 16.0, 9.0])
    one, other = (
        Sample(torch.empty(0), torch.empty(0), values.diag()[None], values.sqrt().diag()[None])
        for values in (first, second)
    )
    assert bures(one, other).item() == pytest.approx((first.sqrt() - second.sqrt()).square().sum().item())


def test_a_shift_of_the_mean_is_its_square_in_the_frechet_distance() -> None:
    one = samples(1, rows=64)[0]
    drift = Drift([1], has_frechet=True)
    drift.add(one)
    drift.add(one + 3.0)
    energy = (one.square().sum(-1).mean(1) + (one + 3).square().sum(-1).mean(1)) / 2
    assert torch.allclose(drift.frechet()[1].float(), 4 * 9.0 / energy, rtol=1e-3)


def test_only_the_longest_lag_is_held() -> None:
    drift = Drift([1, 2], has_frechet=False)
    for one in samples(9):
        drift.add(one)
    assert len(drift._recent) == 2


def test_a_channel_that_never_changes_is_apart_from_nothing() -> None:
    drift = Drift([1], has_frechet=True)
    for _ in range(3):
        drift.add(torch.zeros(1, 4, 2))
    assert drift.wasserstein()[1].abs().max() == 0
    assert drift.frechet()[1].abs().max() == 0


@pytest.mark.parametrize("unit", ["chunk", "frame"])
def test_equal_queries_drift_by_their_rotation_in_time_alone(unit: str) -> None:
    watcher = Watcher(Sampling(unit, 18, (1,), has_frechet=False))
    context = Context(
        watcher, SHAPE, Budget(None), Protocol(position="absolute", passes="all"), capacity_tokens=90
    )
    generator = torch.Generator().manual_seed(0)
    frame = torch.randn(1, 4, 6, 16, generator=generator)
    queries = frame.repeat(1, 1, 3, 1)  # every latent frame asks the same
    keys = torch.randn(1, 2, 18, 16, generator=generator)
    for chunk in range(5):
        context.start_chunk(chunk, 3 * chunk)
        for commit in (False, True):
            context.start_pass(torch.full((1, 3), 0.0 if commit else 0.7), commit)
            for layer in range(2):
                context.attend(layer, queries + (0 if commit else 1), keys, keys)
        context.finish_chunk()
    rows = list(watcher.rows(SHAPE.rope))
    by_lag = [row for row in rows if row["versus"] == "lag" and row["quantity"] == W1]
    assert all(row["value"] < 1e-6 for row in by_lag if row["rotation"] == BEFORE)
    still = [row["value"] for row in by_lag if row["rotation"] == AFTER and row["axis"] != "time"]
    moved = [row["value"] for row in by_lag if row["rotation"] == AFTER and row["axis"] == "time"]
    assert max(still) < 1e-6 < 0.05 < np.mean(moved)
    noisy = [row for row in rows if row["versus"] == "pass"]
    assert [row["distance"] for row in noisy] == pytest.approx([0.7] * len(noisy))
    assert {(row["layer"], row["head"]) for row in rows} == {(a, b) for a in range(2) for b in range(4)}


def test_axes_of_channels_follow_the_pairs_of_the_rope() -> None:
    assert channel_axes(Rope((4, 2, 2), (9.0, 9.0, 9.0))) == ["time", "time", "row", "column"] * 2
    paired = channel_axes(Rope((4, 2, 2), (9.0, 9.0, 9.0), layout="interleaved"))
    assert paired == ["time"] * 4 + ["row"] * 2 + ["column"] * 2
