"""Vote files that are not what the blind page wrote: one sentence, exit code 2, nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_votes import write_votes

from ff_bench import cli
from ff_bench.errors import UsageError
from ff_bench.report import read_rows
from ff_bench.report.summary import summarise
from ff_bench.report.trials import Key, Trial, key_name
from ff_bench.report.votes import preferences, read
from ff_bench.report.winrates import tables

KEY = Key((Trial("t1", "a", "b", 1024),))


def edited(path: Path, **changes: object) -> Path:
    """Write a good vote file and change some of its fields."""
    write_votes(path, KEY, {"t1": "tie"})
    content = json.loads(path.read_text())
    path.write_text(
        json.dumps({name: value for name, value in {**content, **changes}.items() if value != ""})
    )
    return path


ONE = {"trial": "t1", "choice": "left", "ms": 1}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"votes": [ONE]}, "cut or edited"),
        ({"votes": [ONE, ONE]}, "cut or edited"),
        ({"votes": [{**ONE, "choice": "both"}]}, "cut or edited"),
        ({"votes": [{**ONE, "choice": ["left"]}]}, "cut or edited"),
        ({"votes": [{**ONE, "ms": True}]}, "cut or edited"),
        ({"votes": {"t1": "left"}}, "cut or edited"),
        ({"voter": "somebody"}, "cut or edited"),
        ({"voter": "a" * 12}, "cut or edited"),
        ({"assignment": "../../x"}, "cut or edited"),
        ({"checksum": 7}, "cut or edited"),
        ({"checksum": ""}, "cut or edited"),
        ({"more": 1}, "cut or edited"),
        ({"format": "something"}, "no file that the blind page exported"),
        ({"version": 2}, "version 2"),
    ],
)
def test_edited_files_are_one_sentence(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    path = edited(tmp_path / "v.json", **changes)
    with pytest.raises(UsageError, match=told) as error:
        read([path])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "no", "[1]", "null", '"x"', "[" * 100_000, "\0"])
def test_files_that_are_no_votes_are_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "v.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"votes=.*v\.json"):
        read([path])


def test_votes_without_their_key_or_videos_are_one_sentence(run_folder: Path, tmp_path: Path) -> None:
    path = write_votes(tmp_path / "v.json", KEY, {"t1": "left"})
    with pytest.raises(UsageError, match="of another comparison"):
        preferences(read([path]), [run_folder])
    (tmp_path / KEY.file_name).write_text(KEY.text.replace('"a"', '"c"'))
    with pytest.raises(UsageError, match="of another comparison"):  # a key that was changed is none
        preferences(read([path]), [])
    assert key_name(KEY.digest) == KEY.file_name
    (tmp_path / KEY.file_name).write_text(KEY.text)
    with pytest.raises(UsageError, match="not among RUNS"):
        tables(summarise(read_rows([run_folder])), [path], [])
    with pytest.raises(UsageError, match="has no pair 't2'"):
        preferences(read([write_votes(tmp_path / "p.json", KEY, {"t2": "left"})]), [])


def test_the_same_voter_counts_once(tmp_path: Path) -> None:
    paths = [write_votes(tmp_path / f"{name}.json", KEY, {"t1": "left"}) for name in "ab"]
    with pytest.raises(UsageError, match="the same voter"):
        read(paths)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("blind=maybe", ["blind=maybe", "true, false or a number"]),
        ("blind=0", ["blind=0"]),
        ("blind=10001", ["blind=10001", "10000"]),
        ("blind=²", ["blind=²"]),
        ("votes=nowhere.json", ["votes=nowhere.json", "not there"]),
        ("votes=", ["votes=", "not there"]),
        ("vote=x", ["vote", "votes"]),
        ("votes={wrong}", ["votes=", "cut or edited"]),
    ],
)
def test_wrong_words_are_exit_code_2_and_write_nothing(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], told: list[str], word: str
) -> None:
    wrong = edited(tmp_path / "v.json", voter="a" * 12)
    assert cli.main(["report", str(run_folder), f"out={tmp_path / 'out'}", word.format(wrong=wrong)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(part in error for part in told), error
    assert not (tmp_path / "out").exists()
