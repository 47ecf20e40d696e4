from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from ff_bench import pipeline, runs, traits
from ff_bench.compose import compose
from ff_bench.errors import UsageError
from ff_bench.files import checkpoint_sha256
from ff_bench.runs import VideoSpec
from tests.conftest import FakeGenerate

pytestmark = pytest.mark.usefixtures("weights")


def _spec(*words: str) -> VideoSpec:
    return runs.videos(compose(words).config)[0]


def _id(*words: str) -> str:
    return _spec(*words).video_id


BASE = ("policy=future_forcing", "budget=1k", "length=6s")


@pytest.mark.parametrize(
    "words",
    [
        ["budget=1024"],
        ["length=24f"],
        ["device=cpu"],
        ["workers=2"],
        ["metrics=[cost]"],
        ["stages=[generate]"],
        ["save=[record]"],
        ["runs_dir=elsewhere"],
        ["overwrite=true"],
        ["protocol.recent=3f"],
        ["policy.lam=0.5"],
        ["limit=2"],
        ["seed=[0,1]"],
    ],
)
def test_what_changes_no_frame_changes_no_id(words: list[str]) -> None:
    assert _id(*BASE, *words) == _id(*BASE)


@pytest.mark.parametrize(
    "words",
    [
        ["budget=1025"],
        ["length=7s"],
        ["length=5.9s"],
        ["seed=1"],
        ["steps=4"],
        ["batch=2"],
        ["dtype=bfloat16"],
        ["policy.lam=0.4"],
        ["policy=h2o"],
        ["protocol.recent=2c"],
        ["protocol.prefix=none"],
        ["ids=[1]"],
        ["protocol.position=contiguous"],
        ["protocol.query_stride=2"],
    ],
)
def test_what_changes_frames_changes_the_id(words: list[str]) -> None:
    assert _id(*BASE, *words) != _id(*BASE)


