"""`check-policy` and the properties behind it: each fault of a policy is found, and told in one sentence."""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ff_bench.challenge import examination
from ff_bench.cli import main
from ff_bench.compose import compose, expand
from policies import checking
from policies.base import Pass, Policy
from policies.cache import LayerCache
from policies.keydiff import KeyDiff

FILE = """
from dataclasses import dataclass
from typing import ClassVar

from policies.base import Policy

{above}
@dataclass
class Mine(Policy):
    \"\"\"One.

    Source: none.
    Deviates: nothing.
    \"\"\"
    name: ClassVar[str] = "mine"
    source: ClassVar[str] = "none"
    {fields}

    def score(self, cache, step):
        {score}
"""
GOOD = "return cache.tokens.float()"
BY_NAME = {one.name: one for one in checking.PROPERTIES}


def written(folder: Path, *, above: str = "", fields: str = "", score: str = GOOD) -> str:
    path = folder / "mine.py"
    path.write_text(FILE.format(above=textwrap.dedent(above), fields=fields, score=score))
    return str(path)


class WrongShape(KeyDiff):
    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        return super().score(cache, step)[..., :-1]


class WrongDtype(KeyDiff):
    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        return super().score(cache, step).double()


class NoNumbers(KeyDiff):
    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        return super().score(cache, step) / 0 * 0


class Raises(KeyDiff):
    def observe(self, cache: LayerCache, step: Pass) -> None:
        raise RuntimeError("never mind")


class Writes(KeyDiff):
    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        cache.values.mul_(1.5)
        return super().score(cache, step)


class Draws(KeyDiff):
    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        return torch.rand(cache.tokens.shape)


class MixesVideos(KeyDiff):
    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        found = super().score(cache, step)
        return found + found.mean(0, keepdim=True).flip(-1)


class KnowsHeads(KeyDiff):
    def score(self, cache: LayerCache, step: Pass) -> Tensor:
        found = super().score(cache, step)
        return found * torch.tensor([1.0, -1.0])[:, None]


class HoldsTooMuch(KeyDiff):
    def plan(self, caches: object) -> Tensor:
        return torch.full((2, 2), 10**6)


class Secret(KeyDiff):
    __doc__ = "Keep it."


@dataclasses.dataclass
class OwnsRecent(KeyDiff):
    """Own.

    Source: none.
    Deviates: nothing.
    """

    recent: int = 3


class MergesUnasked(KeyDiff):
    def observe(self, cache: LayerCache, step: Pass) -> None:
        if cache.size:
            cache.keys[:, :, 0] = step.keys.mean(2)


class ChangesEarly(KeyDiff):
    def observe(self, cache: LayerCache, step: Pass) -> None:
        cache.staged_values[:, :, 0] = 0


FAULTS = [
    (WrongShape, "runs", r"score is torch.float32 .*; allowed: float32"),
    (WrongDtype, "runs", r"score is torch.float64"),
    (NoNumbers, "scores are numbers", "NaN in chunk"),
    (Raises, "runs", r"raises RuntimeError: never mind \(test_check_policy.py:\d+\)"),
    (Writes, "leaves the cache alone", "score changes values"),
    (Draws, "two runs are equal", "two runs differ"),
    (Draws, "leaves random numbers alone", "global generator"),
    (MixesVideos, "alone = in a batch", "keeps other slots than alone"),
    (KnowsHeads, "follows its heads", "heads in another order"),
    (HoldsTooMuch, "holds its budget", "plan exceeds"),
    (Secret, "says what it is", "no line `Source:`"),
    (OwnsRecent, "says what it is", "`recent` belongs to the protocol"),
    (MergesUnasked, "leaves the cache alone", "observe changes keys"),
    (MergesUnasked, "keys stand at their times", "do not stand"),
    (ChangesEarly, "budget of the video = full cache", "differs from the full cache's"),
]


@pytest.mark.parametrize(("policy", "name", "told"), FAULTS)
def test_every_fault_is_found(policy: type[Policy], name: str, told: str) -> None:
    found = checking.examine(checking.Subject.of(policy), BY_NAME[name])
    assert found.status == checking.FAILED
    assert re.search(told, found.reason), found.reason
    assert "\n" not in found.reason


