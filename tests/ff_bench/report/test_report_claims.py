"""What tables claim: marks, families, the floor of full_eps, margins, second best, notes."""

from __future__ import annotations

import io
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ff_bench import metrics, records, report_options
from ff_bench.errors import UsageError
from ff_bench.report import make
from ff_bench.report.columns import columns_of
from ff_bench.report.comparison import Table
from ff_bench.report.frame import to_frame
from ff_bench.report.latex import to_latex
from ff_bench.report.margins import MARGINS, margin_of, parse
from ff_bench.report.pairing import floor_of
from ff_bench.report.summary import HEADLINE, summarise
from ff_bench.report.tables import cell_text, to_markdown, to_terminal
from tests.ff_bench.report.test_report_tables import cell_of, line_of, rows_for, tables_of

COUNT = 16


def videos(shift: float, spread: float, *, seed: int = 0) -> dict[tuple[str, int], float]:
    """16 prompts of different difficulty; a policy is apart from it by its shift and its own noise."""
    hard = np.random.default_rng(99).normal(30, 5, COUNT)
    noise = np.random.default_rng(seed).normal(shift, spread, COUNT)
    return {(f"p{i:02}", 0): float(hard[i] + noise[i]) for i in range(COUNT)}


FULL = rows_for("full", videos(0, 0))
EPS = rows_for("full_eps", videos(0, 0.05, seed=1), budget_tokens=None)
POLICIES = {
    "h2o": videos(2, 0.5, seed=2),
    "random": videos(-2, 0.5, seed=3),
    "streaming_llm": videos(0.1, 0.2, seed=4),
    "sliding_window": videos(0.8, 3, seed=7),
    "attention_sink": videos(0.01, 0.02, seed=6),
}
ROWS = [FULL, EPS, *(rows_for(name, values) for name, values in POLICIES.items())]


@pytest.fixture(scope="module")
def table() -> Table:
    (found,) = tables_of(*ROWS)
    return found


def text_of(table: Table, label: str) -> str:
    return cell_text(cell_of(table, label), table.columns[0])


def test_marks_say_the_verdict(table: Table) -> None:
    marks = {"h2o": "⁺", "random": "⁻", "streaming_llm": "⁼", "attention_sink": "°", "full_eps": "°"}
    for label, mark in marks.items():
        assert text_of(table, label).endswith(mark), label
    assert text_of(table, "sliding_window")[-1].isdigit()
    text = to_terminal(table, ansi=False)
    for word in (
        "⁺ better, ⁻ worse than full",
        "⁼ equivalent",
        "° on average no further",
        "margins: 0.5 dB",
        "settle",
    ):
        assert word in text


def test_the_family_is_one_metric_under_one_budget_without_full_eps(table: Table) -> None:
    claims = {line.label: line.cells["world.revisit_psnr"].contrast for line in table.lines}
    best, eps = claims["h2o"], claims["full_eps"]
    assert best is not None and eps is not None
    assert best.p_holm == pytest.approx(best.p * len(POLICIES))
    assert eps.p_holm == eps.p
    small = [rows_for(name, values, budget_tokens=512) for name, values in POLICIES.items()]
    (wider,) = tables_of(*ROWS, *small)
    for line in wider.lines:
        if line.label == "h2o":
            contrast = line.cells["world.revisit_psnr"].contrast
            assert contrast is not None
            assert contrast.p_holm == pytest.approx(contrast.p * len(POLICIES))


def test_a_difference_within_the_spread_of_full_eps_is_grey(table: Table) -> None:
    gaps = [abs(value - FULL[i]["value"]) for i, value in enumerate(row["value"] for row in EPS)]
    assert floor_of(table.lines, "world.revisit_psnr") == pytest.approx(np.quantile(gaps, 0.95))
    assert math.isnan(floor_of(table.lines[:1], "world.revisit_psnr"))
    assert r"\textcolor{gray}" in to_latex([table])
    assert "\033[2m" in to_terminal(table, ansi=True).split("mean ±")[0]


def test_best_is_bold_and_second_underlined(table: Table) -> None:
    second = [line.label for line in table.lines if line.cells["world.revisit_psnr"].is_second]
    order = sorted(POLICIES, key=lambda name: -np.mean([*POLICIES[name].values()]))
    assert second == [order[1]]
    assert f"<ins>{text_of(table, order[1])}</ins>" in to_markdown([table])
    assert r"\underline{" in to_latex([table])
    assert "\033[4m" in to_terminal(table, ansi=True)
    assert f"{text_of(table, order[1])}'" in to_terminal(table, ansi=False)
    (two,) = tables_of(FULL, *(rows_for(name, POLICIES[name]) for name in ("h2o", "random")))
    assert not any(line.cells["world.revisit_psnr"].is_second for line in two.lines)


def test_the_csv_holds_every_number_of_a_claim(table: Table) -> None:
    again = pd.read_csv(io.StringIO(to_frame([table]).to_csv(index=False))).set_index("label")
    names = ["p", "p_holm", "effect", "win_rate", "n_needed", "resolvable", "margin", "floor"]
    assert again.loc["h2o", names].notna().all()
    assert again["verdict"].fillna("").to_dict() == {
        "full": "", "full_eps": "equivalent", "h2o": "better", "random": "worse",
        "streaming_llm": "equivalent", "sliding_window": "not distinguishable",
        "attention_sink": "equivalent",
    }  # fmt: skip
    assert again.loc["h2o", "win_rate"] == 1
    assert again.loc["sliding_window", "n_needed"] > COUNT


