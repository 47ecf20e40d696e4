"""`challenge`: its plan, its verdict and its page, without generating more than a policy needs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ff_bench import challenge_command, records, report
from ff_bench.challenge import examination, front, plan, request, verdict
from ff_bench.cli import main
from ff_bench.errors import UsageError
from policies.checking import PROPERTIES, Result
from tests.ff_bench.report.test_report_tables import pairs, rows_for

DOCS = Path(__file__).parents[2] / "docs" / "policies.md"
ALL_PASS = [Result(one.name, "passed") for one in PROPERTIES]


@pytest.fixture
def example(tmp_path: Path) -> str:
    """Write the example of the docs to a file."""
    text = DOCS.read_text(encoding="utf-8")
    code = re.search(
        r"```python\n(from dataclasses.*?)```", text[text.index("A complete policy") :], re.DOTALL
    )
    assert code is not None
    path = tmp_path / "key_diff.py"
    path.write_text(code[1])
    return str(path)


def rows_of(gaps: dict[str, float], *, prompts: int, charged: dict[str, float] | None = None) -> pd.DataFrame:
    """Make rows of one checkpoint in which each policy stands a gap above the challenger's 20 dB."""
    noise = np.random.default_rng(0).normal(0, 0.05, (prompts, 8))
    rows = []
    for is_charged, means in ((False, gaps), (True, charged or {})):
        for column, (policy, gap) in enumerate(means.items()):
            for prompt in range(prompts):
                fields = json.dumps({"charge_state": is_charged, "prefix": "none", "noise": "own"})
                rows.append({
                    "model": "mini", "checkpoint": "c", "policy": policy, "policy_fields": "{}",
                    "protocol": "equal", "budget_tokens": None if policy == "full" else 1024, "frames": 240,
                    "prompt_set": "challenge", "prompt_id": f"{'orbit' if prompt % 2 else 'cut'}-{prompt}",
                    "seed": 0, "metric": verdict.METRIC, "version": 1, "clip": -1, "status": "ok",
                    "reason": "", "value": 20 + gap + noise[prompt, column], "protocol_fields": fields,
                    "pinned": "[]",
                    "prompt_list_sha256": "l", "fps": 16.0, "steps": 5, "dtype": "float32", "batch": 1,
                    "device": "cpu", "video_id": f"{policy}{prompt}{is_charged}", "code_version": "1",
                    "hardware": "h", "prompt_text": "p",
                })  # fmt: skip
    return pd.DataFrame(rows)


def test_the_sentence_names_who_is_beaten_and_by_how_much() -> None:
    gaps = {"mine": 0.0, "full": 5.0, "h2o": 0.0, "random": -3.0}
    (found,) = verdict.compare(rows_of(gaps, prompts=12), "mine")
    by_name = {row.name: row for row in found.rows}
    assert by_name["random"].difference == pytest.approx(3.0, abs=0.1)
    assert by_name["random"].verdict == "better"
    assert by_name["full"].verdict == "worse"
    assert by_name["h2o"].verdict == "equivalent"  # 0.05 dB of noise against a margin of 0.5 dB
    assert by_name["full"].tokens is None
    low, high = by_name["random"].low, by_name["random"].high
    assert low is not None and high is not None and low < 3.0 < high + 0.1 and high - low < 0.2
    told = verdict.sentence([found], "mine")
    assert re.search(r"better than random \(\+\d\.\d dB\), equivalent to h2o .*, worse than full \(-", told)
    assert told.count(".") - told.count(" dB") < 3 and told.endswith(".")


def test_few_prompts_give_numbers_and_no_judgement() -> None:
    found = verdict.compare(rows_of({"mine": 0.0, "random": -3.0}, prompts=3), "mine")
    assert "cannot be judged on mini (3 prompts" in verdict.sentence(found, "mine")


def test_noise_is_not_distinguishable_and_says_how_many_prompts_would_tell() -> None:
    rows = rows_of({"mine": 0.0, "random": 0.0}, prompts=10)
    is_random = rows["policy"] == "random"
    rows.loc[is_random, "value"] += np.random.default_rng(1).normal(0, 3, int(is_random.sum()))
    told = verdict.sentence(verdict.compare(rows, "mine"), "mine")
    assert re.search(r"not distinguishable from random \(\d+ prompts would tell 0.5 dB\)", told)


