"""Tables from made-up rows: what is pooled, compared, marked and said."""

from __future__ import annotations

import io
import json
from typing import Any

import pandas as pd
import pytest

from ff_bench import records
from ff_bench.report.comparison import Cell, Line, Table
from ff_bench.report.frame import to_frame
from ff_bench.report.latex import to_latex
from ff_bench.report.plots import figures
from ff_bench.report.summary import summarise
from ff_bench.report.tables import cell_text, escape_latex, to_markdown, to_terminal

HEAD = ("world.revisit_psnr", "cost.fps")


def rows_for(policy: str, values: dict[tuple[str, int], float], **changes: Any) -> list[dict[str, Any]]:
    base: dict[str, Any] = {
        "schema": 1,
        "model": "mini",
        "checkpoint": "c",
        "policy": policy,
        "policy_fields": "{}",
        "protocol": "equal",
        "budget_tokens": None if policy == "full" else 1024,
        "frames": 960,
        "prompt_set": "orbit",
        "version": 1,
        "clip": -1,
        "t0": 0.0,
        "t1": 60.0,
        "unit": "dB",
        "status": "ok",
        "reason": "",
        "fps": 16,
        "steps": 5,
        "dtype": "float32",
        "batch": 1,
        "device": "cpu",
        "prompt_list_sha256": "l",
        "metric": "world.revisit_psnr",
        "code_version": "1",
        "protocol_fields": json.dumps(
            {"prefix": "none" if policy == "full" else "first_lap", "noise": "own"}
        ),
    }
    base |= changes
    ident = f"{policy}{base['budget_tokens']}{base['protocol']}{base['policy_fields']}"
    return [
        {**base, "prompt_id": prompt, "seed": seed, "value": value, "video_id": f"{ident}{prompt}{seed}"}
        for (prompt, seed), value in values.items()
    ]


def pairs(*values: float) -> dict[tuple[str, int], float]:
    return {(f"p{i}", 0): value for i, value in enumerate(values)}


def tables_of(*rows: list[dict[str, Any]], **options: Any) -> list[Table]:
    return summarise(records.frame(row for part in rows for row in part), headline=HEAD, **options)


def line_of(table: Table, label: str) -> Line:
    return next(line for line in table.lines if line.label == label)


def cell_of(table: Table, label: str) -> Cell:
    return line_of(table, label).cells["world.revisit_psnr"]


FULL = rows_for("full", pairs(36, 37, 38))
H2O = rows_for("h2o", pairs(35, 36, 37.5))
RANDOM = rows_for("random", pairs(30, 33, 34))


def test_mean_and_paired_interval_against_the_full_cache() -> None:
    (table,) = tables_of(FULL, H2O, RANDOM)
    assert [line.label for line in table.lines] == ["full", "random", "h2o"]
    cell = cell_of(table, "h2o")
    assert cell.mean is not None
    assert cell.paired is not None
    assert cell.mean.mean == pytest.approx(36.1667, abs=1e-3)
    assert cell.paired.mean == pytest.approx(-0.8333, abs=1e-3)
    assert cell.paired.low == pytest.approx(-1)
    assert cell.paired.high == pytest.approx(-0.5)
    assert cell_text(cell, table.columns[0]) == "36.17 ±0.25"
    assert cell_text(cell_of(table, "full"), table.columns[0]) == "37.00"
    assert cell.is_best
    assert not cell_of(table, "full").is_best


def test_another_baseline_is_taken_at_the_same_budget() -> None:
    small, large = rows_for("random", pairs(30, 33)), rows_for("random", pairs(33, 34), budget_tokens=2048)
    (table,) = tables_of(small, large, rows_for("h2o", pairs(35, 36), budget_tokens=2048), baseline="random")
    paired = cell_of(table, "h2o").paired
    assert paired is not None
    assert paired.mean == pytest.approx(2)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt_set": "cut"},
        {"prompt_list_sha256": "other"},
        {"protocol": "published"},
        {"frames": 384},
        {"model": "wan"},
        {"checkpoint": "d"},
        {"device": "cuda:0"},
        {"steps": 3},
        {"batch": 4},
    ],
)
def test_different_things_are_never_pooled(changes: dict[str, Any]) -> None:
    found = tables_of(H2O, rows_for("random", pairs(1, 2, 3), **changes))
    assert len(found) == 2
    assert all(len(table.lines) == 1 for table in found)


def test_full_cache_joins_every_protocol_with_its_kind_of_start() -> None:
    true_start = {
        "protocol": "equal+prefix=truth",
        "protocol_fields": json.dumps({"prefix": "truth", "noise": "own"}),
    }
    found = tables_of(FULL, H2O, rows_for("h2o", pairs(30, 31, 32), **true_start))
    assert [[line.policy for line in table.lines] for table in found] == [["full", "h2o"], ["h2o"]]


def test_devices_of_one_kind_are_pooled() -> None:
    (table,) = tables_of(
        rows_for("full", pairs(1, 2), device="cuda:0"), rows_for("h2o", pairs(1, 2), device="cuda:1")
    )
    assert len(table.lines) == 2


def test_bland_lines_are_marked_and_do_not_win() -> None:
    bland = rows_for("h2o", pairs(1, 1, 0), metric="guards.bland")
    (table,) = tables_of(FULL, H2O, RANDOM, rows_for("sliding_window", pairs(20, 21, 22)), bland)
    assert line_of(table, "h2o").is_bland
    assert not cell_of(table, "h2o").is_best
    assert cell_of(table, "random").is_best
    assert "h2o‡" in to_terminal(table, ansi=False)
    assert any("bland" in note for note in table.notes)


