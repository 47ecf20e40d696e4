"""Tables of rows and prompts that programs of others wrote: what is not clear is refused, not guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ff_bench import prompt_files, records
from ff_bench.errors import UsageError
from ff_bench.report.reading import read_rows
from tests.ff_bench.test_records import _row

Edit = Callable[[str], bytes]


def text(**changes: object) -> str:
    rows = [
        _row(video_id="0000000012", **changes),
        _row(video_id="0000000012", clip=0, value=0.25, **changes),
    ]
    return str(records.frame(rows).to_csv(index=False))


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        records.read_table(path)
    assert str(caught.value).isprintable()
    return str(caught.value)


WRONG: dict[str, tuple[Edit, str]] = {
    "utf16": (lambda x: x.encode("utf-16"), "cannot be read as a table"),
    "latin": (lambda x: x.replace(",x,", ",\xef,").encode("latin-1"), "cannot be read as a table"),
    "semicolons": (lambda x: x.replace(",", ";").encode(), "no column schema, cells are separated by commas"),
    "tabs": (lambda x: x.replace(",", "\t").encode(), "no column schema, cells are separated by commas"),
    "empty": (lambda x: b"", "no column schema"),
    "cut": (lambda x: x.encode()[:-30], "row 2 has"),
    "doubled": (lambda x: x.replace(",unit,", ",value,", 1).encode(), "no column unit"),
    "twice": (
        lambda x: x.replace("\n", ",1\n").replace(",1\n", ",value\n", 1).encode(),
        "it has two columns value",
    ),
    "nul": (lambda x: x.replace(",x,", ",\0,").encode(), "NUL"),
    "quote": (lambda x: x.encode() + b'"', "no CSV file"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(WRONG))
def test_a_csv_that_is_not_whole_is_refused(tmp_path: Path, name: str) -> None:
    edit, told = WRONG[name]
    (tmp_path / "rows.csv").write_bytes(edit(text()))
    assert told in refused(tmp_path / "rows.csv")


@pytest.mark.parametrize(
    "edit", [str.encode, lambda x: x.encode("utf-8-sig"), lambda x: x.replace("\n", "\r\n").encode()]
)
def test_marks_and_line_ends_change_nothing_and_words_stay_words(tmp_path: Path, edit: Edit) -> None:
    (tmp_path / "rows.csv").write_bytes(edit(text(policy="null", prompt_id="007")))
    found = records.read_table(tmp_path / "rows.csv")
    assert found["video_id"].tolist() == ["0000000012"] * 2
    assert set(found["policy"]) == {"null"} and set(found["prompt_id"]) == {"007"}
    assert found["value"].tolist() == [1.0, 0.25]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_parquet_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    whole, _ = records.write_tables(records.frame([_row()]), tmp_path)
    whole.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    assert "cannot be read as a table" in refused(whole)


CELLS = {
    "prompt_id": (None, "column prompt_id has cells without a word"),
    "policy": (3.5, "column policy has cells"), "seed": (None, "column seed holds what is no"),
    "frames": (3.5, "column frames holds what is no whole number"),
    "fps": ("fast", "column fps holds what is no finite number"), "version": (1e300, "no whole number"),
    "value": (float("inf"), "column value holds what is no finite number"), "schema": (2, "not of schema 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CELLS))
@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_a_cell_of_another_kind_is_named(tmp_path: Path, name: str, ending: str) -> None:
    value, told = CELLS[name]
    rows = records.frame([_row()]).astype({name: object})
    rows[name] = pd.Series([value], dtype=object if value is None else None)
    path = tmp_path / f"rows{ending}"
    rows.to_parquet(path) if ending == ".parquet" else rows.to_csv(path, index=False)
    if (name, ending) == ("policy", ".csv"):  # there `3.5` is a word
        assert set(records.read_table(path)["policy"]) == {"3.5"}
    else:
        assert told in refused(path)


def test_a_table_without_a_device_is_read(tmp_path: Path) -> None:
    rows = records.frame([_row(checkpoint="a", device=None)])
    records.write_tables(rows, tmp_path)
    assert len(read_rows([tmp_path / "rows.csv"])) == len(read_rows([tmp_path / "rows.parquet"])) == 1


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", b'{"prompt": "a \\ud800 b"}', "half a letter"),
        ("a.jsonl", b'{"prompt": "a \\u0000 b"}', "control characters"),
        ("a.csv", b"id,prompt\nx,a cat, which sat\n", "row 1 has more cells than the head has columns"),
        ("a.csv", b"id,prompt,prompt\nx,cat,dog\n", "two columns 'prompt'"),
        ("a.csv", b"id,prompt\nx," + b"y" * 10**6 + b"\n", "not a CSV file"),
        ("a.txt", "cat".encode("utf-16"), "cannot be read as UTF-8"),
    ],
)
def test_a_prompt_that_is_not_clear_is_refused(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=told):
        prompt_files.read(name, tmp_path / name)
