from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ff_bench import __version__, cli, compose, config, shipped


def _run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ff_bench", *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **environment}
    )


def test_importing_the_command_line_imports_nothing_heavy() -> None:
    program = (
        "import sys, ff_bench.cli, ff_bench.commands; "
        "print(sorted({'torch', 'pandas', 'numpy', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ff-bench {__version__}\n"


def test_help_reads_like_help(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for word in (
        "Usage",
        "report RUNS",
        "doctor",
        "--dry-run",
        "policy: attention_sink, deep_forcing, dummy_forcing",
        "self_forcing",
        "stationarity",
        "replay",
        "verify model=NAME",
        "protocol: equal, published",
    ):
        assert word in out
    assert "model/base" not in out
    assert "$" not in out.replace('eval "$(ff-bench', "")
    assert list(clean.iterdir()) == []


def test_the_configuration_is_printed(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--cfg", "job", "policy=h2o", "budget=2k"]) == 0
    out = capsys.readouterr().out
    assert "name: h2o" in out
    assert "budget: 2k" in out
    assert list(clean.iterdir()) == []


def test_tab_completion_knows_fields_and_choices(clean: Path) -> None:
    done = _run("-sc", "install=bash")
    assert done.returncode == 0
    assert "complete" in done.stdout
    for line, word in (("ff-bench policy=fut", "policy=future_forcing"), ("ff-bench bud", "budget=")):
        done = _run("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
        assert word in done.stdout.split()
    assert list(clean.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("models", "mini"), ("policies", "future_forcing"), ("metrics", "cost"), ("prompts", "orbit"),
        ("experiments", ""), ("runs", "no runs"),
    ],
)  # fmt: skip
def test_lists(clean: Path, kind: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ls", kind]) == 0
    assert word in capsys.readouterr().out


def test_the_doctor_says_how_to_get_what_is_missing(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("python", "torch", "memory", "disk", "ffv1", "libx264", "mini weights", "vbench"):
        assert word in out
    for line in out.splitlines():
        words = line.split()
        assert "missing" not in words[1:3] or len(words) > 4, line


def test_flags_may_stand_anywhere(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["policy=h2o", "--cfg", "job", "budget=2k"]) == 0
    assert "budget: 2k" in capsys.readouterr().out


def test_run_may_be_named(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "policy=h2o", "--cfg", "job"]) == 0
    assert "name: h2o" in capsys.readouterr().out


def test_the_package_finds_its_configurations_without_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "ff_bench")
    assert config.conf_dir() == tmp_path / "ff_bench" / "conf"
    monkeypatch.undo()
    assert (config.conf_dir() / "config.yaml").is_file()
    assert compose.compose(["policy=h2o"]).config.policy.label == "h2o"


def test_the_wheel_carries_packages_and_configurations() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'packages = ["ff_bench", "policies"]' in text
    assert '"conf" = "ff_bench/conf"' in text
