"""Levels, guards, flicker and cost against independent computations; the contract of all families."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from ff_bench import metrics
from ff_bench.metrics import load
from ff_bench.metrics.base import WHOLE, Series, Value, curve, windows
from ff_bench.metrics.levels import LEVELS, brightness, contrast, gradient_energy, motion, saturation
from tests.ff_bench.metrics.tiny import random_frames, values_of, video_of, whole_values


@pytest.mark.parametrize("name", metrics.names())
def test_every_family_says_what_it_yields(name: str) -> None:
    metric = load(name)
    assert metric.name == name
    frames = random_frames(200)
    values = values_of(name, video_of(frames))
    keys = [(value.name, value.clip) for value in values]
    assert len(set(keys)) == len(keys)
    whole = {name for name, clip in keys if clip == WHOLE}
    assert {name for name, _ in keys} == whole <= set(metric.measures)
    if not is_dataclass(metric):  # settings may choose among the measures
        assert whole == set(metric.measures)
    for measure in metric.measures.values():
        assert measure.doc.endswith(".")
        assert measure.label


def test_unknown_family_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="nearest is 'fidelity'"):
        load("fidelty")


def test_value_refuses_nan_and_missing_reasons() -> None:
    with pytest.raises(ValueError, match="not finite"):
        Value("a.b", float("nan"))
    with pytest.raises(ValueError, match="needs a reason"):
        Value("a.b", None, status="undefined")
    with pytest.raises(ValueError, match="does not go with"):
        Value("a.b", 1.0, status="failed", reason="x")


def test_windows_join_a_short_rest() -> None:
    frames = np.zeros((200, 8, 8, 3), np.uint8)
    assert windows(video_of(frames)) == [(0, 80), (80, 160), (160, 200)]
    assert windows(video_of(frames[:180])) == [(0, 80), (80, 180)]
    assert windows(video_of(frames[:30])) == [(0, 30)]


def test_curve_tells_what_it_covers() -> None:
    video = video_of(np.zeros((200, 8, 8, 3), np.uint8))
    valid = np.arange(200) >= 90
    found = list(curve("a.b", video, Series.of(np.arange(200), valid)))
    assert [(value.clip, value.t0, value.t1) for value in found] == [(1, 90 / 16, 10.0), (2, 10.0, 12.5)]
    assert found[0].value == pytest.approx(124.5)


def test_levels_equal_their_definitions() -> None:
    frames = random_frames(5)
    images = frames / 255
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    across = np.abs(np.diff(images, axis=2)).mean((1, 2, 3))
    down = np.abs(np.diff(images, axis=1)).mean((1, 2, 3))
    np.testing.assert_allclose(gradient_energy(pixels), across + down)
    np.testing.assert_allclose(contrast(pixels), images.reshape(5, -1, 3).std(1).mean(-1))
    np.testing.assert_allclose(saturation(pixels), (images.max(-1) - images.min(-1)).mean((1, 2)))
    np.testing.assert_allclose(brightness(pixels), images.mean((1, 2, 3)))
    np.testing.assert_allclose(motion(pixels), np.abs(np.diff(images, axis=0)).mean((1, 2, 3)))
    assert contrast(torch.full((2, 3, 8, 8), 77, dtype=torch.uint8)).tolist() == [0, 0]


def test_exposure_counts_clipped_values() -> None:
    frame = torch.full((1, 3, 4, 4), 128, dtype=torch.uint8)
    frame[0, 0, 0], frame[0, 1, :2] = 5, 250
    assert LEVELS["underexposed"](frame).item() == pytest.approx(4 / 48)
    assert LEVELS["overexposed"](frame).item() == pytest.approx(8 / 48)


def test_flicker_is_vbench_formula() -> None:
    frames = random_frames(20)
    expected = np.mean([(255 - np.abs(b.astype(float) - a).mean()) / 255 for a, b in pairwise(frames)])
    found = whole_values("flicker", video_of(frames))["flicker.temporal_flickering"]
    assert found.value == pytest.approx(expected)
    alone = whole_values("flicker", video_of(frames[:1]))["flicker.temporal_flickering"]
    assert alone.status == "undefined"


def test_bland_flag() -> None:
    frames = random_frames(240)
    grey = frames.copy()
    grey[80:] = (128 + (frames[80:].astype(float) - 128) * 0.5).astype(np.uint8)
    full = video_of(frames, name="full", video_id="b")
    for reference in (full, None):
        assert whole_values("guards", video_of(frames), reference)["guards.bland"].value == 0
        assert whole_values("guards", video_of(grey), reference)["guards.bland"].value == 1
    found = whole_values("guards", video_of(grey), full)
    assert found["guards.contrast_ratio"].value == pytest.approx(0.5, abs=0.03)
    flat = whole_values("guards", video_of(np.zeros_like(frames)), None)
    assert flat["guards.bland"].status == "undefined"


def test_a_faded_full_cache_excuses_nobody() -> None:
    frames = random_frames(240)
    grey = frames.copy()
    grey[80:] = (128 + (frames[80:].astype(float) - 128) * 0.5).astype(np.uint8)
    faded = video_of(grey, name="full", video_id="b")
    assert whole_values("guards", video_of(grey), faded)["guards.bland"].value == 1
    assert whole_values("guards", video_of(frames), faded)["guards.bland"].value == 0


def test_cost_leaves_the_prefix_out() -> None:
    base = {
        "model_seconds": 0.3,
        "policy_seconds": 0.1,
        "decode_seconds": 0.0,
        "context_tokens": 100,
        "kv_bytes": 5,
    }
    trace = [{**base, "prefix": i < 2, "seconds": 9.0 if i < 2 else 0.5 + 0.1 * i} for i in range(6)]
    video = video_of(np.zeros((72, 8, 8, 3), np.uint8), trace=trace, prefix_frames=24)
    found = whole_values("cost", video)
    seconds = [0.7, 0.8, 0.9, 1.0]
    assert found["cost.seconds"].value == pytest.approx(sum(seconds))
    assert found["cost.fps"].value == pytest.approx(48 / sum(seconds))
    assert found["cost.chunk_p95"].value == pytest.approx(np.quantile(seconds, 0.95))
    assert found["cost.policy_share"].value == pytest.approx(0.4 / sum(seconds))
    assert found["cost.prefix_seconds"].value == pytest.approx(1.5)
    assert found["cost.kv_bytes"].value == 5
    assert found["cost.state_bytes"].status == "undefined"
    assert found["cost.peak_bytes"].status == "undefined"


def test_cost_counts_the_frames_that_were_made() -> None:
    """A decoder that makes one picture of the first latent frame makes fewer than whole chunks."""
    trace = [{"prefix": False, "seconds": 0.5} for _ in range(3)]
    video = video_of(np.zeros((33, 8, 8, 3), np.uint8), trace=trace, made_frames=33)
    assert whole_values("cost", video)["cost.fps"].value == pytest.approx(33 / 1.5)
    assert whole_values("cost", replace(video, made_frames=None))["cost.fps"].value == pytest.approx(36 / 1.5)


def test_a_start_of_one_picture_is_no_first_part() -> None:
    frames = random_frames(240)
    whole, started = (whole_values("guards", video_of(frames, prefix_frames=given)) for given in (0, 1))
    for name in ("guards.gradient_ratio", "guards.contrast_ratio", "guards.saturation_ratio"):
        assert started[name].value == whole[name].value is not None
