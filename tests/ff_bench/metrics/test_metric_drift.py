"""Drift: changes, contrasts and curves of known series, from levels and from signals of networks."""

from __future__ import annotations

import numpy as np
import pytest

from ff_bench.footage import Streamed
from ff_bench.metrics import Video, clips, timeline
from ff_bench.metrics.curves import CURVES, EXTRAS
from ff_bench.metrics.likeness import GAPS, coherence, unit
from tests.ff_bench.metrics.tiny import random_frames, values_of, video_of, whole_values


def never() -> None:
    raise AssertionError("frames are read once, by the pass")


def lay(video: Video, name: str, view: str = "strict", **per_clip: list[np.ndarray]) -> None:
    """Put a signal on the shelf as a pass would: what each clip gave, joined, with counts."""
    arrays = {label: np.concatenate(parts) for label, parts in per_clip.items()}
    counts = {f"{label}_counts": np.array([len(part) for part in parts]) for label, parts in per_clip.items()}
    video.shelf.put(f"{view}/{name}", {**arrays, **counts}, device="cpu")


def by_clip(video: Video, values: np.ndarray, *, first: int = 0, step: int = 1) -> list[np.ndarray]:
    """Cut one value per frame into what each clip gives."""
    length = clips.clip_frames(video.fps)
    return [values[start + first : start + length : step] for start in clips.starts(len(values), video.fps)]


def test_drift_is_last_minus_first_five_seconds() -> None:
    frames = np.zeros((320, 16, 16, 3), np.uint8)
    frames[160:] = 51
    found = whole_values("drift", video_of(frames))
    assert found["drift.brightness"].value == pytest.approx(0.2)
    assert found["drift.brightness_level"].value == pytest.approx(0.1)
    assert found["drift.brightness_contrast"].value == pytest.approx(0.2)
    assert found["drift.underexposed"].value == -1
    darker = whole_values("drift", video_of(frames[::-1].copy()))
    assert darker["drift.brightness"].value == pytest.approx(-0.2)
    assert darker["drift.brightness_contrast"].value == pytest.approx(0.2)
    short = whole_values("drift", video_of(frames[100:200]))
    assert short["drift.brightness"].status == "undefined"
    assert short["drift.brightness_contrast"].value == pytest.approx(0.2)


def test_start_and_end_are_fifteen_percent() -> None:
    frames = np.zeros((100, 8, 8, 3), np.uint8)
    frames[:15], frames[85:] = 51, 255
    found = whole_values("drift", video_of(frames))
    assert found["drift.brightness_contrast"].value == pytest.approx(0.8)


def test_the_video_is_not_read_again() -> None:
    frames = random_frames(200)
    video = video_of(frames)
    expected = values_of("drift", video)
    blind = video_of(frames, footage=Streamed(200, (24, 24), never), shelf=video.shelf)
    assert values_of("drift", blind) == expected


def test_without_networks_each_measure_has_one_row_with_the_reason() -> None:
    values = values_of("drift", video_of(random_frames(200)))
    absent = [value for value in values if value.status == "unavailable"]
    assert {value.name for value in absent} >= {
        "drift.imaging_quality", "drift.imaging_quality_abs", "drift.aesthetic_quality_level",
        "drift.subject_similarity", "drift.motion", "drift.motion_share", "drift.coherence",
        "drift.loop_dino",
    }  # fmt: skip
    assert len(absent) == len({value.name for value in absent})
    reasons = {value.name: value.reason for value in absent}
    assert "metrics=vbench_long" in reasons["drift.imaging_quality"]
    assert "flow=all" in reasons["drift.motion"]


def test_the_obstacle_is_told() -> None:
    video = video_of(random_frames(200))
    video.shelf.obstacles["strict/musiq"] = "weights 'musiq_spaq' are not here"
    found = whole_values("drift", video)
    assert found["drift.imaging_quality"].reason == "weights 'musiq_spaq' are not here"


def test_scores_of_clips_become_curves() -> None:
    video = video_of(random_frames(200))
    quality = np.linspace(80, 60, 200)
    lay(video, "musiq", scores=by_clip(video, quality))
    lay(video, "aesthetic", view="compat", scores=by_clip(video, quality / 100))
    values = values_of("drift", video)
    named = {(value.name, value.clip): value.value for value in values}
    change = (quality[-80:].mean() - quality[:80].mean()) / 100
    for name in ("imaging_quality", "aesthetic_quality"):
        assert named[f"drift.{name}", -1] == pytest.approx(change)
        assert named[f"drift.{name}_abs", -1] == pytest.approx(-change)
        assert named[f"drift.{name}_level", -1] == pytest.approx(0.7)
        assert named[f"drift.{name}_level", 1] == pytest.approx(quality[80:160].mean() / 100)
        assert named[f"drift.{name}_contrast", -1] == pytest.approx(
            (quality[:30].mean() - quality[-30:].mean()) / 100
        )


def test_lossless_clips_are_preferred() -> None:
    video = video_of(random_frames(64))
    lay(video, "musiq", view="compat", scores=by_clip(video, np.full(64, 10.0)))
    lay(video, "musiq", view="strict", scores=by_clip(video, np.full(64, 20.0)))
    assert whole_values("drift", video)["drift.imaging_quality_level"].value == pytest.approx(0.2)


def test_frames_of_two_clips_count_once() -> None:
    """70 frames are three clips, of which the last begins at 38: 26 of its frames were seen before."""
    video = video_of(random_frames(70))
    first, second, third = np.zeros(32), np.full(32, 100.0), np.full(32, 50.0)
    lay(video, "musiq", scores=[first, second, third])
    level = whole_values("drift", video)["drift.imaging_quality_level"]
    assert level.value == pytest.approx((32 * 0 + 32 * 1 + 6 * 0.5) / 70)
    chosen, frames = timeline.places(video, np.array([32, 32, 32]))
    assert frames.tolist() == list(range(70))
    assert chosen.tolist() == [*range(64), *range(90, 96)]


