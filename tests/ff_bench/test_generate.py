"""The generate stage on a tiny network: whole folders, whatever dies, fails or runs beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas
import pytest
import torch
from torch import Tensor

from ff_bench import files, generate, pipeline, records, runs, video
from ff_bench.compose import compose
from ff_bench.config import RunConfig
from ff_bench.models.mini.backbone import Mini
from ff_bench.models.schedule import Span
from ff_bench.runs import VideoSpec
from tests.ff_bench.tiny import tiny_model, tiny_network

ROOT = Path(__file__).parents[2]
ORBIT = "orbit palette=3 speed=-4 sprite=disc hue=teal path=907"
CHANGE = "change palette=1 speed=4 sprite=box hue=red path=955"
PENDULUM = "pendulum palette=1 speed=4 sprite=box hue=red path=900"
METRICS = "metrics=[flicker,guards]"
WORDS = ("length=7s", "steps=1", "device=cpu", "budget=512", "limit=null", "save=[record]", METRICS)


class Failing(Mini):
    """The tiny model whose second world is never a number from its third chunk on."""

    def __init__(self) -> None:
        super().__init__(tiny_network(), "failing")
        self.world = ""
        self.frame = 0

    def encode(self, prompts: Sequence[str]) -> object:  # type: ignore[override]
        self.world = prompts[0].split()[0]
        return super().encode(prompts)

    def denoise(  # type: ignore[override]
        self, *inputs: object, first_frame: int, cache_only: bool = False
    ) -> Tensor:
        self.frame = first_frame
        return super().denoise(*inputs, first_frame=first_frame, cache_only=cache_only)  # type: ignore[arg-type]

    def advance(self, latent: Tensor, predicted: Tensor, step: Span, noise: Tensor | None) -> Tensor:
        made = super().advance(latent, predicted, step, noise)
        return made * torch.nan if self.world == "change" and self.frame >= 6 else made


@pytest.fixture
def tiny(clean: Path, weights: None, monkeypatch: pytest.MonkeyPatch) -> Mini:
    """Stand in an empty directory with a tiny network in the place of the embedded one."""
    model = tiny_model()
    monkeypatch.setattr(generate, "load_model", lambda *_: model)
    return model


def config(*words: str, prompts: Sequence[str] = (ORBIT,)) -> RunConfig:
    Path("some.txt").write_text("\n".join(prompts) + "\n")
    return compose(["prompts=some.txt", "policy=h2o", *WORDS, *words]).config


def execute(asked: RunConfig) -> pandas.DataFrame:
    return pipeline.run(asked)


def digest(spec: VideoSpec) -> str:
    manifest = runs.read_manifest(spec.folder)
    assert manifest is not None
    return manifest.frames_sha256


def test_a_folder_is_complete_and_its_manifest_last(tiny: Mini) -> None:
    asked, steps = config("length=6.9s", "save=[record,video]"), []
    (spec,) = runs.videos(asked)
    generate.generate(asked, [spec], steps.append)
    assert sum(steps) == asked.length.latent_frames == 30
    assert sorted(path.name for path in spec.folder.iterdir()) == [
        ".lock", "manifest.json", "record.mkv", "trace.jsonl", "video.mp4",
    ]  # fmt: skip
    times = {path.name: path.stat().st_mtime_ns for path in spec.folder.iterdir() if path.name != ".lock"}
    assert max(times, key=lambda name: times[name]) == "manifest.json"
    manifest = runs.read_manifest(spec.folder)
    assert manifest is not None
    frames = video.read_record(spec.folder / runs.RECORD)
    assert frames.shape == (manifest.frames, 64, 64, 3)
    assert manifest.frames == asked.length.frames == 110
    assert manifest.frames_sha256 == video.frames_sha256(frames)
    assert manifest.prefix_frames == 24
    assert manifest.seconds > 0
    assert (manifest.peak_bytes or 0) > 2**20


def test_the_trace_has_a_line_per_chunk(tiny: Mini) -> None:
    (spec,) = runs.videos(config())
    generate.generate(spec.config, [spec])
    lines = [json.loads(line) for line in (spec.folder / runs.TRACE).read_text().splitlines()]
    assert [line["chunk"] for line in lines] == list(range(10))
    assert [line["frame"] for line in lines] == list(range(0, 30, 3))
    assert [line["prefix"] for line in lines] == [True] * 8 + [False] * 2
    assert [line["context_tokens_max"] for line in lines] == [192 * n for n in range(1, 8)] + [512] * 3
    parts = ("model_seconds", "policy_seconds", "decode_seconds")
    assert all(line["seconds"] == pytest.approx(sum(line[part] for part in parts)) for line in lines)
    assert [list(line["kept"])[-1] for line in lines] == [str(line["chunk"]) for line in lines]
    assert lines[1]["kept"] == {"0": 1.0, "1": 1.0}
    assert lines[-1]["kv_bytes"] == 2 * 2 * 2 * 64 * 512 * 4


def test_full_after_its_first_lap_is_full_without_one(tiny: Mini) -> None:
    whole, lap = (
        runs.videos(config("policy=full", f"protocol.prefix={kind}")) for kind in ("none", "first_lap")
    )
    for spec in (*whole, *lap):
        generate.generate(spec.config, [spec])
    assert whole[0].folder != lap[0].folder
    assert digest(whole[0]) == digest(lap[0])


def test_a_prefix_of_truth_shows_the_true_frames(tiny: Mini) -> None:
    (spec,) = runs.videos(config("protocol.prefix=truth"))
    generate.generate(spec.config, [spec])
    frames = torch.from_numpy(video.read_record(spec.folder / runs.RECORD))
    expected = tiny.decoder()(tiny.truth(ORBIT, 0, 24)[None])[0]
    assert torch.equal(frames[:96], expected)


def test_a_batch_with_prefixes_of_two_lengths(tiny: Mini) -> None:
    """Each length runs as a group of its own, here of one video: bit for bit as with batch=1."""
    together = runs.videos(config("batch=2", "length=9.5s", prompts=(ORBIT, PENDULUM)))
    alone = runs.videos(config("length=9.5s", prompts=(ORBIT, PENDULUM)))
    generate.generate(together[0].config, together)
    for spec in alone:
        generate.generate(spec.config, [spec])
    for one, other in zip(together, alone, strict=True):
        assert digest(one) == digest(other)
        assert runs.is_finished(one.folder, one.video_id)
    lengths = [runs.read_manifest(spec.folder).prefix_frames for spec in together]  # type: ignore[union-attr]
    assert lengths == [24, 36]


def test_a_batch_gives_the_same_video_when_half_of_it_is_done(tiny: Mini) -> None:
    specs = runs.videos(config("batch=2", prompts=(ORBIT, CHANGE)))
    generate.generate(specs[0].config, specs)
    before, kept = digest(specs[1]), (specs[0].folder / runs.MANIFEST).stat().st_mtime_ns
    (specs[1].folder / runs.MANIFEST).unlink()
    generate.generate(specs[0].config, specs)
    assert digest(specs[1]) == before
    assert (specs[0].folder / runs.MANIFEST).stat().st_mtime_ns == kept


def test_a_video_that_another_process_holds_is_left_alone(tiny: Mini) -> None:
    (spec,) = runs.videos(config())
    with runs.lock(spec.folder), pytest.raises(runs.Locked):
        generate.generate(spec.config, [spec])
    assert not runs.is_finished(spec.folder)


def test_a_video_finished_while_its_lock_was_taken_is_not_made_again(
    tiny: Mini, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spec,) = runs.videos(config())
    generate.generate(spec.config, [spec])
    content = (spec.folder / runs.MANIFEST).read_text()
    (spec.folder / runs.MANIFEST).unlink()

    @contextmanager
    def late(folder: Path, *, wait: bool = False) -> Iterator[None]:
        with files.lock(folder, wait=wait):
            (spec.folder / runs.MANIFEST).write_text(content)  # the other process, just before
            yield

    monkeypatch.setattr(runs, "lock", late)
    monkeypatch.setattr(tiny, "denoise", None)
    steps: list[int] = []
    generate.generate(spec.config, [spec], steps.append)
    assert steps == [spec.config.length.latent_frames]


def test_latents_that_are_no_numbers_fail_that_video_alone(
    clean: Path, weights: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Failing()
    monkeypatch.setattr(generate, "load_model", lambda *_: model)
    rows = execute(config("protocol.prefix=none", prompts=(CHANGE, ORBIT)))
    failed = rows[rows["status"] == "failed"]
    assert list(failed["prompt_text"]) == [CHANGE]
    assert "latents are not finite in chunk 2 under policy 'h2o'" in failed["reason"].iloc[0]
    assert CHANGE in failed["reason"].iloc[0]
    assert set(rows[rows["status"] == "ok"]["prompt_text"]) == {ORBIT}
    assert len(list(Path("runs").rglob(runs.MANIFEST))) == 1


def test_a_failing_policy_is_a_row_and_others_go_on(tiny: Mini) -> None:
    Path("mine.py").write_text(POLICY)
    asked = [config(f"policy={name}", "protocol.prefix=none") for name in ("mine.py", "random")]
    rows = pipeline.execute(asked).rows
    (reason,) = rows[rows["status"] == "failed"]["reason"]
    assert reason.startswith("RuntimeError: no score today (mine.py, line ")
    assert set(rows[rows["status"] == "ok"]["policy"]) == {"random"}


POLICY = """
from dataclasses import dataclass
from typing import ClassVar