def test_equal_bytes_take_stateless_policies_as_they_are() -> None:
    gaps = {"mine": 0.0, "h2o": 0.0, "random": -3.0}
    found = verdict.compare(rows_of(gaps, prompts=12, charged={"h2o": -4.0}), "mine")
    assert [one.equal for one in found] == ["tokens", "bytes"]
    at_bytes = {row.name: row for row in found[1].rows}
    assert set(at_bytes) == {"mine", "h2o", "random"}
    assert at_bytes["h2o"].difference == pytest.approx(4.0, abs=0.1)
    assert "is at equal bytes (12 prompts on mini) better than h2o" in verdict.sentence(found, "mine")


def test_two_checkpoints_are_also_judged_together() -> None:
    one = rows_of({"mine": 0.0, "random": -3.0}, prompts=6)
    other = one.assign(model="mini_short", checkpoint="d", value=one["value"] - 2)
    found = verdict.compare(pd.concat([one, other], ignore_index=True), "mine")
    assert [part.model for part in found] == ["mini and mini_short", "mini", "mini_short"]
    assert [part.prompts for part in found] == [12, 6, 6]


def test_a_plan_takes_whole_steps_in_order(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "RIVALS", ("full", "random", "h2o"))
    asked = request.read([example, f"runs_dir={tmp_path}"])
    every = plan.steps(asked)
    assert [len({config.policy.label for config in step.configs}) for step in every[:5]] == [
        len(asked.rivals) + 1
    ] * 5
    assert [step.world for step in every[:5]] == ["orbit", "cut", "pendulum", "change", "occlusion"]
    assert all(len(config.chosen) == 1 for step in every for config in step.configs)
    charged = next(step for step in every if step.equal == plan.BYTES)
    assert [config.policy.label for config in charged.configs] == ["h2o"]
    half = plan.fit(every, sum(step.seconds for step in every[:3]) + 1)
    assert half == every[:3]
    assert plan.fit(every, 0.0) == every[:1] and plan.fit(every, 0.0, least=False) == []
    assert "left out" in plan.describe(asked, half, every)


def test_the_example_of_the_docs_passes(example: str) -> None:
    found = list(examination.examine([f"policy={example}"]))
    assert [one.status for one in found] == ["passed"] * len(PROPERTIES)


def test_a_policy_that_breaks_has_a_page_of_properties(
    tmp_path: Path, example: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [Result("says what it is", "passed"), Result("runs", "failed", "raises <b>KeyError</b>")]
    monkeypatch.setattr(examination, "examine", lambda _: iter(broken))
    assert main(["challenge", example, f"out={tmp_path / 'page'}", f"runs_dir={tmp_path}"]) == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert last["verdict"] in page.replace("&lt;", "<").replace("&gt;", ">")
    assert "raises &lt;b&gt;KeyError" in page and "<b>KeyError" not in page
    assert "a toy model, not evidence about Wan" in page


def test_a_challenger_without_a_row_is_no_mistake_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for policy in ("full", "random") for row in rows_for(policy, pairs(30.0, 31.0))]
    table, _ = records.write_tables(records.frame(rows), tmp_path)
    made = challenge_command.Made(results=ALL_PASS, steps=[plan.Step("mini", "tokens", "orbit-0", (), 0.0)])
    monkeypatch.setattr(records, "table", lambda _: pd.read_parquet(table))
    make = report.make
    monkeypatch.setattr(report, "make", lambda _, out, **words: make([table], out, **words))
    asked = request.read(["h2o", f"out={tmp_path / 'page'}"])
    page, told = challenge_command._write(asked, made.steps, made)
    assert told == "Nothing can be said of h2o: no video was scored."
    assert told in page.read_text(encoding="utf-8")


def test_the_front_shows_differences_with_their_intervals() -> None:
    found = verdict.compare(rows_of({"mine": 0.0, "random": -3.0}, prompts=12), "mine")
    page = front.render("mine", "It is.", ALL_PASS, found, left_out="nothing", figure=None)
    assert "mine minus it, dB" in page and re.search(r"<td>\[\+2\.\d\d, \+3\.\d\d\]</td>", page)
    assert page.count("<th>orbit</th>") == 1 and "20 passed" in page


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["h2o", "minutes=0"],
        ["h2o", "minutes=soon"],
        ["h2o", "workers=none"],
        ["full"],
        ["h2o", "model=mini"],
    ],
)
def test_a_wrong_command_line_is_one_sentence(words: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        challenge_command.run(words)
    assert "\n" not in str(error.value)


def test_a_file_named_as_a_rival_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rename the file"):
        request.read([str(tmp_path / "h2o.py")])
