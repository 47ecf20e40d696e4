"""World metrics: analytic values on true frames with known changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ff_bench.footage import Held
from ff_bench.metrics import Video, load
from ff_bench.metrics.base import PSNR_CAP, WHOLE, Value, scored, scored_from
from ff_bench.metrics.geometry import MARGIN, build, geometry_of
from ff_bench.models.mini import world
from ff_bench.models.mini.prompt import RING, MiniPrompt
from tests.ff_bench.metrics.tiny import with_frames

ORBIT = "orbit palette=3 speed=4 sprite=disc hue=teal path=7"
FRAMES = 384


def true_video(text: str = ORBIT, *, seed: int = 1, frames: int = FRAMES, prefix: str = "first_lap") -> Video:
    """Return the truth, squeezed so that noise is not clipped."""
    prompt = MiniPrompt.parse(text)
    shown = (world.truth(prompt, seed, frames)[0].numpy() * 0.6 + 50).round().astype(np.uint8)
    manifest = {"identity": {"policy": {"name": "h2o"}, "protocol": {"prefix": prefix}}}
    start = prompt.prefix_frames() * 4
    return Video("a", prompt.text, seed, 16, 12, start, Held(shown), [], manifest)


def as_full(video: Video) -> Video:
    return replace(video, id="full", prefix_frames=0, manifest={"identity": {"policy": {"name": "full"}}})


def noisy(video: Video, sigma: float, where: np.ndarray) -> Video:
    noise = np.random.default_rng(0).normal(0, sigma, video.frames.shape) * where[:, None, None, None]
    return with_frames(video, np.clip(video.frames + noise, 0, 255).round().astype(np.uint8))


def scores(video: Video, reference: Video | None = None) -> dict[str, Value]:
    values = list(load("world").compute(video, reference))
    assert {value.name for value in values} == set(load("world").measures)
    return {value.name.partition(".")[2]: value for value in values if value.clip == WHOLE}


def number(value: Value) -> float:
    assert value.value is not None, value.reason
    return value.value


def test_exact_return_reaches_the_cap() -> None:
    found = scores(true_video())
    assert number(found["revisit_psnr"]) == PSNR_CAP
    assert number(found["revisit_psnr_last"]) == PSNR_CAP
    assert number(found["anchor_psnr"]) == PSNR_CAP
    assert number(found["scene_consistency"]) == pytest.approx(1, abs=1e-4)
    assert number(found["chance_psnr"]) < 25
    assert found["memory"].status == "undefined"
    assert "full-cache" in found["memory"].reason
    assert found["revisit_psnr_changed"].status == "undefined"


def test_known_noise_gives_known_psnr() -> None:
    video = true_video()
    found = scores(noisy(video, 8.0, scored(video)))
    expected = 10 * np.log10(255**2 / (64 + 1 / 12))
    assert number(found["revisit_psnr"]) == pytest.approx(expected, abs=0.05)


def test_memory_is_one_for_the_full_cache_and_about_zero_for_another_world() -> None:
    video = noisy(true_video(), 2.0, np.ones(FRAMES))
    full = as_full(video)
    assert number(scores(full)["memory"]) == pytest.approx(1)
    assert number(scores(video, full)["memory"]) == pytest.approx(1)
    lost = video.frames.copy()
    start = video.prefix_frames
    lost[start:] = true_video(seed=9).frames[start:]
    forgotten = number(scores(with_frames(video, lost), full)["memory"])
    assert abs(forgotten) < 0.25
    half = np.concatenate([video.frames[: (start + FRAMES) // 2], lost[(start + FRAMES) // 2 :]])
    assert forgotten < number(scores(with_frames(video, half), full)["memory"]) < 1


def test_memory_has_a_reason_when_the_full_cache_remembers_nothing() -> None:
    video = true_video()
    blank = np.random.default_rng(0).integers(0, 255, video.frames.shape, dtype=np.uint8)
    value = scores(video, as_full(with_frames(video, blank)))["memory"]
    assert value.status == "undefined"
    assert "above chance" in value.reason


def test_the_sprite_does_not_count_as_background() -> None:
    video = true_video()
    geometry = geometry_of(video)
    painted = video.frames.copy()
    painted[~geometry.background] = 255
    assert number(scores(with_frames(video, painted))["revisit_psnr"]) == PSNR_CAP


def test_full_cache_and_policies_are_scored_over_the_same_frames() -> None:
    video = true_video("pendulum speed=4 path=3")
    assert video.prefix_frames > 0
    assert scored_from(as_full(video)) == scored_from(video)


def test_cut_counts_only_what_comes_after_the_last_cut() -> None:
    video = true_video("cut speed=4 path=1", frames=640)
    geometry = geometry_of(video)
    last = geometry.version.max()
    before = (geometry.version < last).all(1)
    found = scores(noisy(video, 20.0, before))
    assert number(found["revisit_psnr_after_cut"]) == PSNR_CAP
    assert number(found["revisit_psnr"]) < 40


def test_change_counts_repainted_places_apart() -> None:
    video = true_video("change speed=4 path=5", frames=640)
    geometry = geometry_of(video)
    frames = video.frames.copy()
    old = (geometry.version == 0)[:, None, :] & geometry.revisit & scored(video)[:, None, None]
    frames[old] = 255 - frames[old]
    found = scores(with_frames(video, frames))
    assert number(found["revisit_psnr_changed"]) == pytest.approx(PSNR_CAP, abs=0.1)
    assert number(found["revisit_psnr"]) < PSNR_CAP


def test_sprite_drift_is_the_distance_of_its_colour() -> None:
    video = true_video(frames=640)
    geometry = geometry_of(video)
    frames = video.frames.astype(int)
    late = geometry.interior & (np.arange(640) >= 320)[:, None, None]
    shifted = frames.copy()
    shifted[late] += np.array([20, 0, -20])
    kept = scores(video)
    moved = scores(with_frames(video, shifted.clip(0, 255).astype(np.uint8)))
    expected = np.hypot(20, 20) / 255
    assert number(moved["sprite_drift"]) == pytest.approx(
        expected, abs=2 * number(kept["sprite_drift"]) + 0.01
    )
    assert number(kept["sprite_drift"]) < 0.06
    assert number(kept["sprite_psnr"]) > 28
    assert number(moved["sprite_psnr"]) < number(kept["sprite_psnr"]) - 3


def test_occlusion_needs_a_second_visit() -> None:
    seen_once = scores(true_video("occlusion path=2", frames=120))
    assert seen_once["sprite_psnr"].status == "undefined"
    seen_twice = scores(true_video("occlusion path=2", frames=640))
    assert number(seen_twice["sprite_psnr"]) > 25


def test_truth_is_compared_only_after_a_true_prefix() -> None:
    assert scores(true_video())["truth_psnr"].status == "undefined"
    prompt = MiniPrompt.parse(ORBIT)
    exact = world.truth(prompt, 1, FRAMES)[0].numpy()
    video = with_frames(true_video(prefix="truth"), exact)
    assert number(scores(video)["truth_psnr"]) == PSNR_CAP
    off = noisy(with_frames(video, exact), 8.0, scored(video))
    assert 29 < number(scores(off)["truth_psnr"]) < 31.5
    assert number(scores(video)["truth_sprite_psnr"]) == PSNR_CAP


def test_other_models_have_no_geometry() -> None:
    for value in load("world").compute(replace(true_video(), model="wan"), None):
        assert value.status == "undefined"
        assert "wan" in value.reason


def test_reference_is_the_first_clear_view_and_a_revisit_a_later_visit() -> None:
    # A view of 12 columns moves right past 4 columns and comes back: places 0..15.
    starts = [0, 1, 2, 3, 4, 8, 12, 4, 3, 2, 1, 0]
    shown = np.array(starts)[:, None] + np.arange(12)
    background = np.ones((len(starts), 2, 12), bool)
    background[0, 1, 5] = False  # place 5, row 1 is hidden at first
    geometry = build("orbit", shown, background, ~background, centre=np.zeros((len(starts), 2)), radius=3.0)
    assert geometry.reference[0, 0, 5] == 5
    assert geometry.reference[0, 1, 5] == (1 * 2 + 1) * 12 + 4  # one frame later, one column left
    assert geometry.reference[0, 0, MARGIN - 1] == -1  # never far enough inside
    assert not geometry.revisit[:6].any()
    assert geometry.visit[7, 0] == 1
    assert geometry.revisit[7, 0, 0]
    assert not geometry.revisit[7, 0, 8]  # place 12 never left the view


def test_chance_takes_the_farthest_seen_place() -> None:
    shown = (np.arange(0, RING, 8)[:, None] + np.arange(64)) % RING
    background = np.ones((len(shown), 1, 64), bool)
    geometry = build("orbit", shown, background, ~background, centre=np.zeros((len(shown), 2)), radius=3.0)
    elsewhere = geometry.elsewhere[0, 0, 10]
    frame, column = divmod(int(elsewhere), 64)
    assert shown[frame, column] == 10 + RING // 2


def test_anchor_compares_at_the_same_screen_column() -> None:
    """A vignette fixed to the screen: the same at every lap, but not the same as the view at the border.

    Not quite at the cap: what is in view at the start has no view at the border in its first visit.
    """
    video = true_video()
    shade = 1 - 0.3 * (np.abs(np.arange(64) - 31.5) / 31.5) ** 2
    dimmed = (video.frames * shade[None, None, :, None]).round().astype(np.uint8)
    found = scores(with_frames(video, dimmed))
    assert number(found["anchor_psnr"]) > 50
    assert number(found["revisit_psnr"]) < 30


def test_anchor_of_a_forgotten_place_is_near_chance() -> None:
    video = true_video()
    other = true_video(seed=2).frames
    half = len(video.frames) // 2
    found = scores(with_frames(video, np.concatenate([video.frames[:half], other[half:]])))
    assert number(found["anchor_psnr"]) < 35
