"""What comes from outside: code in it does not run, its signs stay signs, secrets stay where they were."""

from __future__ import annotations

import ast
import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ff_bench import cli, masking, records
from ff_bench.errors import Unavailable, UsageError
from ff_bench.metrics.networks import checkpoints
from ff_bench.models.wan import containers
from ff_bench.report.tables import escape_latex

ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdef0123"


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("is_new", [True, False])
def test_a_file_of_weights_cannot_run_code(tmp_path: Path, is_new: bool) -> None:
    held = {"a": torch.zeros(2), "b": Bomb(tmp_path / "hacked")}
    torch.save(held, tmp_path / "file.pt", _use_new_zipfile_serialization=is_new)
    with pytest.raises(UsageError, match="wants to run code"):
        containers.opened(tmp_path / "file.pt")
    with pytest.raises(Unavailable, match="wants to run code") as told:
        checkpoints.read(tmp_path / "file.pt")
    assert str(told.value).isprintable()
    assert not (tmp_path / "hacked").exists()


class Inner(torch.nn.Module):
    """Parameters, a view, a buffer and a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(3, 4)
        self.turned = torch.nn.Parameter(torch.randn(2, 3).half().t())
        self.register_buffer("steps", torch.arange(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.lin(x)
        return made


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_archive_is_read_without_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = torch.nn.Sequential(Inner(), torch.nn.BatchNorm1d(4)).eval()
    torch.jit.save(torch.jit.trace(whole, torch.zeros(2, 3)), str(tmp_path / "made.pt"))
    monkeypatch.setattr(torch.jit, "load", None)
    found, held = checkpoints.read(tmp_path / "made.pt"), whole.state_dict()
    assert found.keys() == held.keys()
    for name, value in held.items():
        assert torch.equal(found[name], value.float() if value.is_floating_point() else value), name


def test_a_torchscript_archive_that_names_a_function_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
        archive.writestr("bad/data.pkl", pickle.dumps(Bomb(tmp_path / "hacked")))
        archive.writestr("bad/constants.pkl", b"")
    with pytest.raises(Unavailable, match="wants to run code"):
        checkpoints.read(tmp_path / "bad.pt")
    assert not (tmp_path / "hacked").exists()


def _calls() -> Iterator[tuple[str, ast.Call]]:
    for folder in ("ff_bench", "policies", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    yield ast.unparse(node.func), node


def test_weights_are_loaded_without_code_and_no_shell_is_asked() -> None:
    loads = 0
    for name, call in _calls():
        given = {word.arg: ast.unparse(word.value) for word in call.keywords}
        if name == "torch.load":
            loads += 1
            assert given.get("weights_only") == "True", ast.unparse(call)
        assert given.get("shell", "False") == "False", ast.unparse(call)
        assert name not in (
            "os.system",
            "os.popen",
            "eval",
            "exec",
            "torch.jit.load",
            "yaml.load",
            "pickle.loads",
            "yaml.unsafe_load",
        )
        assert name != "numpy.load" or given.get("allow_pickle", "False") == "False"
    assert loads > 3


@pytest.mark.parametrize(
    ("words", "masked"),
    [
        (["tracker.api_key=abc"], ["tracker.api_key=***"]),
        (["+tracker.token=abc", "seed=1"], ["+tracker.token=***", "seed=1"]),
        (["--token", "abc", "--dry-run"], ["--token", "***", "--dry-run"]),
        (["HF_TOKEN=abc"], ["HF_TOKEN=***"]),
        (["out=https://me:pass@host/x"], ["out=https://***@host/x"]),
        ([f"runs_dir=/x/{SECRET}"], ["runs_dir=/x/***"]),
        (["x=hf_abcdefghijklmnopqrst"], ["x=***"]),
        (["budget=8k", "policy.key=1c", "tokens=3"], ["budget=8k", "policy.key=***", "tokens=3"]),
    ],
)
def test_secrets_are_masked(words: list[str], masked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    assert masking.words(words) == masked


def test_a_manifest_and_a_reason_hold_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setattr("sys.argv", ["ff-bench", f"tracker.api_key={SECRET[:9]}", "policy=h2o", SECRET])
    told = json.dumps(records.environment("cpu"))
    assert SECRET[:9] not in told and "policy=h2o" in told
    assert SECRET not in masking.text(f"cannot reach https://host/?key={SECRET}")


def test_a_refusal_moves_no_cursor(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["budget='\x1b[2J\u202e8k'"]) == cli.USAGE
    told = capsys.readouterr().err
    assert told.rstrip("\n").isprintable()
    assert cli.main(["x" * 100_000]) == cli.USAGE
    assert len(capsys.readouterr().err) < 4000


def test_latex_reads_nothing_that_people_wrote() -> None:
    """Each of the ten signs that are commands is escaped; none is left as it was."""
    told = escape_latex("\\input{x} $a^b_c~ #1 & 100%")
    for sign in "{}$^_~#&%":
        at = [place for place, letter in enumerate(told) if letter == sign]
        assert all(
            told[place - 1] == "\\" or told[place : place + 2] == "{}" or told[place - 1 : place + 1] == "{}"
            for place in at
        )
    assert "\\input" not in told