@pytest.mark.parametrize(
    ("words", "own", "reference"),
    [
        (["policy=future_forcing"], "5d83cab43d", "0e16dd291f"),
        (["policy=h2o", "budget=1k"], "1674d56ecf", "0e16dd291f"),
        (["policy=h2o", "protocol=published", "budget=1k"], "24eb49a0cf", "0e16dd291f"),
        (["policy=sliding_window", "budget=10f"], "1cba9c314a", "0e16dd291f"),
        (["policy=full_eps", "length=5s", "protocol.prefix=truth"], "5862a0c08f", "a0c065a377"),
        (
            ["policy=streaming_llm", "budget=2k", "length=24s", "prompts=cut", "ids=[2]", "seed=3"],
            "af0d11b637",
            "6f0bf476ee",
        ),
        (
            [
                "policy=random", "budget=1k", "length=240f", "dtype=bfloat16", "steps=3", "batch=2",
                "protocol.prefix=none",
            ],
            "4bec32685a",
            "4a53904e14",
        ),
    ],
)  # fmt: skip
def test_ids_of_the_shipped_weights_stay(
    words: list[str], own: str, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published rows name these videos."""
    monkeypatch.setattr("ff_bench.config.checkpoint_sha256", checkpoint_sha256)
    spec = _spec(*words)
    assert (spec.video_id, spec.reference.video_id) == (own, reference)


@pytest.mark.parametrize("name", traits.LATER)
def test_fields_that_came_later_are_told_where_they_differ(name: str) -> None:
    usual = traits.defaults(name)
    assert {key: usual[key] for key in traits.LATER[name]} == traits.LATER[name]
    assert not set(traits.told(name, usual)) & set(traits.LATER[name])
    assert traits.told(name, usual | dict.fromkeys(traits.LATER[name], "other")).keys() == usual.keys()


def test_native_of_the_embedded_model_is_no_second_video() -> None:
    assert _spec("policy=native").folder == _spec("policy=full").folder


def test_the_checkpoint_is_in_the_id() -> None:
    spec = _spec(*BASE)
    config = replace(spec.config, model=replace(spec.config.model, checkpoint="1" * 64))
    assert replace(spec, config=config).video_id != spec.video_id


@pytest.mark.parametrize(
    "words", [["budget=2k"], ["protocol.sink=1c"], ["protocol=published"], ["protocol.unit=frame"]]
)
def test_a_full_cache_has_one_id_and_one_folder(words: list[str]) -> None:
    full = _spec("policy=full", "budget=1k")
    assert _spec("policy=full", *words).folder == full.folder
    assert _spec("policy=h2o", *words).reference.folder == full.folder
    assert _spec("policy=attention_sink", *words).reference.folder == full.folder


def test_a_reference_shares_the_prefix() -> None:
    reference = _spec("policy=h2o", "protocol.prefix=none").reference
    assert reference.video_id == _id("policy=full", "protocol.prefix=none") != _id("policy=full")


def test_the_folder_names_policy_protocol_budget_prompt_and_seed() -> None:
    spec = _spec("policy=h2o", "budget=1k", "length=6s", "seed=3")
    parts = spec.relative_folder.parts
    assert parts[:3] == ("mini", "h2o-equal", "b1024-f24")
    assert parts[3] == f"{spec.prompt.id}-s3-{spec.video_id}"
    assert len(spec.video_id) == 10


def test_canonical_text_does_not_depend_on_order() -> None:
    assert (
        runs.canonical({"b": 1, "a": [1.5, None]})
        == runs.canonical({"a": [1.5, None], "b": 1})
        == '{"a":[1.5,null],"b":1}'
    )
    with pytest.raises(ValueError):
        runs.canonical(float("nan"))


def test_a_manifest_comes_back_and_marks_a_finished_folder(fake: FakeGenerate) -> None:
    config = compose(["policy=h2o", "length=1s", "budget=256"]).config
    pipeline.run(replace(config, stages=("generate",)))
    spec = runs.videos(config)[0]
    manifest = runs.read_manifest(spec.folder)
    assert manifest is not None
    assert manifest.identity == spec.identity
    assert manifest.folder == spec.relative_folder.as_posix()
    assert set(manifest.files) == {runs.RECORD, runs.TRACE}
    assert runs.is_finished(spec.folder, spec.video_id)
    assert not runs.is_finished(spec.folder, "0" * 10)
    assert runs.unfinished([spec]) == []
    assert runs.find([Path("runs")]) == [spec.folder.resolve()]
    (spec.folder / "stray.part").write_text("")
    runs.prepare(spec.folder)
    assert [path.name for path in spec.folder.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    "content", ["", "null", "[]", "{}", '{"schema": 99}', "\x00\xff", '{"video_id": 1, "files": 3}']
)
def test_a_broken_manifest_is_no_manifest(tmp_path: Path, content: str) -> None:
    (tmp_path / runs.MANIFEST).write_text(content)
    assert runs.read_manifest(tmp_path) is None
    assert not runs.is_finished(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    runs.write_atomically(path, "old")
    with pytest.raises(RuntimeError), runs.temporary(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["a.json"]


def _try_lock(folder: str, found: multiprocessing.Queue[str]) -> None:
    try:
        with runs.lock(Path(folder)):
            found.put("free")
    except runs.Locked:
        found.put("locked")


def test_a_lock_keeps_other_processes_out(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    found: multiprocessing.Queue[str] = context.Queue()
    with runs.lock(tmp_path):
        other = context.Process(target=_try_lock, args=(str(tmp_path), found))
        other.start()
        assert found.get(timeout=60) == "locked"
        other.join()
    with runs.lock(tmp_path):
        pass


def test_find_refuses_a_path_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="RUNS=nowhere"):
        runs.find([Path("nowhere")])


def test_manifests_are_plain_json(fake: FakeGenerate) -> None:
    config = compose(["policy=random", "length=1s", "budget=256"]).config
    pipeline.run(replace(config, stages=("generate",)))
    plain = json.loads((runs.videos(config)[0].folder / runs.MANIFEST).read_text())
    assert plain["status"] == "ok"
    assert plain["labels"]["prompt_set"] == "orbit"
    assert plain["environment"]["versions"]["torch"]
