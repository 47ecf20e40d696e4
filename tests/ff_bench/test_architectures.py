"""Rooms of models: found by name, without torch, those of installed packages too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ff_bench.compose import compose
from ff_bench.errors import UsageError
from ff_bench.models.facts import ARCHITECTURES, architecture, facts

pytestmark = pytest.mark.usefixtures("bare")


def test_architectures_without_torch_offer_what_the_harness_asks() -> None:
    for name in ARCHITECTURES:
        room = architecture(name)
        for word in ("read", "describe", "identity", "digests", "needs", "missing"):
            assert callable(getattr(room, word)), (name, word)
    with pytest.raises(UsageError, match=r"model.architecture=wam .*'wan'"):
        architecture("wam")
    with pytest.raises(UsageError, match=r"model=self_forcin .*'self_forcing'"):
        facts("self_forcin")


class Installed:
    """A foreign architecture as an installed package would offer it."""

    name = "foreign"

    @staticmethod
    def load() -> Any:
        return Installed

    @staticmethod
    def read(fields: Any) -> tuple[str, ...]:
        return tuple(fields)

    @staticmethod
    def describe(fields: Any) -> Any:
        return replace(facts("mini"), name=fields["name"], architecture="foreign", weights=())

    @staticmethod
    def identity(known: Any) -> dict[str, object]:
        return {"known": list(known)}

    @staticmethod
    def digests(known: Any, *, prompts: Any, dtype: str) -> dict[str, str]:
        return {"checkpoint": "1" * 64, "ear": f"{len(prompts)} {dtype}"}


def test_an_installed_architecture_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ff_bench.models.facts.entry_points", lambda group: [Installed])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "theirs.yaml").write_text("name: theirs\narchitecture: foreign\n")
    (tmp_path / "a.txt").write_text("one\n")
    words = ["model=theirs", "protocol.prefix=none", f"prompts={tmp_path / 'a.txt'}"]
    model = compose(words, config_dir=str(tmp_path)).config.model
    assert model.identity == {
        "name": "theirs", "fields": {"known": ["name", "architecture"]}, "checkpoint": "1" * 64,
        "ear": "1 float32",
    }  # fmt: skip
