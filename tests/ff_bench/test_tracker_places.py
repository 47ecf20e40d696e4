"""The places of trackers, read back: offline files of W&B, event files of TensorBoard."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ff_bench import cli, records, runs, video
from tests.conftest import FakeGenerate
from tests.ff_bench.told import SHORT, WITH_REPORT, draw_nothing, whole

has_wandb = pytest.mark.skipif(find_spec("wandb") is None, reason="the extra wandb is not installed")
has_tensorboard = pytest.mark.skipif(
    find_spec("tensorboard") is None, reason="the extra tensorboard is not installed"
)


def _wandb_records(path: Path) -> Iterator[Any]:
    """Read the records of an offline run: a log of LevelDB's kind with a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    place, parts = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


class Offline:
    """An offline run of W&B, read back."""

    def __init__(self, path: Path) -> None:
        every = list(_wandb_records(path))
        kinds = [record.WhichOneof("record_type") for record in every]
        self.folder = path.parent
        self.run = every[kinds.index("run")].run
        self.config = _items(self.run.config.update)
        pairs = list(zip(kinds, every, strict=True))
        self.history = [_items(one.history.item) for kind, one in pairs if kind == "history"]
        self.summary: dict[str, Any] = {}
        for kind, one in pairs:
            self.summary |= _items(one.summary.update) if kind == "summary" else {}

    def table(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(next(self.folder.glob(f"files/media/table/{name}*")).read_text())
        return found


@has_wandb
def test_offline_files_of_wandb_hold_the_run(
    fake: FakeGenerate, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    draw_nothing(monkeypatch)
    monkeypatch.setenv("WANDB_API_KEY", "5ecret" * 7)
    words = ["-m", "policy=h2o,full", "tracker=wandb", "tracker.mode=offline", "tracker.tags=[night]"]
    assert cli.main([*words, *SHORT[:4], "stages=[generate]"]) == 0
    folder = next(Path("runs/mini").glob("h2o-*/*/*/manifest.json")).parent
    video.write_video(folder / runs.VIDEO, np.zeros((8, 64, 64, 3), np.uint8), 16)  # the stand-in makes none
    assert cli.main([*words, *WITH_REPORT]) == 0
    assert "wandb sync runs/wandb/offline-run-*" in capfd.readouterr().out
    every = [Offline(path) for path in sorted(Path("runs/wandb").glob("offline-run-*/*.wandb"))]
    newest = {one.run.display_name.partition("-")[0]: one for one in every}  # each is complete by itself
    assert set(newest) == {"h2o", "full", "report"}
    assert len({one.run.run_group for one in every}) == 1
    assert len({one.run.run_id for one in every}) == 3  # a run that goes on has its id
    of_h2o = newest["h2o"]
    assert (of_h2o.run.job_type, list(of_h2o.run.tags), of_h2o.run.host) == ("policy", ["night"], "")
    assert of_h2o.config["identity"]["policy"] == {"name": "h2o", "fields": {}}
    assert of_h2o.config["baseline"]["job"] == newest["full"].run.run_id
    name, trace = folder.name.rpartition("-")[0], records.read(folder / runs.TRACE)
    points = [row for row in of_h2o.history if f"chunk/kv_bytes/{name}" in row]
    curve = [(row["chunk"], row[f"chunk/kv_bytes/{name}"]) for row in points]
    assert curve == [(chunk["chunk"], chunk["kv_bytes"]) for chunk in trace]
    fps = [row["value"] for row in whole("h2o") if row["metric"] == "cost.fps"]
    assert of_h2o.summary["cost/fps"] == pytest.approx(np.mean(fps))
    assert len(list(of_h2o.folder.glob(f"files/media/videos/video/{name}*.mp4"))) == 1
    assert len(of_h2o.table("scores")["data"]) == len(whole("h2o"))
    assert newest["report"].table("comparison")["data"] == [["h2o", 1.5], ["random", None]]
    assert list(newest["report"].folder.glob("files/media/images/figure/time*.png"))
    texts = [path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()]
    assert not any(b"5ecret5ecret" in text for text in texts)


@has_wandb
def test_no_key_means_offline_with_one_sentence(
    fake: FakeGenerate, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(Path.cwd()))
    monkeypatch.setenv("NETRC", str(Path("netrc").absolute()))
    assert cli.main(["policy=h2o", *SHORT[:4], "stages=[generate]", "tracker=wandb"]) == 0
    lines = [line for line in capfd.readouterr().err.splitlines() if "tracker=wandb" in line]
    assert len(lines) == 1
    assert "no API key" in lines[0]
    assert len(list(Path("runs/wandb").glob("offline-run-*"))) == 1


@has_tensorboard
def test_event_files_hold_curves_and_means(fake: FakeGenerate) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = ["policy=h2o", *SHORT, "tracker=tensorboard"]
    for _ in range(2):  # a second time nothing is new
        assert cli.main(words) == 0
    folder = next(Path("runs/tracker/tensorboard").glob("*/h2o-256-equal-*"))
    events = EventAccumulator(str(folder))
    events.Reload()
    source = next(Path("runs/mini").glob("h2o-*/*/*/manifest.json")).parent
    trace = records.read(source / runs.TRACE)
    curve = events.Scalars(f"chunk/kv_bytes/{source.name.rpartition('-')[0]}")
    assert [(event.step, event.value) for event in curve] == [
        (chunk["chunk"], chunk["kv_bytes"]) for chunk in trace
    ]
    fps = [row["value"] for row in whole("h2o") if row["metric"] == "cost.fps"]
    assert events.Scalars("mean/cost/fps")[-1].value == pytest.approx(np.mean(fps))
    assert {"config/text_summary", "scores/text_summary"} <= set(events.Tags()["tensors"])
