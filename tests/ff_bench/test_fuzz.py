"""Ten thousand odd inputs: each ends in a result or one sentence, none writes where it must not."""

from __future__ import annotations

import importlib
import logging
import warnings
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
INPUTS = 10_000


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("fuzz")


def test_odd_inputs_do_no_harm(fuzz: ModuleType, tmp_path: Path) -> None:
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # what decoders and parsers remark on broken files is not for users
            tallies = fuzz.campaign(INPUTS, 20261126, tmp_path)
    finally:
        logging.disable(logging.NOTSET)
    assert [found for tally in tallies.values() for found in tally.wrong] == []
    assert sum(tally.inputs for tally in tallies.values()) >= INPUTS
    assert not [path for path in tmp_path.rglob("hacked")]


def test_the_judge_sees_what_it_must(fuzz: ModuleType, tmp_path: Path) -> None:
    judge = importlib.import_module("fuzzing.judge")

    def crash(*_: object) -> None:
        raise KeyError("x")

    def two_lines(*_: object) -> None:
        raise judge.UsageError.__mro__[1]("one\ntwo")

    def stray(*_: object) -> None:
        (tmp_path / "home" / "stray").touch()

    targets = [
        judge.Target("crash", crash, 1),
        judge.Target("two lines", two_lines, 1, (ValueError,)),
        judge.Target("stray", stray, 1),
    ]
    tallies = fuzz.campaign(3, 0, tmp_path, targets)
    assert all(len(tally.wrong) == 1 for tally in tallies.values())
