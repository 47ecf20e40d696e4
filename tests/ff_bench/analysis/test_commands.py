"""Both commands from words to files, and every wrong word as a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from ff_bench.analysis import drift_text
from ff_bench.commands import dispatch
from ff_bench.errors import UsageError
from ff_bench.files import Locked

SHORT = ["length=18f", "steps=1", "protocol.prefix=none", "device=cpu"]


def test_stationarity_writes_rows_and_a_figure(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["stationarity", *SHORT, "lags=1,2", "rows=24"]) == 0
    printed = capsys.readouterr().out
    told = json.loads(printed.splitlines()[-1])
    rows = pd.read_parquet(told["rows"])
    assert Path(told["figure"]).is_file()
    assert set(rows["rotation"]) == {"before", "after"}
    lags = rows[(rows["versus"] == "lag") & (rows["quantity"] == "w1")]
    assert len(lags) == 2 * 2 * 6 * 4 * 64  # rotations, lags, layers, heads, channels
    assert drift_text.PAPER in printed
    assert set(told["drift"]["W1, all channels, lag 1"]) == {"before", "after"}


def test_replay_writes_rows_and_figures_and_records_once(
    clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["replay", *SHORT, "policies=[random,sliding_window,h2o]", "budgets=[7f]", "layers=0,5"]
    words += ["heads=1", "stride=4"]
    assert dispatch(words) == 0
    first = capsys.readouterr().out
    assert "1 videos × 0.002 GB" in first and "1 to be made" in first
    assert dispatch(words) == 0
    again = capsys.readouterr().out
    assert "0 to be made" in again
    told = [json.loads(text.splitlines()[-1]) for text in (first, again)]
    assert told[0]["error"] == told[1]["error"]
    rows = pd.read_parquet(told[0]["rows"])
    assert set(rows["layer"]) == {0, 5} and set(rows["head"]) == {1}
    assert all(Path(path).is_file() for path in told[0]["figures"])
    errors = told[0]["error"]["448"]
    assert min(errors, key=lambda name: errors[name]) == "greedy_error"


def test_too_large_a_recording_is_refused_before_anything_is_made(clean: Path) -> None:
    with pytest.raises(UsageError, match=r"max_gb=0.01 is not enough: .* or allow more by max_gb=1"):
        dispatch(["replay", *SHORT, "budgets=[7f]", "max_gb=0.01"])
    assert not (clean / "runs").exists()


def test_a_video_that_another_process_records_is_a_sentence(
    clean: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise Locked("another process works on it")

    monkeypatch.setattr("ff_bench.analysis.recording.record", refuse)
    assert dispatch(["replay", *SHORT, "policies=[random]", "budgets=[7f]", "reference=false"]) == 1
    assert capsys.readouterr().err.startswith("failed: another process works on it")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["stationarity", "--loud"], "stationarity takes no --loud"),
        (["stationarity", "policy=h2o"], "policy=h2o is not allowed: stationarity generates with the full"),
        (["stationarity", "lags=0"], "lags=0 is not allowed: lags must be all, a..b or a list"),
        (["stationarity", "lags=9..3"], "lags=9..3 is not allowed"),
        (["stationarity", *SHORT, "lags=9"], "lags=9 is not allowed: lags must be below the 6 chunks"),
        (["stationarity", "unit=second"], "unit=second is not known: allowed are chunk, frame"),
        (["stationarity", "rows=1", "rows=2"], "rows is given twice"),
        (["stationarity", "lenght=18f"], "did you mean 'length'"),
        (["replay", "budget=1k"], "budget=1k is not allowed: replay generates with the full cache"),
        (["replay", "policies=[h2p]"], "h2p"),
        (["replay", "policies=[h2o,]"], "policies=.h2o,. is not allowed"),
        (["replay", "policies=[h2o,h2o]"], "a list without repeats"),
        (["replay", "policies=[full]"], "it keeps everything"),
        (["replay", "policies=[recompute]"], "not recorded"),
        (["replay", "policies=[future_forcing:merge]"], "NAME:FIELD=VALUE"),
        (["replay", "policies=[future_forcing:lam=2]"], "policy.lam is 2"),
        (["replay", "layers=6"], "layers=6 is not allowed: .* from 0 to 5"),
        (["replay", "heads=4"], "heads=4 is not allowed"),
        (["replay", "max_gb=much"], "max_gb=much is not allowed"),
        (["replay", "noisy=0", "protocol.passes=all"], "noisy=0 is not allowed"),
        (["replay", "rows=absent.parquet"], "rows=absent.parquet is not allowed"),
        (["replay", "reference=maybe"], "reference=maybe is not known"),
    ],
)
def test_a_wrong_word_is_a_sentence(words: list[str], sentence: str, clean: Path) -> None:
    with pytest.raises(UsageError, match=sentence):
        dispatch(words)
    assert not (clean / "runs").exists()
