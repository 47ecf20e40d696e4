"""The dimensions of VBench-Long from signals put on the shelf by hand: formulas, clips, modes, gaps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from ff_bench import metrics
from ff_bench.errors import UsageError
from ff_bench.footage import Held
from ff_bench.metrics import Value, Video, vbench_scale
from ff_bench.metrics.base import WHOLE
from ff_bench.metrics.shelf import Shelf, key
from ff_bench.metrics.vbench_long import DIMENSIONS, VBenchLong, similarity

FPS, CLIPS, LENGTH = 16, 3, 32


def units(count: int, width: int = 8, *, seed: int) -> np.ndarray:
    features = np.random.default_rng(seed).normal(size=(count, width)) + 1.0
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def parts(name: str, values: np.ndarray, each: int) -> dict[str, np.ndarray]:
    return {name: values, f"{name}_counts": np.array([each] * CLIPS)}


def arrays() -> dict[str, Mapping[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    frames, pairs = CLIPS * LENGTH, CLIPS * 15
    motion = np.repeat([20.0, 0.0, 0.0], 15).astype(np.float32)
    motion[17:20] = 20.0  # three pairs of the second clip: one fewer than it takes
    known = np.ones(pairs, bool)
    return {
        "dino": parts("features", units(frames, seed=1), LENGTH),
        "clip_b32": parts("features", units(frames, seed=2), LENGTH),
        "dinov2": {"features": units(CLIPS, seed=3)},
        "dreamsim": {"features": units(CLIPS, seed=4)},
        "difference": parts("change", generator.uniform(0, 0.2, frames), LENGTH),
        "interpolation": parts("errors", generator.uniform(0, 9, pairs), 15),
        "flow": {**parts("motion", motion, 15), **parts("known", known, 15)},
        "flow_decision": {**parts("motion", motion, 15), **parts("known", known, 15)},
        "aesthetic": parts("scores", generator.uniform(0.4, 0.6, frames), LENGTH),
        "musiq": parts("scores", generator.uniform(40, 80, frames), LENGTH),
        "viclip": parts("similarity", np.array([0.2, 0.1, 0.3]), 1),
    }


@pytest.fixture
def video(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Video:
    monkeypatch.setenv("FF_BENCH_WEIGHTS", str(tmp_path))
    shelf = Shelf(None, "")
    for mode in ("compat", "strict"):
        for name, values in arrays().items():
            shelf.put(key(mode, name), values, device="cpu")
    frames = np.zeros((CLIPS * LENGTH, 480, 832, 1), np.uint8)[..., [0, 0, 0]]
    return Video("a", "a cat", 0, FPS, 12, 0, Held(frames), model="wan", shelf=shelf)


def values_of(video: Video, metric: VBenchLong) -> dict[tuple[str, int], Value]:
    return {(value.name, value.clip): value for value in metric.compute(video, None)}


def test_similarity_is_the_formula_of_vbench() -> None:
    features = units(9, seed=5)
    tensors = torch.from_numpy(features)
    expected = [
        (
            max(0.0, functional.cosine_similarity(tensors[i : i + 1], tensors[i - 1 : i]).item())
            + max(0.0, functional.cosine_similarity(tensors[i : i + 1], tensors[:1]).item())
        )
        / 2
        for i in range(1, 9)
    ]
    assert similarity(features) == pytest.approx(np.mean(expected), abs=1e-6)


def test_opposite_features_count_as_zero_not_below() -> None:
    one = np.array([[1.0, 0.0]], np.float32)
    assert similarity(np.concatenate([one, -one, one])) == pytest.approx((0 + 0.5) / 2)


def test_every_dimension_per_clip_and_its_mean(video: Video) -> None:
    found = values_of(video, VBenchLong(modes=("strict",)))
    on_shelf = arrays()
    expected = {
        "subject_consistency": [similarity(part) for part in np.split(on_shelf["dino"]["features"], CLIPS)],
        "temporal_flickering": [
            1 - part[1:].mean() for part in np.split(on_shelf["difference"]["change"], CLIPS)
        ],
        "motion_smoothness": [
            1 - part.mean() / 255 for part in np.split(on_shelf["interpolation"]["errors"], CLIPS)
        ],
        "dynamic_degree": [1, 0, 0],
        "aesthetic_quality": [part.mean() for part in np.split(on_shelf["aesthetic"]["scores"], CLIPS)],
        "imaging_quality": [part.mean() / 100 for part in np.split(on_shelf["musiq"]["scores"], CLIPS)],
        "overall_consistency": [0.2, 0.1, 0.3],
    }
    for name, clips in expected.items():
        whole_name = f"vbench_long.strict.{name}"
        got = [found[whole_name, clip].value for clip in range(CLIPS)]
        np.testing.assert_allclose(np.array(got, float), clips, atol=1e-9)
        assert found[whole_name, WHOLE].value == pytest.approx(np.mean(clips))
    clip = found["vbench_long.strict.imaging_quality", 2]
    assert (clip.t0, clip.t1) == (4.0, 6.0)


def test_compat_fuses_what_strict_leaves_apart(video: Video) -> None:
    found = values_of(video, VBenchLong(modes=("compat", "strict")))
    for name, heads in (("subject", "dinov2"), ("background", "dreamsim")):
        between = similarity(arrays()[heads]["features"])
        prefix = f"vbench_long.compat.{name}_consistency"
        strict = found[f"vbench_long.strict.{name}_consistency", WHOLE].value
        assert found[f"{prefix}_inclip", WHOLE].value == strict
        assert found[f"{prefix}_clip2clip", WHOLE].value == pytest.approx(between)
        raw = found[f"vbench_long.strict.{name}_consistency_clip2clip", WHOLE]
        assert raw.value == pytest.approx(between)
        mapped = vbench_scale.mapped(between, name)
        assert found[f"{prefix}_mapped", WHOLE].value == pytest.approx(mapped)
        assert strict is not None
        assert found[prefix, WHOLE].value == pytest.approx((strict + mapped) / 2)


def test_quality_is_there_and_semantic_says_what_is_missing(video: Video) -> None:
    found = values_of(video, VBenchLong())
    raw = {name: found[f"vbench_long.compat.{name}", WHOLE].value for name in vbench_scale.QUALITY}
    assert all(value is not None for value in raw.values())
    expected = vbench_scale.quality({name: value or 0.0 for name, value in raw.items()})
    assert found["vbench_long.compat.quality", WHOLE].value == pytest.approx(expected)
    for name in ("semantic", "total"):
        value = found[f"vbench_long.compat.{name}", WHOLE]
        assert (value.status, value.value) == ("unavailable", None)
        assert "object_class" in value.reason
        assert "overall_consistency" not in value.reason


def test_without_a_weight_file_a_dimension_is_unavailable_and_quality_with_it(video: Video) -> None:
    del video.shelf._held["compat/musiq"]
    video.shelf.obstacles["compat/musiq"] = "weights 'musiq_spaq' are not here"
    found = values_of(video, VBenchLong())
    lost = found["vbench_long.compat.imaging_quality", WHOLE]
    assert (lost.status, lost.reason) == ("unavailable", "weights 'musiq_spaq' are not here")
    assert found["vbench_long.compat.quality", WHOLE].reason == "parts are missing: imaging_quality"
    assert found["vbench_long.compat.aesthetic_quality", WHOLE].status == "ok"


def test_without_the_score_between_clips_nothing_is_passed_off_as_fused(video: Video) -> None:
    del video.shelf._held["compat/dreamsim"]
    found = values_of(video, VBenchLong())
    prefix = "vbench_long.compat.background_consistency"
    assert found[prefix, WHOLE].status == "unavailable"
    assert found[f"{prefix}_inclip", WHOLE].status == "ok"
    assert (prefix, 0) not in found
    assert found["vbench_long.compat.quality", WHOLE].status == "unavailable"


def test_a_single_clip_is_scored_within_itself(video: Video) -> None:
    for heads in ("dinov2", "dreamsim"):
        video.shelf.put(f"compat/{heads}", {}, device="cpu")
    found = values_of(video, VBenchLong())
    prefix = "vbench_long.compat.subject_consistency"
    assert found[prefix, WHOLE].value == found[f"{prefix}_inclip", WHOLE].value
    assert found[f"{prefix}_clip2clip", WHOLE].status == "undefined"


@pytest.mark.parametrize("modes", [("compat",), ("strict",), ("compat", "strict")])
def test_what_it_yields_is_what_it_says(video: Video, modes: tuple[str, ...]) -> None:
    metric = VBenchLong(modes=modes)
    found = values_of(video, metric)
    told = {name for name in metric.measures if name.split(".")[1] in modes}
    assert {name for name, _ in found} == told
    assert {name for name, clip in found if clip == WHOLE} == told


def test_signals_follow_from_the_settings() -> None:
    assert "compat/flow_decision" in VBenchLong().signals
    assert "compat/flow" in VBenchLong(flow="all").signals
    one = VBenchLong(modes=("strict",), dimensions=("temporal_flickering",))
    assert one.signals == ("strict/difference",)
    assert len(VBenchLong().signals) == len(DIMENSIONS) + 2


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"modes": ["exact"]}, "metrics.vbench_long.modes=exact is not known: allowed are compat, strict"),
        ({"dimensions": ["subject"]}, "dimensions=subject is not known"),
        ({"flow": "early"}, "metrics.vbench_long.flow=early is not known: allowed are all, decide"),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        metrics.load("vbench_long", settings)
