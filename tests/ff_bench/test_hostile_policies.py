"""Files of policies that go wrong everywhere: one sentence before the run, or a failed row in it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from ff_bench import cli, generate, records, runs
from tests.ff_bench.tiny import tiny_model

ORBIT = "orbit palette=3 speed=-4 sprite=disc hue=teal path=907"
WORDS = ("length=7s", "steps=1", "device=cpu", "budget=512", "save=[record]", "metrics=[flicker]")
POLICY = """
from dataclasses import dataclass, field
import torch
from policies.base import Policy, Segment

@dataclass
class Own(Policy):
    name = "own"
    {body}
    def score(self, cache, step):
        return cache.tokens.float()
"""


def policy(body: str = "") -> str:
    return POLICY.format(body=body.replace("\n", "\n    "))


BEFORE = {
    "init": (policy("def __post_init__(self): raise KeyError('oops')"), "KeyError: 'oops' (init.py, line 9)"),
    "leaves": (policy("def __post_init__(self): raise SystemExit(3)"), "SystemExit: 3"),
    "checks": (policy("def check(self, protocol): raise RuntimeError('never')"), "RuntimeError: never"),
    "arguments": (policy("def __init__(self, a): pass"), "missing 1 required positional argument"),
    "imports": ("raise RuntimeError('no')", "cannot be imported: RuntimeError: no"),
    "exits": ("import sys; sys.exit(5)", "cannot be imported: SystemExit: 5"),
    "absent": ("import nothing_like_this", "No module named 'nothing_like_this'"),
    "syntax": ("class (", "SyntaxError"),
    "empty": ("", "defines 0 policy classes"),
    "two": (policy() + "@dataclass\nclass Second(Own):\n    name = 'second'\n", "defines 2 policy classes"),
    "plain": (policy().replace("@dataclass", ""), "is no dataclass"),
    "nameless": (policy().replace('name = "own"', ""), "its `name` is None"),
    "number": (policy().replace('"own"', "7"), "its `name` is 7"),
    "lines": (policy().replace('"own"', '"a\\nb"'), "its `name` is"),
    "pins": (policy("pins = 3"), "its `pins` is a int"),
    "pins_what": (policy("pins = {'sinks': 3}"), "its `pins` names 'sinks'; allowed: sink, recent"),
    "flag": (policy("is_full = torch.zeros(2)"), "its `is_full` is a Tensor"),
    "widest": (policy("widest_head = float('nan')"), "its `widest_head` is nan"),
    "state": (policy("slot_state = {'log_mass': float('nan')}"), "its `slot_state` holds 'log_mass': nan"),
    "factory": (policy("x: list = field(default_factory=lambda: 1 / 0)"), "'x' fails: ZeroDivisionError"),
    "infinite": (policy("x: float = float('inf')"), "its field 'x' is inf by default"),
    "objects": (policy("x: list = field(default_factory=lambda: [{'a': object()}])"), "'x' is a object"),
    "endless": (policy("x: list = field(default_factory=lambda: (lambda a: a.append(a) or a)([]))"), "end"),
    "selects": (policy("def select(self, scores, tokens): return None"), "overrides 'select'"),
    "scores": (policy("def checked_score(self, cache, step): return None"), "overrides 'checked_score'"),
}


@pytest.mark.parametrize("name", sorted(BEFORE))
def test_what_can_be_known_before_a_run_is_one_sentence(
    name: str, clean: Path, weights: None, capsys: pytest.CaptureFixture[str]
) -> None:
    text, told = BEFORE[name]
    Path(f"{name}.py").write_text(text)
    assert cli.main([f"policy={name}.py", "budget=1k", "length=7s", "device=cpu"]) == cli.USAGE
    shown = capsys.readouterr()
    assert told in shown.err
    assert shown.err.count("\n") == 1 and "Traceback" not in shown.err
    assert not Path("runs").exists()


HOOKS = {
    "tell": "self, prompts", "begin": "self", "plan": "self, caches", "observe": "self, cache, step",
    "fold": "self, caches, kept", "state_nbytes": "self",
    "view": "self, cache, *, first_frame, frames, commit",
}  # fmt: skip
WIDE = "widest_head = 2.0\ndef plan(self, caches): return torch.tensor([[600, 424]] * len(caches))\n"
DURING = {
    **{name: (f"def {name}({given}): raise KeyError('hook')", f"KeyError: 'hook' ({name}.py, line 9)")
       for name, given in HOOKS.items()},
    "words": ("def plan(self, caches): return 'x'", "plan is a str; allowed: whole numbers (2, 2)"),
    "halves": ("def plan(self, caches): return torch.full((2, 2), 9.5)", "plan is torch.float32 (2, 2)"),
    "debts": ("def plan(self, caches): return torch.tensor([[-5, 9], [9, 9]])", "a head -5 tokens"),
    "greed": ("def plan(self, caches): return torch.full((2, 2), 10**6)", "plan exceeds 512 tokens"),
    "twice": (WIDE + "def ranks(self, cache): return torch.zeros(1, 2, dtype=torch.int64)", "each rank once"),
    "shapes": (WIDE + "def ranks(self, cache): return torch.zeros(5)", "ranks are torch.float32 (5,) on cpu"),
    "beyond": ("def view(self, cache, **_): return [Segment(0, 10**6)]", "view names slots 0 to 1000000"),
    "nothing": ("def view(self, cache, **_): return []", "view names no slots"),
    "resizes": ("def observe(self, cache, step): cache.size = 5", "observe leaves 5 of 0 slots in layer 0"),
    "doubles": ("def observe(self, cache, step): cache.values.mul_(2)", "observe of layer 0 changed"),
    "steals": ("def observe(self, cache, step): step.keys.mul_(2)", "observe of layer 0 changed the cache"),
    "stuffs": (
        "def fold(self, caches, kept): [setattr(c, 'keep', lambda *_: None) for c in caches]",
        "holds 1536 tokens per head after chunk 7; allowed: 512",
    ),
    "absent": ("def observe(self, cache, step): raise GeneratorExit", "its policy raised GeneratorExit"),
    "moves": ("def observe(self, cache, step):\n    import os; os.chdir('/')", "FileNotFoundError"),
    "speechless": (
        "def begin(self):\n    class Odd(Exception):\n        def __str__(self): 1 / 0\n    raise Odd",
        "Odd: it cannot say why",
    ),
    "colours": ("def begin(self): raise ValueError('a\\x1b[31m\\nb')", "ValueError: a?[31m b"),
    "default": ("def begin(self):\n    torch.set_default_dtype(torch.float64); 1 / 0", "ZeroDivisionError"),
}  # fmt: skip


def test_what_goes_wrong_in_a_run_is_a_failed_row_each_and_harms_no_other(
    clean: Path, weights: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model()
    monkeypatch.setattr(generate, "load_model", lambda *_: model)
    for name, (body, _) in DURING.items():
        Path(f"{name}.py").write_text(policy(body))
    Path("some.txt").write_text(ORBIT + "\n")
    words = [*WORDS, "prompts=some.txt", "stages=[generate,score]", "-m"]
    assert cli.main([*words, "policy=random", "runs_dir=alone"]) == cli.OK
    capsys.readouterr()
    assert cli.main([*words, f"policy={','.join(f'{name}.py' for name in DURING)},random"]) == cli.FAILED
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err and "\x1b[31m" not in shown.out
    assert json.loads(shown.out.splitlines()[-1])["failed"] == len(DURING)
    rows = rows_of("runs")
    for name, (_, told) in DURING.items():
        own = rows[rows["policy"] == name]
        assert list(own["status"]) == ["failed"] and own["value"].isna().all(), name
        assert told in own["reason"].iloc[0], name
    one, other = (found[found["policy"] == "random"] for found in (rows, rows_of("alone")))
    assert records.strip_provenance(one).equals(records.strip_provenance(other))
    assert torch.get_default_dtype() == torch.float32 and Path(os.getcwd()) == clean


def rows_of(folder: str) -> object:
    return records.table(sorted(path.parent for path in Path(folder).rglob(runs.ROWS)))


def test_a_fold_that_writes_to_its_slots_changes_no_selection(
    clean: Path, weights: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    monkeypatch.setattr(generate, "load_model", lambda *_: model)
    Path("some.txt").write_text(ORBIT + "\n")
    digests = []
    for name, body in (("plain", "pass"), ("writes", "kept.zero_()")):
        Path(f"{name}.py").write_text(policy(f"def fold(self, caches, kept): {body}"))
        assert cli.main([*WORDS, "prompts=some.txt", f"policy={name}.py", "stages=[generate]"]) == cli.OK
        (folder,) = Path("runs").glob(f"mini/{name}-*/*/*/")
        found = runs.read_manifest(folder)
        assert found is not None
        digests.append(found.frames_sha256)
    assert digests[0] == digests[1]
