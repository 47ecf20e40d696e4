"""Numbers that cannot lie: what is not finite, was edited or stands for two things never becomes a mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import policies
from ff_bench import records, runs, seals
from ff_bench.errors import UsageError
from ff_bench.report.notes import _dead
from ff_bench.report.reading import read_rows
from ff_bench.rollout import Take, rollout
from policies.base import Budget, Protocol
from policies.context import Context
from policies.soundness import Soundness
from tests.ff_bench.metrics.tiny import random_frames, video_of, whole_values
from tests.ff_bench.tiny import PROMPTS, tiny_model

FAMILY = {"begin": "flicker", "version": 1}


def row(**more: Any) -> dict[str, Any]:
    """Return a sound row."""
    plain: dict[str, Any] = dict.fromkeys((*records.COLUMNS, *records.PROVENANCE), "x")
    numbers = {
        "schema": 1,
        "version": 1,
        "clip": -1,
        "t0": 0.0,
        "t1": 1.0,
        "value": 0.5,
        "seed": 0,
        "frames": 8,
    }
    names = {"video_id": "v", "metric": "flicker.mean", "status": "ok", "reason": "", "budget_tokens": 8}
    return {**plain, **numbers, **names, "frames_sha256": "", "device": "cpu", **more}


def sealed(folder: Path, *rows: dict[str, Any]) -> None:
    """Write rows of one metric as the score stage does."""
    end = {"done": "flicker", "version": 1, "seal": seals.seal(rows, records.COLUMNS)}
    records.append(folder / runs.ROWS, [FAMILY, *rows, end])


# -- while a video is made ---------------------------------------------------------------------------------


def test_a_sum_is_finite_where_every_summand_is() -> None:
    sound = Soundness()
    sound.note("keys", 0, torch.full((2, 3, 5), 1e4, dtype=torch.float16))
    sound.note_scores(0, torch.tensor([[[1.0, -torch.inf, torch.inf]]] * 2))
    assert sound.fault() is None
    broken = torch.zeros(2, 3, 5, dtype=torch.float16)
    broken[1, 2, 4] = torch.inf
    sound.note("values", 3, broken)
    fault = sound.fault()
    assert fault is not None and (fault.what, fault.layer, fault.videos) == ("values", 3, (1,))
    sound.clear()
    assert sound.fault() is None


@pytest.mark.parametrize("layer", [0, 1])
def test_a_score_that_is_no_number_stops_the_video_with_its_place(
    layer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, policy = tiny_model(), policies.load("knorm")()
    own = type(policy).score

    def score(self: Any, cache: Any, step: Any) -> torch.Tensor:
        made: torch.Tensor = own(self, cache, step)
        return made * torch.nan if cache.layer == layer and step.chunk == 2 else made

    monkeypatch.setattr(type(policy), "score", score)
    context = Context(
        policy, model.shape, Budget(256, 0, 192), Protocol(), capacity_tokens=18 * model.shape.frame_tokens
    )
    told = rf"^scores of layer {layer} are not finite in chunk 2 under policy 'knorm': 'orbit .*' seed 0$"
    done = []
    with pytest.raises(FloatingPointError, match=told):
        done += [chunk.number for chunk in _rolled(model, context, done)]
    assert done == [0, 1]


def _rolled(model: Any, context: Context, done: list[int]) -> list[Any]:
    for chunk in rollout(model, context, Take(PROMPTS[:1], (0,), 18, 1)):
        done.append(chunk.number)
    return []


# -- rows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"value": float("nan")}, {"value": float("inf")}, {"value": None}, {"value": "0.5"}, {"value": True},
        {"status": "fine"}, {"clip": "all"}, {"metric": 3}, {"policy": ["a"]}, {"t0": "x"}, {"schema": 2},
    ],
)  # fmt: skip
def test_a_line_that_is_no_row_is_left_out(tmp_path: Path, wrong: dict[str, Any]) -> None:
    lines = [json.dumps(row(metric="flicker.other")), json.dumps(row(**wrong))]
    (tmp_path / runs.ROWS).write_text("\n".join(lines) + "\n")
    assert [found["metric"] for found in records.rows_of(tmp_path)] == ["flicker.other"]


def test_an_edited_number_is_told_and_scored_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sealed(tmp_path, row(), row(metric="flicker.max", value=0.9))
    assert records.marks_of(tmp_path) and all(found["status"] == "ok" for found in records.rows_of(tmp_path))
    path = tmp_path / runs.ROWS
    path.write_text(path.read_text().replace("0.9", "0.1"))
    assert not records.marks_of(tmp_path)  # so that the next run scores it
    found = records.rows_of(tmp_path)
    assert [(one["value"], one["status"], one["reason"]) for one in found] == [
        (None, "failed", seals.EDITED)
    ] * 2
    assert seals.EDITED in caplog.text


def test_a_row_that_was_taken_away_is_missed(tmp_path: Path) -> None:
    sealed(tmp_path, row(), row(metric="flicker.max"))
    path = tmp_path / runs.ROWS
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "flicker.max" not in line))
    assert not records.marks_of(tmp_path)


def test_names_may_change_while_numbers_stay(tmp_path: Path) -> None:
    sealed(tmp_path, row())
    path = tmp_path / runs.ROWS
    path.write_text(path.read_text().replace('"prompt_set": "x"', '"prompt_set": "y"'))
    assert records.marks_of(tmp_path) and records.rows_of(tmp_path)[0]["prompt_set"] == "y"


# -- reports -------------------------------------------------------------------------------------------------


def test_rows_of_another_video_have_no_number(tmp_path: Path) -> None:
    identity = {"seed": 1}
    manifest = runs.Manifest(
        runs.short_hash(identity), identity, "a", 8, 2, 0, 8.0, "f" * 64, 1.0, None, {}, {}, "", ""
    )
    runs.write_manifest(tmp_path, manifest)
    records.append(
        tmp_path / runs.ROWS,
        [
            row(video_id="other"),
            row(video_id=manifest.video_id, frames_sha256="f" * 64, metric="flicker.max"),
        ],
    )
    found = read_rows([tmp_path]).set_index("metric")
    assert dict(found["status"]) == {"flicker.mean": "failed", "flicker.max": "ok"}
    assert found["value"].isna()["flicker.mean"]


def test_equal_numbers_count_once_and_different_ones_are_refused(tmp_path: Path) -> None:
    for name, cost in (("a", 1.0), ("b", 2.0)):
        records.append(tmp_path / name / runs.ROWS, [row(), row(metric="cost.fps", value=cost)])
    assert len(read_rows([tmp_path])) == 2
    records.append(tmp_path / "c" / runs.ROWS, [row(value=0.25)])
    with pytest.raises(UsageError, match=r"video v has two values of flicker.mean, 0.25 and 0.5"):
        read_rows([tmp_path])


def test_two_videos_in_one_place_are_refused(tmp_path: Path) -> None:
    records.append(tmp_path / "a" / runs.ROWS, [row()])
    records.append(tmp_path / "b" / runs.ROWS, [row(video_id="w", protocol="published")])
    assert len(read_rows([tmp_path])) == 2
    records.append(tmp_path / "c" / runs.ROWS, [row(video_id="u")])
    with pytest.raises(UsageError, match="videos u and v both stand for policy x"):
        read_rows([tmp_path])


@pytest.mark.parametrize("value", ["nan", "inf", "1e999", "", "x"])
def test_a_table_with_a_value_that_is_none_is_refused(tmp_path: Path, value: str) -> None:
    made = records.frame([row()]).astype({"value": object})
    made["value"] = value
    made.to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(UsageError, match=r"finite number|has a value"):
        records.read_table(tmp_path / "rows.csv")


# -- videos that show nothing ------------------------------------------------------------------------------


def test_black_and_still_frames_are_counted() -> None:
    frames = random_frames(200)
    frames[50:] = 0
    found = whole_values("guards", video_of(frames))
    assert found["guards.black"].value == pytest.approx(0.75)
    assert found["guards.still"].value == pytest.approx(149 / 199)
    fine = whole_values("guards", video_of(random_frames(200)))
    assert (fine["guards.black"].value, fine["guards.still"].value) == (0.0, 0.0)
    rows = records.frame(
        [row(metric=name, value=found[name].value, policy="h2o") for name in ("guards.black", "guards.still")]
    )
    assert list(_dead(rows)) == [
        f"h2o: 1 videos {what} in half of their frames or more" for what in ("are black", "stand still")
    ]
    assert np.isfinite(rows["value"]).all()
