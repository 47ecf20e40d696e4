"""A policy of the user's that goes wrong in a run: a failed row with a reason, and nothing else is harmed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ff_bench import cli, generate, records, runs
from tests.ff_bench.tiny import tiny_model

ORBIT = "orbit palette=3 speed=-4 sprite=disc hue=teal path=907"
WORDS = ("length=7s", "steps=1", "device=cpu", "budget=512", "save=[record]", "metrics=[flicker]")
POLICY = '''
from dataclasses import dataclass

import torch

from policies.base import Policy

CALLS = []


@dataclass
class Own(Policy):
    """A policy that goes wrong in its ninth chunk."""

    name = "{name}"

    def score(self, cache, step):
        good = cache.tokens.float()
        CALLS.append(step.chunk)
        if step.chunk < 8:
            return good
        {body}
'''
BODIES = {
    "raises": ("raise RuntimeError('out of ideas')", "out of ideas"),
    "reshapes": ("return good[:, :, 1:]", "score is torch.float32"),
    "retypes": ("return good.double()", "score is torch.float64"),
    "nothing": ("return None", ""),
    "no_number": ("return good * torch.nan", "scores of layer 0 are not finite in chunk 8"),
    "leaves": ("raise SystemExit(3)", "its policy called exit(3)"),
    "writes": ("cache.values.fill_(torch.nan); return good", "not finite in chunk"),
}


@pytest.mark.parametrize("name", sorted(BODIES))
def test_a_policy_that_goes_wrong_is_a_failed_row(
    name: str, clean: Path, weights: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model()
    monkeypatch.setattr(generate, "load_model", lambda *_: model)
    body, reason = BODIES[name]
    Path(f"{name}.py").write_text(POLICY.format(name=name, body=body))
    Path("some.txt").write_text(ORBIT + "\n")
    words = [*WORDS, "prompts=some.txt", f"policy={name}.py,random", "stages=[generate,score]", "-m"]
    assert cli.main(words) == cli.FAILED
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    assert reason in shown.out
    rows = records.table(sorted(path.parent for path in Path("runs").rglob(runs.ROWS)))
    own = rows[rows["policy"] == name]
    assert (
        list(own["metric"]) == ["error"] and list(own["status"]) == ["failed"] and own["value"].isna().all()
    )
    assert reason in own["reason"].iloc[0]
    others = rows[rows["policy"] == "random"]
    assert len(others) and (others["status"] == "ok").all()
    assert not list(Path("runs").rglob("*.part*"))