from policies.base import Policy


@dataclass
class Mine(Policy):
    name: ClassVar[str] = "mine"
    source: ClassVar[str] = "a test"

    def score(self, cache, step):
        raise RuntimeError("no score today")
"""


def test_two_runs_are_equal(tiny: Mini) -> None:
    first, second = (config("policy=future_forcing", f"runs_dir={name}") for name in "ab")
    rows = [records.strip_provenance(execute(asked)) for asked in (first, second)]
    assert rows[0].equals(rows[1])
    assert digest(runs.videos(first)[0]) == digest(runs.videos(second)[0])


KILLED = """
import os, signal, sys
from ff_bench import compose, config, generate, pipeline, runs
from ff_bench.models.mini import backbone
from tests.ff_bench.tiny import tiny_model

config.checkpoint_sha256 = lambda _: "0" * 64
model = tiny_model()
generate.load_model = lambda *_: model
points = {"pass": (model, "denoise"), "decode": (backbone, "decode"), "manifest": (runs, "write_manifest")}
(owner, name), left = points[sys.argv[1]], int(sys.argv[2])
original = getattr(owner, name)

def dying(*inputs, **named):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*inputs, **named)

setattr(owner, name, dying)
pipeline.run(compose.compose(sys.argv[3:]).config)
"""


def test_a_run_killed_again_and_again_ends_as_an_undisturbed_one(tiny: Mini) -> None:
    """Killed in a prefix, in the second video, and between its files and its manifest."""
    prompts = (ORBIT, CHANGE)
    undisturbed = config("runs_dir=calm", prompts=prompts)
    expected = execute(undisturbed)
    killed = config("runs_dir=killed", prompts=prompts)
    words = ["prompts=some.txt", "policy=h2o", *WORDS, "runs_dir=killed"]
    for point, count in (("pass", 5), ("decode", 14), ("manifest", 0)):
        assert _run(point, count, words) == -signal.SIGKILL
    finished = [runs.is_finished(spec.folder, spec.video_id) for spec in runs.videos(killed)]
    assert finished == [True, False]
    assert not list(Path("killed").rglob("*.parquet"))
    found = execute(killed)
    assert records.strip_provenance(found).equals(records.strip_provenance(expected))
    for one, other in zip(runs.videos(killed), runs.videos(undisturbed), strict=True):
        assert digest(one) == digest(other)
        assert sorted(path.name for path in one.folder.iterdir()) == sorted(
            path.name for path in other.folder.iterdir()
        )


def _run(point: str, count: int, words: Sequence[str]) -> int:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, point, str(count), *words]
    return subprocess.run(command, env=environment, capture_output=True, timeout=120).returncode
