"""VBench's own code as a metric, without VBench: a script answers in its place."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from ff_bench import weights
from ff_bench.errors import Unavailable, UsageError
from ff_bench.footage import Held
from ff_bench.metrics.base import Value, Video
from ff_bench.metrics.reference import VBenchReference, results, runner, samples, staging, stand_ins
from ff_bench.video import frames_sha256

FPS = 8.0
FPS_OF_TRAINING = Fraction(24)
"""An object that torch does not read by default."""
Answer = Callable[[dict[str, Any]], None]


def footage(frames: int, *, seed: int = 0) -> Held:
    return Held(samples.frames(samples.Sample("moving", frames, 1, ""), (32, 48), seed=seed))


def video(frames: int) -> Video:
    return Video(
        id="a_b c", prompt="a fox, two foxes", seed=0, fps=FPS, chunk_frames=4, prefix_frames=0,
        footage=footage(frames),
    )  # fmt: skip


def entry(number: int | str, score: float, **parts: float) -> dict[str, Any]:
    label = number if isinstance(number, str) else f"{number:03d}"
    return {"video_path": f"/tmp/x/split_clip/v0000-0/v0000-0_{label}.mp4", "video_results": score, **parts}


def consistent(number: int, between: float) -> dict[str, Any]:
    """Shape an entry as VBench-Long does for the consistencies, with its odd path."""
    mapped = 0.96 if between else 0.0
    found = entry(
        number, 0.93, inclip_score=0.9, clip2clip_score=between, mapped_clip2clip_score=mapped
    )  # fmt: skip
    return {**found, "video_path": found["video_path"] + "/v0000-0.mp4"}


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Put a script in the place of the environment's python; it answers with what it is told."""
    told, script = tmp_path / "told.json", tmp_path / "script.py"
    script.write_text(
        "import json, sys, pathlib\n"
        "request = json.loads(pathlib.Path(sys.argv[3]).read_text())\n"
        f"told = json.loads(pathlib.Path({str(told)!r}).read_text())[request['dimension']]\n"
        "if 'error' in told: sys.exit('first line\\n' + told['error'])\n"
        "videos = sorted(p.name for p in pathlib.Path(request['videos']).iterdir())\n"
        "assert videos == ['v0000-0.mp4'], videos\n"
        "assert request['prompts'] == {'v0000-0': 'a fox, two foxes'}\n"
        "pathlib.Path(request['result']).write_text(json.dumps(told))\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv(staging.ENVIRONMENT, str(python))
    monkeypatch.setenv(weights.FOLDER, str(tmp_path / "weights"))

    def tell(content: dict[str, Any]) -> None:
        told.write_text(json.dumps(content))

    return tell


def scored(frames: int, *dimensions: str) -> dict[tuple[str, int], Value]:
    values = list(VBenchReference(dimensions=dimensions).compute(video(frames), None))
    prefix = "vbench_reference."
    return {(value.name.removeprefix(prefix), value.clip): value for value in values}


def give_weights(dimension: str) -> None:
    weights.folder().mkdir(exist_ok=True)
    for file in runner.PLACES[dimension]:
        with zipfile.ZipFile(weights.folder() / file, "w") as archive:
            archive.writestr("data.pkl", b"x")


# -- the environment --------------------------------------------------------------------------------------


def test_environment_is_a_python_or_the_folder_that_holds_it(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.touch()
    assert staging.find_environment(tmp_path) == staging.find_environment(python) == python


def test_without_environment_every_dimension_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(staging.ENVIRONMENT, "/nowhere")
    values = list(VBenchReference().compute(video(20), None))
    assert {value.name for value in values} == set(VBenchReference.measures)
    assert {value.status for value in values} == {"unavailable"}
    assert all(value.reason.endswith("make scorer-env") for value in values)


def test_every_package_is_pinned_once() -> None:
    lines = Path(staging.__file__).with_name("constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pins)
    names = [pin.partition("==")[0].lower().replace("_", "-") for pin in pins]
    assert len(set(names)) == len(names)
    assert {name.lower() for name in runner.VERSIONS} <= set(names)


# -- staging ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [8.0, 16.0, 24000 / 1001, 5.5])
def test_staged_video_is_its_frames_under_a_name_that_vbench_keeps(fps: float) -> None:
    with staging.workplace() as folder:
        staged = staging.stage(folder, footage(9), place=3, prompt="p", fps=fps)
        assert [path.name for path in (folder / "videos").iterdir()] == ["v0003-0.mp4"]
        read = np.stack(list(staging.decode(folder / "videos" / "v0003-0.mp4")))
    np.testing.assert_array_equal(read, footage(9).frames)
    assert staged == staging.Staged("v0003-0", "p", fps, 9)
    assert "_" not in staged.name
    assert not folder.exists()


def test_noise_is_staged_exactly() -> None:
    noise = Held(np.random.default_rng(0).integers(0, 256, (3, 34, 46, 3), dtype=np.uint8))
    with staging.workplace() as folder:
        staging.stage(folder, noise, place=0, prompt="", fps=16.0)  # compares by itself


def test_map_has_both_branches_from_0_to_1_without_a_fall() -> None:
    points = staging.mapping()
    assert set(points) == {"subject", "background"}
    for branch in points.values():
        keys, values = np.array(branch).T
        np.testing.assert_allclose(keys, np.arange(101) / 100)
        assert (values[0], values[-1]) == (0.0, 1.0)
        assert (np.diff(values) >= 0).all()


def test_every_weight_file_of_vbench_is_in_the_manifest() -> None:
    assert {dimension: staging.needs(dimension) for dimension in staging.DIMENSIONS} == {
        "subject_consistency": ("dino_vitb16", "dinov2_vitb14"),
        "background_consistency": ("clip_vitb32", "dino_vitb16", "dreamsim_ensemble"),
        "temporal_flickering": (),
        "motion_smoothness": ("amt_s",),
        "dynamic_degree": ("raft_things",),
        "aesthetic_quality": ("clip_vitl14", "aesthetic_linear"),
        "imaging_quality": ("musiq_spaq",),
        "overall_consistency": ("viclip",),
    }


def test_weights_are_linked_where_vbench_looks_for_them(tmp_path: Path) -> None:
    file = "dino_vitbase16_pretrain.pth"
    for name in runner.PLACES["subject_consistency"]:
        (tmp_path / name).write_text(name)
    tree = tmp_path / "tree"
    runner.arrange(tree, "subject_consistency", tmp_path)
    assert (tree / "cache/dino_model" / file).read_text() == file
    assert (tree / "torch/hub/checkpoints" / file).read_text() == file
    with pytest.raises(FileNotFoundError, match=r"raft-things\.pth"):
        runner.arrange(tree, "dynamic_degree", tmp_path)


def test_notes_beside_weights_are_left_out(tmp_path: Path) -> None:
    file, state = tmp_path / "amt-s.pth", {"weight": torch.arange(3.0)}
    torch.save({"state_dict": state, "notes": FPS_OF_TRAINING}, file)
    assert stand_ins.bare(file, tmp_path / "bare.pth", "state_dict")
    (read,) = torch.load(tmp_path / "bare.pth", weights_only=True).values()
    torch.testing.assert_close(read, state)
    assert not stand_ins.bare(tmp_path / "bare.pth", tmp_path / "again.pth", "state_dict")


def test_tables_give_back_the_map_and_even_weights(tmp_path: Path) -> None:
    told = runner.settings(tmp_path, staging.mapping())
    table = yaml.safe_load(Path(told["bg_mapping_file_path"]).read_text())
    assert sorted(table.items()) == staging.mapping()["background"]
    assert set(yaml.safe_load(Path(told["slow_fast_eval_config"]).read_text()).values()) == {0.5}
    assert told["dev_flag"] is True


# -- results ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "labels"), [(12, ["full"]), (16, ["000"]), (40, ["000", "001", "002"])])
def test_clips_are_those_of_the_rule(frames: int, labels: list[str]) -> None:
    staged = staging.Staged("v0000-0", "", FPS, frames)
    told = {"clips": [entry(label, 0.5) for label in reversed(labels)]}
    assert len(results.read(told, "aesthetic_quality", staged)) == len(labels)
    with pytest.raises(results.Mismatch, match="expected"):
        results.read({"clips": told["clips"][1:]}, "aesthetic_quality", staged)


def test_imaging_quality_is_told_in_percent() -> None:
    staged = staging.Staged("v0000-0", "", FPS, 16)
    assert results.read({"clips": [entry(0, 62.5)]}, "imaging_quality", staged)[0].score == 0.625


def test_a_lost_branch_between_clips_is_an_error_unless_there_is_one_clip() -> None:
    staged = staging.Staged("v0000-0", "", FPS, 32)
    with pytest.raises(results.Mismatch, match="between clips"):
        results.read({"clips": [consistent(0, 0.7), consistent(1, 0.0)]}, "subject_consistency", staged)
    single = staging.Staged("v0000-0", "", FPS, 16)
    clip = results.read({"clips": [consistent(0, 0.0)]}, "subject_consistency", single)[0]
    assert (clip.clip2clip, clip.mapped, clip.inclip) == (None, None, 0.9)


def test_flow_without_a_value_is_an_error_not_a_still_clip() -> None:
    staged = staging.Staged("v0000-0", "", FPS, 16)
    told = {"clips": [entry(0, False)], "flows": [[float("nan")]]}
    with pytest.raises(results.Mismatch, match="not finite"):
        results.read(told, "dynamic_degree", staged)


# -- the metric -------------------------------------------------------------------------------------------


def test_values_per_clip_and_their_mean(answer: Answer) -> None:
    give_weights("subject_consistency")
    give_weights("dynamic_degree")
    clips = [entry(0, True), entry(2, False), entry(1, True)]
    told = {"clips": clips, "flows": [[9.0, 8.0], [0.1, 0.2], [7.0]]}
    between = {"clips": [consistent(number, 0.7) for number in range(3)]}
    answer({"dynamic_degree": told, "subject_consistency": between})
    values = scored(40, "dynamic_degree", "subject_consistency")
    assert values["dynamic_degree", -1].value == pytest.approx(2 / 3)
    assert [values["dynamic_degree", clip].value for clip in range(3)] == [1.0, 1.0, 0.0]
    last = values["dynamic_degree", 2]
    assert (last.t0, last.t1) == (3.0, 5.0)  # it reaches back to be 2 s long
    assert values["subject_consistency", -1].value == pytest.approx(0.93)
    assert values["subject_consistency_inclip", -1].value == pytest.approx(0.9)
    assert values["subject_consistency_clip2clip", -1].value == pytest.approx(0.7)
    assert values["subject_consistency_mapped", -1].value == pytest.approx(0.96)
    assert {value.name for value in values.values()} <= set(VBenchReference.measures)


def test_what_fails_says_why_and_does_not_stop_the_rest(answer: Answer) -> None:
    give_weights("dynamic_degree")
    error = {"error": "ZeroDivisionError: float division by zero"}
    short = {"clips": [entry(0, 0.9)]}
    answer({"dynamic_degree": error, "temporal_flickering": short, "motion_smoothness": short})
    values = scored(40, "dynamic_degree", "temporal_flickering", "motion_smoothness")
    assert len(values) == 3
    assert values["dynamic_degree", -1].status == "failed"
    assert values["dynamic_degree", -1].reason == "ZeroDivisionError: float division by zero"
    assert values["temporal_flickering", -1].status == "failed"
    assert "of 3 expected" in values["temporal_flickering", -1].reason
    assert values["motion_smoothness", -1].status == "unavailable"
    assert "amt_s" in values["motion_smoothness", -1].reason


def test_one_clip_has_nothing_between_clips(answer: Answer) -> None:
    give_weights("subject_consistency")
    alone = entry("full", 0.9)
    alone["video_path"] += "/v0000-0.mp4"
    answer({"subject_consistency": {"clips": [alone]}})
    values = scored(10, "subject_consistency")
    assert values["subject_consistency", -1].value == values["subject_consistency_inclip", -1].value == 0.9
    assert values["subject_consistency_clip2clip", -1].status == "undefined"


def test_time_limit_is_a_failure(answer: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    family = VBenchReference(dimensions=["temporal_flickering"], python=str(slow), timeout=0.2)
    (value,) = family.compute(video(20), None)
    assert (value.status, value.reason) == ("failed", "no result after 0.2 s")


def test_unknown_dimension_is_refused() -> None:
    with pytest.raises(UsageError, match="temporal_flickering"):
        VBenchReference(dimensions=["temporal_flicker"])


def test_missing_environment_is_told_before_a_video_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(staging.ENVIRONMENT, "/nowhere")
    with pytest.raises(Unavailable, match="scorer-env"):
        staging.find_environment()


# -- samples ----------------------------------------------------------------------------------------------


def test_samples_are_the_same_bytes_everywhere() -> None:
    digests = {
        group.name: [frames_sha256(group.footage(number).frames)[:16] for number in range(len(group.samples))]
        for group in samples.GROUPS
    }
    assert digests == {
        "wide": ["9cb402cf6d5048f0", "bbaf13c11d5b9331"],
        "long": ["b6d612823a6add64"],
        "small": ["eab2916cfcfa406b", "5a3d40c459e46e82"],
    }
