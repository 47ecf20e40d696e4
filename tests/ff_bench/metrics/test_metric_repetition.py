"""Stillness and loops: synthetic ones are found, noise, pans and drift are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from ff_bench.metrics.drift import LEAST_LOOP, VISIBLE
from ff_bench.metrics.repetition import Loop, distances, find_loop, longest_run
from ff_bench.metrics.thumbnails import Thumbnails
from ff_bench.models.mini import world
from ff_bench.models.mini.prompt import RING, MiniPrompt
from tests.ff_bench.metrics.tiny import random_frames, video_of, whole_values


def colours(frames: np.ndarray) -> np.ndarray:
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    return Thumbnails(torch.device("cpu")).measure(pixels, fps=16.0, prompt="")["colours"].numpy()


def pan(count: int, *, speed: int, blur: float, seed: int) -> np.ndarray:
    """Thumbnails of a view that moves along a panorama which never repeats."""
    generator = np.random.default_rng(seed)
    shown = gaussian_filter(generator.normal(size=(8, 64 + speed * count, 3)), (1, blur, 0))
    shown = (shown - shown.min()) / (shown.max() - shown.min())
    starts = speed * np.arange(count)[:, None] + 8 * np.arange(8)
    return shown[:, starts].transpose(1, 0, 2, 3).reshape(count, -1)


def test_distances_are_means_along_diagonals() -> None:
    features = np.random.default_rng(0).normal(3, 1, (40, 70))
    expected = [np.mean(np.sum((features[lag:] - features[: 40 - lag]) ** 2, axis=1)) for lag in range(40)]
    np.testing.assert_allclose(distances(features), expected, atol=1e-9)


def test_a_loop_is_found_with_its_period_not_a_multiple() -> None:
    frames = np.tile(random_frames(48), (10, 1, 1, 1))
    found = find_loop(colours(frames), least=16, floor=VISIBLE)
    assert found.period == 48
    assert found.strength > 0.8


def test_a_loop_of_half_the_video_counts_half() -> None:
    half = np.concatenate([random_frames(240, seed=1), np.tile(random_frames(48), (5, 1, 1, 1))])
    found = find_loop(colours(half), least=16, floor=VISIBLE)
    assert found.period == 48
    assert LEAST_LOOP < found.strength < 0.6


@pytest.mark.parametrize("sigma", [0.0, 3.0])
def test_a_frozen_video_is_no_loop(sigma: float) -> None:
    still = np.repeat(random_frames(1), 480, 0)
    noise = np.random.default_rng(0).normal(0, sigma, still.shape)
    found = find_loop(colours(np.clip(still + noise, 0, 255).astype(np.uint8)), least=16, floor=VISIBLE)
    assert found.strength < 0.02


def test_noise_is_no_loop() -> None:
    assert find_loop(colours(random_frames(480)), least=16, floor=VISIBLE).strength < 0.05


def test_drift_and_random_walks_are_no_loops() -> None:
    ramp = np.linspace(0, 1, 480)[:, None] * np.ones(192)
    assert find_loop(ramp, least=16, floor=VISIBLE) == Loop(0.0, 0)
    walk = np.random.default_rng(0).normal(size=(480, 24)).cumsum(0)
    assert find_loop(walk, least=16, floor=VISIBLE) == Loop(0.0, 0)


@pytest.mark.parametrize("speed", [1, 3])
@pytest.mark.parametrize("blur", [2.0, 12.0])
def test_a_pan_at_constant_speed_is_no_loop(speed: int, blur: float) -> None:
    views = [pan(640, speed=speed, blur=blur, seed=seed) for seed in range(8)]
    found = [find_loop(view, least=16, floor=VISIBLE).strength for view in views]
    assert max(found) < LEAST_LOOP


def test_an_orbit_is_a_true_loop() -> None:
    """The camera of `orbit` comes round: the period is the lap."""
    prompt = MiniPrompt.parse("orbit palette=3 speed=4 path=7")
    frames = world.truth(prompt, 1, 320)[0].numpy()
    values = whole_values("drift", video_of(frames))
    assert values["drift.loop"].value == pytest.approx(0.92, abs=0.05)
    assert values["drift.loop_seconds"].value == RING / 4 / 16


def test_faint_changes_are_no_loop() -> None:
    """What comes back must have been gone visibly."""
    blink = 128 + np.tile([0, 1], 240)[:, None, None, None] * np.ones((8, 8, 3))
    assert find_loop(colours(blink.astype(np.uint8)), least=16, floor=VISIBLE).strength < 0.1


def test_too_short_for_a_loop() -> None:
    assert find_loop(np.zeros((20, 4)), least=16, floor=VISIBLE) == Loop(0.0, 0)
    assert whole_values("drift", video_of(random_frames(30)))["drift.loop"].status == "undefined"


def test_no_period_of_what_does_not_come_back() -> None:
    found = whole_values("drift", video_of(random_frames(160)))
    assert found["drift.loop"].value is not None
    assert "below 0.3" in found["drift.loop_seconds"].reason


def test_longest_run() -> None:
    assert longest_run(np.array([0, 1, 1, 0, 1, 1, 1, 0, 1], bool)) == 3
    assert longest_run(np.zeros(4, bool)) == 0
    assert longest_run(np.ones(4, bool)) == 4
    assert longest_run(np.zeros(0, bool)) == 0


def test_a_freeze_is_measured() -> None:
    frames = random_frames(160)
    frames[40:73] = frames[40]
    found = whole_values("drift", video_of(frames))
    assert found["drift.frozen"].value == pytest.approx(32 / 159)
    assert found["drift.frozen_seconds"].value == 2.0
    moving = whole_values("drift", video_of(random_frames(40)))
    assert moving["drift.frozen"].value == moving["drift.frozen_seconds"].value == 0
    assert whole_values("drift", video_of(frames[:1]))["drift.frozen"].status == "undefined"


def test_thumbnails_are_mean_colours_of_blocks() -> None:
    frames = random_frames(5)
    expected = frames.reshape(5, 8, 3, 8, 3, 3).mean((2, 4)).transpose(0, 3, 1, 2).reshape(5, -1) / 255
    np.testing.assert_allclose(colours(frames), expected, atol=1e-6)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    later = Thumbnails(torch.device("cpu")).measure(pixels, fps=16.0, prompt="", lead=1)["colours"]
    np.testing.assert_array_equal(later.numpy(), colours(frames)[1:])