def test_odd_frames_of_an_overlapping_clip() -> None:
    video = video_of(random_frames(71))  # the last clip begins at 39
    _, frames = timeline.places(video, np.array([15, 15, 15]), first=1, step=2)
    assert frames.tolist() == [*range(1, 30, 2), *range(33, 62, 2), *range(64, 69, 2)]


def test_other_clips_are_refused() -> None:
    video = video_of(random_frames(64))
    with pytest.raises(ValueError, match="3 clips were measured of a video that has 2"):
        timeline.places(video, np.array([32, 32, 32]))
    with pytest.raises(ValueError, match="more numbers"):
        timeline.places(video, np.array([32, 33]))
    with pytest.raises(ValueError, match="have features"):
        timeline.rows(video, np.zeros((60, 4)), np.array([30, 30]))


def test_similarity_runs_across_clips() -> None:
    """Turning by one degree a frame: cos(1) to the frame before, falling to the first, none below zero."""
    video = video_of(random_frames(160))
    angle = np.deg2rad(np.arange(160))
    features = np.stack([np.cos(angle), np.sin(angle)], 1)
    lay(video, "dino", features=by_clip(video, 3 * features))
    lay(video, "clip_b32", features=by_clip(video, features))
    found = whole_values("drift", video)
    expected = (np.cos(angle[1]) + np.cos(angle[1:]).clip(0)) / 2
    assert found["drift.subject_similarity_level"].value == pytest.approx(expected.mean())
    assert found["drift.background_similarity"].value == pytest.approx(
        expected[-80:].mean() - expected[:79].mean()
    )


def test_coherence_is_the_mean_cosine_at_each_gap() -> None:
    video = video_of(random_frames(112))  # 7 s
    angle = np.deg2rad(np.arange(112))
    lay(video, "dino", features=by_clip(video, np.stack([np.cos(angle), np.sin(angle)], 1)))
    values = [value for value in values_of("drift", video) if value.name == "drift.coherence"]
    points = {value.clip: value for value in values if value.clip >= 0}
    expected = [np.cos(np.deg2rad(16 * gap)) for gap in GAPS[:4]]
    assert [(value.t0, value.t1) for value in points.values()] == [(0, gap) for gap in GAPS[:4]]
    np.testing.assert_allclose([value.value for value in points.values()], expected, atol=1e-12)
    found = whole_values("drift", video)
    assert found["drift.coherence"].value == pytest.approx(np.mean(expected))
    assert found["drift.coherence_longest"].value == pytest.approx(expected[-1])


def test_coherence_equals_the_mean_over_pairs() -> None:
    features = unit(np.random.default_rng(0).normal(size=(30, 8)))
    pairs = [features[t] @ features[t + 7] for t in range(23)]
    assert coherence(features, 7) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize(("fps", "step"), [(16, 2), (30, 4), (8, 1)])
def test_motion_is_per_eighth_of_a_second(fps: int, step: int) -> None:
    """A view that moves at 40 px a second, whatever the frame rate."""
    video = video_of(random_frames(4 * fps), fps=fps)
    pairs = (2 * fps - 1) // step
    moved = [np.full(pairs, 40 * step / fps, np.float32)] * 2
    lay(video, "flow", motion=moved, known=[np.ones(pairs, bool)] * 2)
    found = whole_values("drift", video)
    assert found["drift.motion"].value == pytest.approx(5)
    assert found["drift.motion_share"].value == pytest.approx(5 / 24)
    assert found["drift.flow_contrast"].value == pytest.approx(0)


def test_the_early_exit_is_no_motion() -> None:
    video = video_of(random_frames(64))
    lay(video, "flow_decision", motion=[np.ones(15)] * 2, known=[np.arange(15) < 4] * 2)
    assert whole_values("drift", video)["drift.motion"].status == "unavailable"


def test_interpolation_errors_are_shares() -> None:
    video = video_of(random_frames(64))
    lay(video, "interpolation", errors=[np.full(15, 51.0)] * 2)
    assert whole_values("drift", video)["drift.interpolation_error_level"].value == pytest.approx(0.2)


def test_seams_are_compared_with_other_pairs() -> None:
    steps = np.ones(60, int)
    steps[[0, 9, 21, 33, 45, 57]] = [0, 3, 3, 3, 3, 3]
    frames = np.broadcast_to(steps.cumsum()[:, None, None, None], (60, 8, 8, 3)).astype(np.uint8)
    seams = (9, 21, 33, 45, 57)
    found = whole_values("drift", video_of(frames, boundaries=seams))
    assert found["drift.boundary_ratio"].value == pytest.approx(3)
    shifted = whole_values("drift", video_of(frames, boundaries=tuple(begin - 1 for begin in seams)))
    assert shifted["drift.boundary_ratio"].value < 1
    late = whole_values("drift", video_of(frames, boundaries=seams, prefix_frames=58))
    assert "no chunk begins" in late["drift.boundary_ratio"].reason
    unknown = whole_values("drift", video_of(frames))
    assert "not known" in unknown["drift.boundary_ratio"].reason
    still = whole_values("drift", video_of(np.zeros_like(frames), boundaries=seams))
    assert "nothing changes" in still["drift.boundary_ratio"].reason


def test_curves_read_what_they_name() -> None:
    assert len({curve.name for curve in CURVES}) == len(CURVES)
    assert set(EXTRAS) >= {"strict/dino", "compat/flow"}
    assert not any("flow_decision" in key for key in EXTRAS)
