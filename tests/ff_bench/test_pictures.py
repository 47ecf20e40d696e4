"""A record of latents: it is decoded for the scores, without the transformer, and told from a damaged one."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from ff_bench import cli, pictures, pipeline, records, report, runs, score
from ff_bench.compose import compose
from ff_bench.config import RunConfig
from ff_bench.models.wan.member import Member
from ff_bench.runs import VideoSpec

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
WORDS = ["budget=6f", "length=1.5s", "dtype=float32", "device=cpu", "stages=[generate]"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    from ff_bench.models.wan.synthesis import TINY, write

    member = compose(["model=longlive"]).config.model.fields
    assert isinstance(member, Member)
    return write(tmp_path_factory.mktemp("files"), member, TINY)


@pytest.fixture
def made(clean: Path, bare: None, files: list[str], capsys: pytest.CaptureFixture[str]) -> VideoSpec:
    """One video of a tiny model with random weights."""
    config = _config(files)
    pipeline.run(config)
    return runs.videos(config)[0]


def _config(files: list[str], *words: str) -> RunConfig:
    return compose([*files, "policy=h2o", *WORDS, *words]).config


def _read(spec: VideoSpec) -> np.ndarray:
    manifest = runs.read_manifest(spec.folder)
    assert manifest is not None
    return pictures.read(spec.folder, manifest, spec.config)


def test_the_record_is_latents_and_decodes_to_the_same_pictures(
    made: VideoSpec, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = runs.read_manifest(made.folder)
    assert manifest is not None
    assert set(manifest.files) == {runs.LATENTS, runs.VIDEO, runs.TRACE}
    assert set(manifest.digests) == {runs.LATENTS}
    latents = load_file(made.folder / runs.LATENTS)["latents"]
    assert latents.shape == (9, 16, 4, 6)
    with caplog.at_level(logging.WARNING):
        frames = _read(made)
    assert "other pictures" not in caplog.text
    assert frames.shape == (24, 32, 48, 3)
    assert frames.std() > 1


def test_the_transformer_is_not_loaded_to_decode(made: VideoSpec, files: list[str]) -> None:
    words = [word for word in files if "weights" not in word]
    config = replace(made.config, model=replace(made.config.model, fields=compose(words).config.model.fields))
    manifest = runs.read_manifest(made.folder)
    assert manifest is not None
    assert len(pictures.read(made.folder, manifest, config)) == 24


def test_a_changed_record_is_refused(made: VideoSpec) -> None:
    path = made.folder / runs.LATENTS
    latents = load_file(path)["latents"]
    save_file({"latents": latents.flip(0).contiguous()}, path)
    assert runs.is_finished(made.folder), "its size is the same"
    with pytest.raises(ValueError, match="not the one that its manifest names"):
        _read(made)
    path.unlink()
    with pytest.raises(ValueError, match="no record"):
        _read(made)


def test_other_pictures_elsewhere_are_told_not_refused(
    made: VideoSpec, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = runs.read_manifest(made.folder)
    assert manifest is not None
    there = {**manifest.environment, "hardware": "a machine of long ago"}
    other = replace(manifest, frames_sha256="0" * 64, environment=there)
    with caplog.at_level(logging.WARNING):
        assert len(pictures.read(made.folder, other, made.config)) == 24
    assert "a machine of long ago" in caplog.text
    with pytest.raises(ValueError, match="the video has 33 frames, not 40"):
        pictures.read(made.folder, replace(manifest, frames=40), made.config)


def test_scores_of_a_model_of_text(made: VideoSpec, files: list[str]) -> None:
    """Every family yields values or says why not; frames are counted as the decoder makes them."""
    config = replace(made.config, stages=("score",))
    pipeline.execute([config])
    rows = records.table([made.folder])
    assert set(rows["status"]) <= {"ok", "undefined", "unavailable"}
    assert (rows.loc[rows["metric"].str.startswith("world."), "status"] == "undefined").all()
    assert set(rows["model"]) == {made.config.model.label}
    assert set(rows["checkpoint"]) == {made.config.model.checkpoint}
    assert len(made.config.model.checkpoint) == 64
    cost = rows[rows["clip"] == -1].set_index("metric")["value"]
    assert cost["cost.fps"] * cost["cost.seconds"] == pytest.approx(33)
    assert cost["flicker.temporal_flickering"] > 0
    score.score_video(made)
    assert len(records.table([made.folder])) == len(rows)


def test_a_report_over_models_of_text(made: VideoSpec, files: list[str], clean: Path) -> None:
    words = ["stages=[generate,score]", "protocol.recent=1f", "runs_dir=runs"]
    for policy in ("native", "full", "random"):
        pipeline.run(compose([*files, *WORDS, *words, f"policy={policy}"]).config)
    summary = report.make(["runs"], clean / "out", ansi=False).summary
    assert "native (sink3+roll12)" in summary
    assert "36 (6f)" in summary
    label = "longlive+head_dim=16+heads=2+height=32+layers=2+width=48 · prompts scenes"
    titles = [line for line in summary.splitlines() if label in line]
    assert len([title for title in titles if not title.endswith("· drift")]) == 2


def test_a_missing_decoder_is_named(made: VideoSpec) -> None:
    member = made.config.model.fields
    assert isinstance(member, Member)
    member = replace(member, vae=replace(member.vae, path="nowhere.pth"))
    manifest = runs.read_manifest(made.folder)
    assert manifest is not None
    config = replace(made.config, model=replace(made.config.model, fields=member))
    with pytest.raises(FileNotFoundError, match=r"VAE weights of longlive are missing: .*nowhere\.pth"):
        pictures.read(made.folder, manifest, config)


def test_the_command_line_runs_a_model_of_text(
    clean: Path, bare: None, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*files, *WORDS, "stages=[generate,score,report]", "policy=native"]) == 0
    out = capsys.readouterr().out
    assert "native (sink3+roll12)" in out
    assert "policy=native of longlive is sink3+roll12" in out
    assert cli.main([*files, *WORDS, "policy=native", "--dry-run"]) == 0
    assert "done 1" in capsys.readouterr().out