def test_costs_make_no_claim() -> None:
    speeds = [rows_for(name, videos(0, 1), metric="cost.fps", unit="fps") for name in ("full", "h2o")]
    (found,) = tables_of(FULL, rows_for("h2o", POLICIES["h2o"]), *speeds)
    assert line_of(found, "h2o").cells["cost.fps"].contrast is None


def test_what_the_baseline_has_no_number_of_keeps_its_own_interval() -> None:
    near = rows_for("h2o", videos(0, 1), metric="fidelity.psnr")
    (found,) = summarise(records.frame([*FULL, *near]), headline=("world.revisit_psnr", "fidelity.psnr"))
    cell = line_of(found, "h2o").cells["fidelity.psnr"]
    assert cell.paired is None
    assert not cell_text(cell, found.columns[1]).endswith("–")
    assert any("as full has no value: fidelity.psnr" in note for note in found.notes)


def test_few_prompts_are_told_to_decide_nothing() -> None:
    few = {pair: value for pair, value in list(POLICIES["h2o"].items())[:5]}
    (found,) = tables_of(FULL, rows_for("h2o", few))
    assert any("no difference can be significant with fewer than 6" in note for note in found.notes)


def test_margins_are_overridden_by_the_closest_name() -> None:
    measure = metrics.measure("world.revisit_psnr")
    assert measure is not None
    own = parse("0.1,dB:0.2,world.*:0.3,world.revisit_psnr:0.4")
    assert margin_of("world.revisit_psnr", measure, own) == 0.4
    assert margin_of("world.revisit_psnr_last", measure, own) in (0.2, 0.3)
    assert margin_of("world.revisit_psnr", measure, parse("0.1")) == 0.1
    assert margin_of("world.revisit_psnr", measure) == 0.5
    assert math.isnan(margin_of("cost.fps", measure, parse("0.1")))
    (wide,) = tables_of(*ROWS, margins={"dB": 3.0})
    assert text_of(wide, "h2o").endswith("⁼")


@pytest.mark.parametrize("text", ["x", "0", "-1", "dB:", ":1", "nan", "inf", "dB:0.3,"])
def test_bad_margins_are_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="margin"):
        parse(text)


def test_every_shown_metric_but_costs_has_a_margin() -> None:
    for family in metrics.names():
        for name, measure in metrics.load(family).measures.items():
            if measure.unit in ("dB", "1", "s", "px") and family != "cost":
                assert margin_of(name, measure) > 0, name
    assert all(margin > 0 or math.isnan(margin) for margin in MARGINS.values())


def test_columns_by_name_and_pattern() -> None:
    rows = records.frame([*FULL, *rows_for("h2o", POLICIES["h2o"], metric="world.memory")])
    assert columns_of(rows, ["world.memory"]) == ["world.memory"]
    assert columns_of(rows, ["world.*"]) == ["world.memory", "world.revisit_psnr"]
    with pytest.raises(UsageError, match=r"metrics=world.memry is not known.*did you mean 'world.memory'"):
        columns_of(rows, ["world.memry"])


def test_options_of_the_command() -> None:
    asked = report_options.read({"metrics": "world.memory, drift.*", "margin": "dB:0.3"}, is_blind=False)
    assert asked.columns == ("world.memory", "drift.*")
    assert asked.margins == {"dB": 0.3}


def test_a_baseline_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    path = records.write_tables(records.frame([*FULL]), tmp_path)[1]
    with pytest.raises(UsageError, match="baseline=ful2 is not known: allowed are full"):
        make([path], tmp_path / "out", baseline="ful2")


def lost(metric: str, reason: str) -> list[dict[str, Any]]:
    rows = rows_for("h2o", {("p00", 0): 0.0}, metric=metric, status="unavailable", reason=reason)
    return [{**row, "value": None} for row in rows]


def test_absent_metrics_take_one_line_per_reason() -> None:
    names = ("subject_consistency", "background_consistency", "quality", "semantic", "total")
    reasons = (
        "no weights a",
        "score between clips: no weights a",
        *(f"parts are missing: {i}" for i in "xyz"),
    )
    rows = [row for name, reason in zip(names, reasons, strict=True)
            for row in lost(f"vbench_long.compat.{name}", reason)]  # fmt: skip
    found = summarise(records.frame([*FULL, *rows]), headline=HEADLINE)
    notes = [note for table in found for note in table.notes if note.startswith("unavailable")]
    assert notes == [
        "unavailable: vbench_long.compat subject_consistency, background_consistency (no weights a)",
        "unavailable: vbench_long.compat quality, semantic, total (parts are missing)",
    ]


def test_latex_is_well_formed(table: Table) -> None:
    text = to_latex([table, table])
    assert text.count(r"\begin{") == text.count(r"\end{")
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{rule}") == 2
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert {line.count(" & ") for line in body} == {2 + len(table.columns)}
    assert "n = 16 videos of 16 prompts" in text
    assert text.isascii()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles(table: Table, tmp_path: Path) -> None:
    packages = r"\usepackage{booktabs,graphicx,xcolor}"
    document = rf"\documentclass{{article}}{packages}\begin{{document}}{to_latex([table])}\end{{document}}"
    (tmp_path / "t.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
