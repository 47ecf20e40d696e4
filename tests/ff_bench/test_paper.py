"""Experiments that follow a paper's tables: they run what the paper printed, and say what they are not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from ff_bench import records
from ff_bench.compose import Sweep, expand
from ff_bench.config import conf_dir
from ff_bench.metrics.base import WHOLE
from ff_bench.report.published import load
from ff_bench.report.published.methods import parts
from ff_bench.report.style import paper_style
from scripts import paper_mini, paper_tables

PAPER = "2605.30083"
EXPERIMENTS = sorted((conf_dir() / "experiment").glob("*_*.yaml"))
OURS = [path for path in EXPERIMENTS if path.stem.startswith(("ff_", "mini_"))]
SUBJECT = "vbench_long.compat.subject_consistency"
DYNAMIC = "vbench_long.compat.dynamic_degree"


def _expand(name: str) -> Sweep:
    """Expand an experiment; a set that has to be fetched is stood in for by one that ships."""
    words = [f"+experiment={name}"]
    text = (conf_dir() / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    words += ["prompts=scenes"] if "prompts: moviegen" in text else []
    words += ["subset=4"] if "subset: 20" in text else []
    return expand(words, multirun=False)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_experiments_open_with_their_command_and_expand(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["# @package _global_", lines[1]]
    assert lines[1].startswith(f"# ff-bench +experiment={path.stem}")
    sweep = _expand(path.stem)
    assert sweep.is_multirun
    assert len(sweep.jobs) > 1


def test_table_1_has_the_budgets_and_lengths_of_the_paper() -> None:
    printed = {
        (row.model, row.seconds, row.budget_frames)
        for row in load()
        if row.paper == PAPER and row.table == "Table 1" and row.method == "future_forcing"
    }
    ours = set()
    for name in ("ff_table1_self_causal", "ff_table1_rolling", "ff_table1_reward"):
        for job in _expand(name).jobs:
            config = job.config
            if config.policy.label == "future_forcing":
                frames = (config.budget.tokens or 0) / config.facts.frame_tokens
                ours.add((config.model.name, config.length.frames / config.facts.fps, frames))
    assert ours == printed


def test_table_2_has_its_shares_of_the_window() -> None:
    shares = {
        round(100 * job.config.budget.tokens / job.config.facts.frame_tokens / 21, 2)
        for job in _expand("ff_table2").jobs
        if job.config.budget.tokens
    }
    assert shares == {28.57, 42.86}


@pytest.mark.parametrize(("name", "field"), [("4", "horizon"), ("5", "lam")])
def test_ablations_sweep_the_printed_values(name: str, field: str) -> None:
    named = (parts(row.method)[1] for row in load() if row.paper == PAPER)
    printed = {float(fields[field]) for fields in named if field in fields}
    for experiment in (f"ff_table{name}", f"mini_table{name}"):
        fields = {float(str(job.config.policy.fields[field])) for job in _expand(experiment).jobs}
        assert fields == printed


def _rows(values: Sequence[tuple[str, dict[str, object], str, float]], **common: object) -> pd.DataFrame:
    """Rows of one video per policy and prompt, as a run writes them."""
    made = []
    for policy, fields, metric, value in values:
        for prompt in ("one", "two"):
            row: dict[str, object] = dict.fromkeys((*records.COLUMNS, *records.PROVENANCE), "")
            row |= {
                "schema": records.SCHEMA, "video_id": f"{policy}{json.dumps(fields)}{prompt}",
                "model": "mini", "policy": policy, "policy_fields": json.dumps(fields), "protocol": "equal",
                "protocol_fields": "{}", "budget_tokens": None, "frames": 480, "fps": 16.0, "steps": 4,
                "batch": 1, "prompt_set": "scenes", "prompt_id": prompt, "prompt_text": prompt, "seed": 0,
                "metric": metric, "version": 1, "clip": WHOLE, "t0": 0.0, "t1": 30.0, "unit": "1",
                "value": value + (0.002 if prompt == "two" else 0.0), "status": "ok", "pinned": "[]",
                "checkpoint": "a", "device": "cpu", "dtype": "float32", "prompt_list_sha256": "b",
                **common,
            }  # fmt: skip
            made.append(row)
    return pd.DataFrame(made)


def test_ours_stand_beside_the_printed_numbers() -> None:
    values = [("native", {"rule": "roll21"}, SUBJECT, 0.9501), ("native", {"rule": "roll21"}, DYNAMIC, 0.5)]
    rows = _rows(values, model="self_forcing")
    theirs = paper_tables.published("future_forcing")
    table = paper_tables.frame([one for one in paper_tables.compared(rows, theirs) if one.pairs])
    found = table[table["metric"] == SUBJECT].iloc[0]
    assert (found["table"], found["theirs"], found["our_prompts"]) == ("Table 1", "96.01", 2)
    assert found["ours"] == pytest.approx(95.11)
    assert found["difference"] == pytest.approx(95.11 - 96.01)
    assert {"list", "n", "flag"} <= set(found["differs_in"].split())


def test_methods_that_are_no_policies_here_are_named() -> None:
    assert paper_tables.missing(paper_tables.published("future_forcing")) == []
    assert paper_tables.missing(paper_tables.published("recency_forcing")) == ["recency_forcing"]


def test_mini_tables_say_what_they_are() -> None:
    one = next(analogue for analogue in paper_mini.ANALOGUES if analogue.swept == "horizon")
    values = [
        ("future_forcing", {"horizon": horizon, "merge": merge}, "world.revisit_psnr", 20.0 + horizon)
        for merge in ("value", "none")
        for horizon in (12, 1, 6)
    ]
    (table,) = paper_mini.analogue_tables(one, _rows(values))
    assert table.title.startswith("Mini analogue of Tables 4 and 6")
    assert "no evidence about Wan" in table.notes[0]
    fields = [json.loads(line.fields) for line in table.lines]
    assert [(field["merge"], field["horizon"]) for field in fields] == [
        ("none", 1), ("none", 6), ("none", 12), ("value", 1), ("value", 6), ("value", 12)
    ]  # fmt: skip
    with paper_style():
        figure = paper_mini.ablation(table, one.swept)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["merge=none", "merge=value"]
