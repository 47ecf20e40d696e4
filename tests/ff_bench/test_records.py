from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ff_bench import records, row_cells, runs
from ff_bench.errors import UsageError


def _row(
    metric: str = "world.psnr", *, clip: int = -1, value: float | None = 1.0, **more: Any
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(records.COLUMNS, "") | dict.fromkeys(row_cells.NAMED, "x")
    numbers = {"schema": 1, "budget_tokens": None, "frames": 9, "seed": 0, "version": 1, "t0": 0.0, "t1": 1.0}
    return {
        **row,
        **numbers,
        "video_id": "v",
        "metric": metric,
        "clip": clip,
        "value": value,
        "status": "ok",
        **more,
    }


def test_a_torn_last_line_is_left_out_and_does_not_harm_the_next(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    records.append(path, [{"a": 1}, {"a": 2}])
    with path.open("a") as stream:
        stream.write('{"a": 3, "b"')
    assert records.read(path) == [{"a": 1}, {"a": 2}]
    records.append(path, [{"a": 4}])
    assert records.read(path) == [{"a": 1}, {"a": 2}, {"a": 4}]
    assert records.read(tmp_path / "nothing") == []


def test_not_a_number_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        records.append(tmp_path / "rows.jsonl", [_row(value=float("nan"))])


def test_a_metric_that_begins_again_replaces_its_rows(tmp_path: Path) -> None:
    path = tmp_path / runs.ROWS
    old = [
        {"begin": "world", "version": 1},
        _row("world.psnr"),
        _row("world.error", value=None),
        _row("cost.fps"),
    ]
    records.append(path, [*old, {"done": "world", "version": 1, "reference": ""}])
    assert {key: mark["reference"] for key, mark in records.marks_of(tmp_path).items()} == {("world", 1): ""}
    new = [{"begin": "world", "version": 1}, _row("world.psnr", value=2.0), _row("world.psnr", clip=0)]
    records.append(path, new)
    assert records.marks_of(tmp_path) == {}
    found = [(row["metric"], row["clip"], row["value"]) for row in records.rows_of(tmp_path)]
    assert found == [("cost.fps", -1, 1.0), ("world.psnr", -1, 2.0), ("world.psnr", 0, 1.0)]


def test_rows_of_another_schema_are_left_out(tmp_path: Path) -> None:
    records.append(tmp_path / runs.ROWS, [_row(), _row("world.other", schema=99)])
    assert len(records.rows_of(tmp_path)) == 1


def test_tables_come_back_equal(tmp_path: Path) -> None:
    rows = records.frame(
        [_row(value=0.1 + 0.2), _row("world.x", value=None, status="undefined", reason='why, "so"')]
    )
    parquet, csv = records.write_tables(rows, tmp_path / "out")
    for back in (pd.read_parquet(parquet), pd.read_csv(csv)):
        assert list(back.columns) == [*records.COLUMNS, *records.PROVENANCE]
        assert back["value"][0] == 0.1 + 0.2
        assert pd.isna(back["value"][1])
        assert back["reason"][1] == 'why, "so"'
    assert not list((tmp_path / "out").glob(".*"))


def test_an_empty_table_has_the_columns() -> None:
    assert list(records.table([]).columns) == [*records.COLUMNS, *records.PROVENANCE]


def test_strip_provenance_drops_cost_and_what_stands_behind(tmp_path: Path) -> None:
    rows = records.frame([_row("cost.fps"), _row("world.b"), _row("world.a", host="here")])
    kept = records.strip_provenance(rows)
    assert list(kept.columns) == list(records.COLUMNS)
    assert list(kept["metric"]) == ["world.a", "world.b"]


def test_the_environment_names_device_versions_and_code() -> None:
    found = records.environment("cpu")
    assert found["device"] == "cpu"
    assert found["hardware"]
    assert found["versions"]["torch"]
    assert found["code_version"].startswith("0.")
    json.dumps(found)


def test_rows_survive_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    program = (
        "import itertools, pathlib, sys; from ff_bench import records\n"
        "for n in itertools.count(): records.append(pathlib.Path(sys.argv[1]), [{'n': n, 'text': 'x' * 500}])"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(path)])
    while not path.is_file() or path.stat().st_size < 50_000:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    numbers = [item["n"] for item in records.read(path)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 50


@pytest.mark.parametrize("ending", records.TABLES)
def test_a_table_of_rows_reads_back(tmp_path: Path, ending: str) -> None:
    rows = records.frame([_row(), _row(clip=0, value=0.5)])
    written = {path.suffix: path for path in records.write_tables(rows, tmp_path)}
    found = records.read_table(written[ending])
    assert found["value"].tolist() == [1.0, 0.5]
    assert list(found.columns) == list(rows.columns)


def test_what_is_no_table_of_rows_is_a_sentence(tmp_path: Path) -> None:
    broken, other = tmp_path / "broken.parquet", tmp_path / "other.csv"
    broken.write_bytes(b"PAR1 nothing")
    other.write_text("a,b\n1,2\n")
    newer = tmp_path / "newer.csv"
    records.frame([_row(schema=99)]).to_csv(newer, index=False)
    for path, word in ((broken, "cannot be read"), (other, "no column"), (newer, "schema")):
        with pytest.raises(UsageError, match=word) as error:
            records.read_table(path)
        assert str(path) in str(error.value)