def test_a_subject_follows_what_a_policy_pins() -> None:
    class Pinned(KeyDiff):
        pins = {"sink": "10f", "recent": "4f", "position": "contiguous"}  # noqa: RUF012

    subject = checking.Subject.of(Pinned)
    assert (subject.budget.sink, subject.budget.recent) == (80, 32)
    assert subject.budget.tokens == 80 + 32 + 24
    assert [protocol.position for protocol in subject.protocols()] == ["contiguous"]
    assert checking.examine(subject, BY_NAME["protects sink and recent"]).status == checking.PASSED


def test_the_command_examines_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = written(
        tmp_path, fields="weight: float = 1.0", score="print('hello'); return self.weight * cache.tokens"
    )
    assert main(["check-policy", path, "policy.weight=2.0"]) == 0
    lines = capfd.readouterr().out.splitlines()
    last = json.loads(lines[-1])
    assert last["passed"] + last.get("not applicable", 0) == len(checking.PROPERTIES)
    assert all(line.startswith(one.name) for line, one in zip(lines, checking.PROPERTIES, strict=False))


def test_a_policy_that_never_returns_is_stopped(tmp_path: Path) -> None:
    path = written(tmp_path, score="\n        while True: pass")
    found = list(examination.examine([f"policy={path}"], limit=0.5))
    assert len(found) == len(checking.PROPERTIES)
    assert [one.reason for one in found[1:3]] == ["does not return within 0.5 s, and was stopped"] * 2
    assert {one.reason for one in found[3:]} == {"not examined: the policy was stopped before"}


def test_a_policy_that_ends_its_process_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, above="import os", score="os._exit(3)")
    found = list(examination.examine([f"policy={path}"]))
    assert found[1].reason == "ends its process (exit code 3)"


WRONG = [
    ({"above": "def ("}, "cannot be imported: SyntaxError"),
    ({"above": "import nothing_here"}, "cannot be imported: ModuleNotFoundError"),
    ({"above": "class Other(Policy): pass"}, "defines 2 policy classes; allowed: exactly one"),
    ({"fields": "weight: float"}, "field 'weight' has no default"),
    ({"fields": "weight: object = print"}, "field 'weight' is a builtin_function_or_method by default"),
    ({"fields": "weight: float = 1.0"}, "policy.wieght"),
]


@pytest.mark.parametrize(("parts", "told"), WRONG)
def test_what_cannot_be_loaded_is_one_sentence(tmp_path: Path, parts: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as error:
        path = written(tmp_path, **parts)
        examination.make_of([f"policy={path}", *(["policy.wieght=1"] if "wieght" in told else [])])
    assert "\n" not in str(error.value)


def test_a_file_that_ends_the_process_is_one_sentence(tmp_path: Path) -> None:
    path = written(tmp_path, above="raise SystemExit(0)")
    with pytest.raises(ValueError, match="cannot be imported: SystemExit"):
        list(examination.examine([f"policy={path}"]))


@pytest.mark.parametrize(
    "words",
    [[], ["h2o", "random"], ["h2o", "budget=1k"], ["--all"], ["nothing.py"]],
)
def test_a_wrong_command_line_is_one_sentence(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check-policy", *words]) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_a_file_stands_in_a_sweep_and_in_the_printed_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, fields="weight: float = 1.0")
    jobs = expand([f"policy={path},h2o", "policy.wrap=[]", "budget=256", "length=1s"], multirun=True).jobs
    assert [job.config.policy.label for job in jobs] == ["mine", "h2o"]
    assert jobs[0].config.policy.fields == {"weight": 1.0}
    assert main([f"policy={path}", "policy.weight=2.5", "--cfg", "job"]) == 0
    assert "weight: 2.5" in capsys.readouterr().out


def test_a_file_named_as_a_shipped_policy_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "h2o.py"
    path.write_text(Path(written(tmp_path)).read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ValueError, match="rename the file"):
        compose([f"policy={path}"])