def test_pins_controls_counts_and_failures_are_told() -> None:
    window = rows_for("sliding_window", pairs(20, 21), pinned="sink")
    lost = rows_for(
        "sliding_window", {("p9", 0): 0.0}, metric="error", value=None, status="failed", reason="boom"
    )
    lost = [{**row, "value": None} for row in lost]
    (table,) = tables_of(H2O, window, lost)
    text = to_terminal(table, ansi=False)
    assert "sliding_window†" in text
    assert "sliding_window sink=0" in text
    assert "missing controls: random, full" in text
    assert "no video of the baseline full" in text
    assert "sliding_window: 1 videos failed (boom)" in text
    assert "2 of 3 videos have world.revisit_psnr" in text


def test_a_line_with_fewer_videos_does_not_win() -> None:
    (table,) = tables_of(FULL, H2O, RANDOM, rows_for("sliding_window", {("p0", 0): 99.0}))
    assert not cell_of(table, "sliding_window").is_best
    assert cell_of(table, "h2o").is_best
    assert any("different numbers of videos" in note for note in table.notes)


def test_one_pair_has_no_interval() -> None:
    (table,) = tables_of(rows_for("full", pairs(36)), rows_for("h2o", pairs(35)))
    assert cell_text(cell_of(table, "h2o"), table.columns[0]) == "35.00 ±–"


def test_no_common_pair_has_no_interval() -> None:
    (table,) = tables_of(rows_for("full", {("x", 0): 36.0}), H2O)
    assert cell_text(cell_of(table, "h2o"), table.columns[0]) == "36.17 ±–"


def test_variants_are_told_apart_by_their_fields() -> None:
    one = rows_for("h2o", pairs(1, 2), policy_fields='{"alpha":1,"beta":2}')
    two = rows_for("h2o", pairs(3, 4), policy_fields='{"alpha":1,"beta":3}')
    (table,) = tables_of(one, two)
    assert [line.label for line in table.lines] == ["h2o(beta=2)", "h2o(beta=3)"]


def test_native_names_its_rule() -> None:
    fields = '{"policy":"sliding_window","rule":"roll21"}'
    (table,) = tables_of(FULL, rows_for("native", pairs(1, 2, 3), policy_fields=fields, pinned="recent,sink"))
    line = line_of(table, "native (roll21)")
    assert line.policy == "native"
    assert any("native (roll21) those of the model's rule" in note for note in table.notes)


@pytest.mark.parametrize(
    ("model", "tokens", "told"),
    [
        ("mini", 1024, "1024 (16f, 7 % video, 27 % window)"),
        ("self_forcing", 28080, "28080 (18f, 7 % video, 86 % window)"),
        ("self_forcing+height=240+width=416", 7020, "7020 (18f, 7 % video, 86 % window)"),
        ("longlive+chunk_frames=1", 14040, "14040 (9f, 4 % video, 75 % window)"),
        ("of_somebody_else", 1024, "1024 tokens"),
    ],
)
def test_budgets_are_told_in_frames_where_the_model_is_known(model: str, tokens: int, told: str) -> None:
    (table,) = tables_of(rows_for("h2o", pairs(1, 2), model=model, budget_tokens=tokens))
    assert line_of(table, "h2o").budget == told
    assert figures(table) is not None


def test_older_versions_are_left_out() -> None:
    (table,) = tables_of(H2O, rows_for("h2o", pairs(1, 1, 1), version=2))
    mean = cell_of(table, "h2o").mean
    assert mean is not None
    assert mean.mean == 1


def test_undefined_is_a_dash_with_its_reason() -> None:
    undefined = [{**row, "value": None, "status": "undefined", "reason": "no return"} for row in RANDOM]
    (table,) = tables_of(FULL, H2O, undefined)
    assert cell_text(cell_of(table, "random"), table.columns[0]) == "–"
    assert any("no return" in note for note in table.notes)


def test_terminal_bold_or_star() -> None:
    (table,) = tables_of(FULL, H2O, RANDOM)
    assert "\033[1m" in to_terminal(table, ansi=True)
    plain = to_terminal(table, ansi=False)
    assert "\033" not in plain
    assert "36.17 ±0.25*" in plain
    for word in ("mini", "prompts orbit", "60 s", "protocol equal", "cpu", "1024 (16f)"):
        assert word in plain


def test_markdown_latex_and_csv() -> None:
    found = tables_of(FULL, H2O, RANDOM)
    markdown, latex = to_markdown(found), to_latex(found)
    assert "| **36.17 ±0.25** |" in markdown
    assert r"\textbf{36.17 $\pm$0.25}" in latex
    assert latex.count("{") == latex.count("}")
    assert "_" not in latex.replace(r"\_", "")
    again = pd.read_csv(io.StringIO(to_frame(found).to_csv(index=False)))
    row = again[again["policy"] == "h2o"].iloc[0]
    assert row["difference"] == pytest.approx(-0.8333, abs=1e-3)
    assert row["pairs"] == 3


def test_latex_escapes() -> None:
    assert escape_latex(r"a_b & 5 % {x} \y") == r"a\_b \& 5 \% \{x\} \textbackslash{}y"


def test_unknown_headline_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown"):
        summarise(records.frame(H2O), headline=("world.nonsense",))
