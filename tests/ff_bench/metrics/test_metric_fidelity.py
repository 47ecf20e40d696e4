"""Fidelity: SSIM against an independent one, streaming, the training window, what is missing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from ff_bench.errors import Unavailable
from ff_bench.footage import Streamed
from ff_bench.metrics import fidelity
from ff_bench.metrics.base import PSNR_CAP
from ff_bench.metrics.fidelity import frame_psnr, ssim
from tests.ff_bench.metrics.tiny import random_frames, values_of, video_of, whole_values

TEN_LEVELS = 20 * np.log10(25.5)


class Distance:
    """Takes the place of the network: mean absolute difference, in [0, 1]."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def distance(self, frames: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        assert frames.shape[1] == 3
        return ((frames.float() - others.float()).abs() / 255).mean((1, 2, 3))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "Lpips", Distance)


def shifted(frames: np.ndarray) -> np.ndarray:
    return np.where(frames < 128, frames + 10, frames - 10).astype(np.uint8)


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
    full = video_of(frames, name="full", video_id="b")
    found = whole_values("fidelity", video_of(shifted(frames)), full)
    assert found["fidelity.psnr"].value == pytest.approx(TEN_LEVELS)
    assert found["fidelity.lpips"].value == pytest.approx(10 / 255)
    same = whole_values("fidelity", video_of(frames), full)
    assert same["fidelity.psnr"].value == PSNR_CAP
    mixed = np.concatenate([frames[:48], shifted(frames[48:])])
    after = whole_values("fidelity", video_of(mixed, prefix_frames=48), full)
    assert after["fidelity.psnr"].value == pytest.approx(TEN_LEVELS)
    assert whole_values("fidelity", full, full)["fidelity.psnr"].status == "undefined"
    assert "another size" in whole_values("fidelity", video_of(frames[:50]), full)["fidelity.ssim"].reason


def test_the_headline_ends_with_the_training_window() -> None:
    frames = random_frames(240)
    mixed = np.concatenate([frames[:120], shifted(frames[120:])])
    full = video_of(frames, name="full", video_id="b")
    values = values_of("fidelity", video_of(mixed, window_frames=120), full)
    named = {(value.name, value.clip): value.value for value in values}
    assert named["fidelity.psnr", -1] == PSNR_CAP
    assert named["fidelity.psnr_all", -1] == pytest.approx((PSNR_CAP + TEN_LEVELS) / 2)
    assert named["fidelity.psnr", 2] == pytest.approx(TEN_LEVELS)
    everywhere = whole_values("fidelity", video_of(mixed), full)
    assert everywhere["fidelity.psnr"].value == everywhere["fidelity.psnr_all"].value


def test_a_prefix_as_long_as_the_window_leaves_the_curve_alone() -> None:
    frames = random_frames(96)
    full = video_of(frames, name="full", video_id="b")
    found = whole_values("fidelity", video_of(frames, prefix_frames=48, window_frames=48), full)
    assert "training window of 3.0 s" in found["fidelity.ssim"].reason
    assert found["fidelity.ssim_all"].value == pytest.approx(1)
    none = whole_values("fidelity", video_of(frames, prefix_frames=96, window_frames=48), full)
    assert none["fidelity.ssim"].reason == none["fidelity.ssim_all"].reason == "no frames after the prefix"


def test_videos_are_read_in_lockstep_and_once() -> None:
    frames, others = random_frames(100), random_frames(100, seed=1)
    opened = []

    def streamed(shown: np.ndarray, size: int) -> Streamed:
        def source() -> Iterator[np.ndarray]:
            opened.append(size)
            yield from (shown[start : start + size] for start in range(0, len(shown), size))

        return Streamed(len(shown), shown.shape[1:3], source)

    video, full = video_of(frames), video_of(others, name="full", video_id="b")
    held = values_of("fidelity", video, full)
    video, full = (
        video_of(frames, footage=streamed(frames, 7)),
        video_of(others, name="full", video_id="b", footage=streamed(others, 13)),
    )
    assert values_of("fidelity", video, full) == held
    assert sorted(opened) == [7, 13]


def test_without_weights_the_others_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(device: torch.device) -> None:
        raise Unavailable("weights 'lpips_alexnet' are not here")

    monkeypatch.setattr(fidelity, "Lpips", absent)
    frames = random_frames(96)
    values = values_of("fidelity", video_of(frames), video_of(frames, name="full", video_id="b"))
    lpips = [value for value in values if "lpips" in value.name]
    assert [(value.name, value.status) for value in lpips] == [
        ("fidelity.lpips", "unavailable"),
        ("fidelity.lpips_all", "unavailable"),
    ]
    assert "lpips_alexnet" in lpips[0].reason
    assert {value.status for value in values if value not in lpips} == {"ok"}


def test_frames_below_the_window_of_ssim_are_too_small() -> None:
    frames = random_frames(40, side=8)
    found = whole_values("fidelity", video_of(frames), video_of(frames, name="full", video_id="b"))
    assert found["fidelity.ssim"].status == "unavailable"
    assert found["fidelity.psnr"].value == PSNR_CAP


def test_large_frames_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, others = random_frames(5), random_frames(5, seed=1)
    at_once = frame_psnr(frames, others), ssim(frames, others)
    monkeypatch.setattr("ff_bench.metrics.fidelity._BLOCK_PIXELS", 2 * 24 * 24)
    np.testing.assert_array_equal(frame_psnr(frames, others), at_once[0])
    np.testing.assert_allclose(ssim(frames, others), at_once[1], atol=1e-6)
