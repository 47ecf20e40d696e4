"""What a process that was killed leaves behind, and what breaks later: swept up, read again, or told."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ff_bench import files, prefixes, records, runs, score_command
from ff_bench.analysis import asking, drift_store, recording
from ff_bench.analysis.stationarity import Sampling
from ff_bench.challenge import examination
from ff_bench.commands import dispatch
from ff_bench.compose import compose
from ff_bench.config import RunConfig
from ff_bench.models.mini.backbone import Mini
from ff_bench.report import make
from tests.ff_bench.report.test_report_tables import pairs, rows_for
from tests.ff_bench.test_foreign import make as film
from tests.ff_bench.tiny import tiny_model

SHORT = ["length=12f", "steps=1", "device=cpu"]


@pytest.fixture
def leave() -> Callable[[Path], Path]:
    """Return what leaves a half-written file of a dead process beside a path."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()

    def leave(path: Path) -> Path:
        name = f".{path.stem}{files.TEMPORARY}-{files._machine()}-{process.pid}{path.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(name)
        part.write_bytes(b"half")
        return part

    return leave


def full(*words: str) -> RunConfig:
    return asking.full_cache([*SHORT, *words])


def refuse() -> Mini:
    raise AssertionError("nothing is to be generated")


def test_a_recording_sweeps_its_folder(clean: Path, leave: Callable[[Path], Path]) -> None:
    spec, choice = runs.videos(full("protocol.prefix=none"))[0], recording.Choice((0,), (0,))
    part = leave(recording.place(spec, choice) / "chunk-00000.safetensors")
    recording.record(tiny_model, spec, choice)
    assert not part.exists()


def test_a_prefix_sweeps_its_folder(clean: Path, leave: Callable[[Path], Path]) -> None:
    asked = compose([*SHORT, "protocol.prefix=first_lap", "budget=6f"]).config
    spec = runs.videos(asked)[0]
    part = leave(prefixes._folder(asked, spec, 12) / prefixes.FILE)
    assert prefixes.latents(tiny_model(), asked, [spec], 12) is not None
    assert not part.exists()


def test_a_report_sweeps_where_it_writes(tmp_path: Path, leave: Callable[[Path], Path]) -> None:
    rows = [row for policy in ("full", "h2o") for row in rows_for(policy, pairs(30.0, 31.0))]
    table, _ = records.write_tables(records.frame(rows), tmp_path / "made")
    parts = [leave(tmp_path / "index.html"), leave(tmp_path / "plots" / "drift.png")]
    mine = tmp_path / "notes" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("stays")
    make([table], tmp_path, ansi=False)
    assert not any(part.exists() for part in parts)
    assert mine.read_text() == "stays"


def test_scores_of_other_videos_sweep_their_folders(clean: Path, leave: Callable[[Path], Path]) -> None:
    film(clean / "theirs" / "a.mp4")
    words = ["theirs", "metrics=[flicker]", "stages=[score]", "device=cpu"]
    folder = score_command.read(words).videos[0].folder
    parts = [leave(folder / runs.ROWS), leave(folder.parent / "rows.csv")]
    assert score_command.run(words) == 0
    assert not any(part.exists() for part in parts)


def test_videos_that_were_measured_are_not_generated_again(
    clean: Path, leave: Callable[[Path], Path]
) -> None:
    sampling = Sampling(rows=8, lags=(1, 2), has_frechet=False)
    spec = runs.videos(full("protocol.prefix=none"))[0]
    path = drift_store.place(spec, sampling)
    part = leave(path)
    first = drift_store.measured(tiny_model, spec, sampling)
    assert not part.exists()
    pd.testing.assert_frame_equal(drift_store.measured(refuse, spec, sampling), first)
    path.write_bytes(path.read_bytes()[:-100])
    pd.testing.assert_frame_equal(drift_store.measured(tiny_model, spec, sampling), first)
    pd.testing.assert_frame_equal(drift_store.measured(refuse, spec, sampling), first)
    anew = runs.videos(full("protocol.prefix=none", "overwrite=true"))[0]
    with pytest.raises(AssertionError, match="nothing is to be generated"):
        drift_store.measured(refuse, anew, sampling)
    with pytest.raises(AssertionError, match="nothing is to be generated"):
        drift_store.measured(refuse, spec, Sampling(rows=8, lags=(1,), has_frechet=False))


def test_a_device_that_goes_while_recording_is_one_sentence(
    clean: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lose(*_: object) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr("ff_bench.analysis.recording.record", lose)
    words = [*SHORT, "protocol.prefix=none", "policies=[random]", "budgets=[6f]", "reference=false"]
    assert dispatch(["replay", *words]) == 1
    told = "failed: RuntimeError: CUDA error: unspecified launch failure Compile with TORCH_USE_CUDA_DSA\n"
    assert capsys.readouterr().err == told


def test_a_memory_that_ends_while_a_policy_is_made_is_no_mistake_of_the_user() -> None:
    here, there = multiprocessing.Pipe()
    there.send((examination.EXHAUSTED, "no memory"))
    with pytest.raises(MemoryError, match="no memory"):
        examination._await_ready(here, lambda: "", 1.0)
    here.close()
    there.close()
