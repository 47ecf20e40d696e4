"""Levels, guards, flicker, drift, fidelity and cost against independent computations; the contract of all."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ff_bench import metrics
from ff_bench.metrics import Video, load
from ff_bench.metrics.base import PSNR_CAP, WHOLE, Series, Value, curve, windows
from ff_bench.metrics.fidelity import frame_psnr, ssim
from ff_bench.metrics.levels import brightness, contrast, gradient_energy, motion, saturation


def video_of(frames: np.ndarray, *, name: str = "h2o", video_id: str = "a", **fields: Any) -> Video:
    manifest = {"identity": {"policy": {"name": name}}}
    return replace(Video(video_id, "a prompt", 0, 16, 12, 0, frames, [], manifest, "wan"), **fields)


def random_frames(count: int, *, seed: int = 0, side: int = 24) -> np.ndarray:
    generator = np.random.default_rng(seed)
    smooth = gaussian_filter(generator.normal(size=(count, side, side, 3)), (1, 2, 2, 0))
    return np.clip(128 + 300 * smooth, 0, 255).round().astype(np.uint8)


def whole_values(name: str, video: Video, reference: Video | None = None) -> dict[str, Value]:
    return {v.name: v for v in load(name).compute(video, reference) if v.clip == WHOLE}


@pytest.mark.parametrize("name", metrics.names())
def test_every_family_says_what_it_yields(name: str) -> None:
    metric = load(name)
    assert metric.name == name
    frames = random_frames(200)
    values = list(metric.compute(video_of(frames), None))
    assert {value.name for value in values} == set(metric.measures)
    keys = [(value.name, value.clip) for value in values]
    assert len(set(keys)) == len(keys)
    assert {key for key in keys if key[1] == WHOLE} == {(measure, WHOLE) for measure in metric.measures}
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
    across = np.abs(np.diff(images, axis=2)).mean((1, 2, 3))
    down = np.abs(np.diff(images, axis=1)).mean((1, 2, 3))
    np.testing.assert_allclose(gradient_energy(frames), across + down)
    np.testing.assert_allclose(contrast(frames), images.reshape(5, -1, 3).std(1).mean(-1))
    np.testing.assert_allclose(saturation(frames), (images.max(-1) - images.min(-1)).mean((1, 2)))
    np.testing.assert_allclose(brightness(frames), images.mean((1, 2, 3)))
    np.testing.assert_allclose(motion(frames), np.abs(np.diff(images, axis=0)).mean((1, 2, 3)))
    assert contrast(np.full((2, 8, 8, 3), 77, np.uint8)).tolist() == [0, 0]


def test_flicker_is_vbench_formula() -> None:
    frames = random_frames(20)
    expected = np.mean([(255 - np.abs(b.astype(float) - a).mean()) / 255 for a, b in pairwise(frames)])
    found = whole_values("flicker", video_of(frames))["flicker.temporal_flickering"]
    assert found.value == pytest.approx(expected)
    alone = whole_values("flicker", video_of(frames[:1]))["flicker.temporal_flickering"]
    assert alone.status == "undefined"


def test_drift_is_last_minus_first_five_seconds() -> None:
    frames = np.zeros((320, 16, 16, 3), np.uint8)
    frames[160:] = 51
    found = whole_values("drift", video_of(frames))
    assert found["drift.brightness"].value == pytest.approx(0.2)
    assert found["drift.brightness_level"].value == pytest.approx(0.1)
    short = whole_values("drift", video_of(frames[:100]))
    assert short["drift.brightness"].status == "undefined"


def reference_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """SSIM of one frame by scipy in float64."""
    x, y = x / 255.0, y / 255.0

    def smooth(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, (1.5, 1.5, 0), truncate=5 / 1.5)[5:-5, 5:-5]

    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + 1e-4) * (2 * covariance + 9e-4)
    return float((top / ((mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4))).mean())


def test_ssim_agrees_with_an_independent_one() -> None:
    frames, others = random_frames(4), random_frames(4, seed=1)
    mixed = ((frames.astype(float) + others) / 2).astype(np.uint8)
    for pair in ((frames, others), (frames, mixed)):
        expected = [reference_ssim(x, y) for x, y in zip(*pair, strict=True)]
        np.testing.assert_allclose(ssim(*pair), expected, atol=2e-5)
    np.testing.assert_allclose(ssim(frames, frames), 1, atol=1e-6)


def test_fidelity_to_the_full_cache() -> None:
    frames = random_frames(96)
    shifted = np.where(frames < 128, frames + 10, frames - 10).astype(np.uint8)
    full = video_of(frames, name="full", video_id="b")
    found = whole_values("fidelity", video_of(shifted), full)
    assert found["fidelity.psnr"].value == pytest.approx(20 * np.log10(25.5))
    same = whole_values("fidelity", video_of(frames), full)
    assert same["fidelity.psnr"].value == PSNR_CAP
    mixed = np.concatenate([frames[:48], shifted[48:]])
    after = whole_values("fidelity", video_of(mixed, prefix_frames=48), full)
    assert after["fidelity.psnr"].value == pytest.approx(20 * np.log10(25.5))
    assert whole_values("fidelity", full, full)["fidelity.psnr"].status == "undefined"
    assert "another size" in whole_values("fidelity", video_of(frames[:50]), full)["fidelity.ssim"].reason


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


def test_large_frames_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, others = random_frames(5), random_frames(5, seed=1)
    at_once = frame_psnr(frames, others), ssim(frames, others)
    monkeypatch.setattr("ff_bench.metrics.fidelity._BLOCK_PIXELS", 2 * 24 * 24)
    np.testing.assert_array_equal(frame_psnr(frames, others), at_once[0])
    np.testing.assert_allclose(ssim(frames, others), at_once[1], atol=1e-6)
