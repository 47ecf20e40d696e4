"""Gaps, half-widths, spreads and verdicts on made-up tables, and what the command prints of the real ones."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ff_bench import audit, cli
from ff_bench.report import published
from ff_bench.report.published import Row, grains

SUBJECT, DYNAMIC = f"{audit.LONG}.subject_consistency", f"{audit.LONG}.dynamic_degree"
ROW = Row(
    "0000.00001", "Table 1", "30 s", "self_forcing", "native", 30.0, None, SUBJECT, "96.00", 0.96, "", 200,
    "a", "unknown", "",
)  # fmt: skip


def _row(value: float, **change: object) -> Row:
    return replace(ROW, value=value, printed=f"{100 * value:.2f}", **change)  # type: ignore[arg-type]


def _one(*rows: Row, evidence: list[Row] | None = None, assume: int = 128) -> audit.Finding:
    (finding,) = audit.audit(rows, evidence=[*rows, *(evidence or [])], assume=assume)
    return finding


def test_the_gap_is_to_the_best_other_cell_of_the_block() -> None:
    rows = [
        _row(0.960), _row(0.972, method="h2o", mark="bold"), _row(0.965, method="random"),
        _row(0.971, method="other", block="60 s", seconds=60.0),
    ]  # fmt: skip
    finding = _one(*rows)
    assert finding.runner_up.method == "random"
    assert finding.gap == pytest.approx(0.007)


def test_lower_is_better_where_it_is() -> None:
    metric = "fidelity.lpips"
    rows = [_row(0.20, metric=metric), _row(0.15, metric=metric, method="h2o", mark="bold")]
    assert _one(*rows).gap == pytest.approx(0.05)


@pytest.mark.parametrize("prompts", [20, 128, 200, 800])
def test_half_widths_shrink_with_the_root_of_the_prompts(prompts: int) -> None:
    low, high = audit.HALF_WIDTHS[SUBJECT]
    found = audit.half_width(_row(0.96), _row(0.95), prompts)
    assert found == pytest.approx((low * math.sqrt(200 / prompts), high * math.sqrt(200 / prompts)))


def test_the_binomial_range_is_that_of_independent_and_of_equal_clips() -> None:
    low, high = audit.dynamic_range(0.5, 0.5, 100, 15)
    assert high == pytest.approx(stats.norm.ppf(0.975) * math.sqrt(0.5 / 100))
    assert high / low == pytest.approx(math.sqrt(15))
    assert audit.dynamic_range(0.0, 1.0, 100, 15) == (0.0, 0.0)
    generator = np.random.default_rng(0)
    drawn = generator.binomial(1500, 0.4, 4000) / 1500 - generator.binomial(1500, 0.6, 4000) / 1500
    low, _ = audit.dynamic_range(0.4, 0.6, 100, 15)
    assert np.quantile(abs(drawn + 0.2), 0.95) == pytest.approx(low, rel=0.05)


def test_the_spread_is_over_the_native_rule_of_several_papers() -> None:
    rows = [
        _row(0.9645), _row(0.9682, paper="0000.00002"), _row(0.9699, paper="0000.00003"),
        _row(0.5, paper="0000.00002", method="h2o"), _row(0.5, paper="0000.00002", model="longlive"),
    ]  # fmt: skip
    assert audit.spread(rows, "self_forcing") == audit.Spread(0.0054, 3, 3)
    assert audit.spread(rows, "longlive") is None
    assert audit.spread(rows[:1], "self_forcing") is None


def test_the_spread_of_a_minute_of_self_forcing_as_published() -> None:
    rows = [row for row in published.load() if (row.metric, row.seconds) == (SUBJECT, 60.0)]
    assert audit.spread(rows, "self_forcing") == audit.Spread(0.0054, 4, 4)


def test_one_configuration_printed_twice_is_a_spread_too() -> None:
    twice = [
        _row(0.97, method="future_forcing(lam=0.5)", table="Table 2"),
        _row(0.96, method="future_forcing(horizon=6)", table="Table 3"),
        _row(0.90, method="future_forcing(lam=0.1)", table="Table 2"),
        _row(0.80, method="future_forcing", table="Table 4", n_prompts=None),
    ]
    ((first, second),) = audit.repeated(twice)
    assert (first.value, second.value) == (0.97, 0.96)
    rows = [_row(0.960, block="a"), _row(0.968, method="h2o", mark="bold", block="a")]
    finding = _one(*rows, evidence=twice)
    assert finding.spread == audit.Spread(0.01, 2, 1)
    assert finding.verdict == audit.INSIDE


@pytest.mark.parametrize(
    ("gap", "other", "expected"),
    [
        (0.010, 0.958, audit.SURVIVES),  # above 0.003 and above the spread of 0.002
        (0.010, 0.940, audit.INSIDE),  # above 0.003, below the spread of 0.020
        (0.0004, None, audit.INSIDE),  # below 0.0005
        (0.002, None, audit.UNTESTABLE),  # between 0.0005 and 0.003
        (0.004, None, audit.SURVIVES),
        (0.0, None, audit.INSIDE),
        (-0.01, None, audit.INSIDE),  # bold, yet not the best
    ],
)
def test_verdicts(gap: float, other: float | None, expected: str) -> None:
    rows = [_row(0.96), _row(0.96 + gap, method="h2o", mark="bold")]
    evidence = [] if other is None else [_row(other, paper="0000.00002")]
    assert _one(*rows, evidence=evidence).verdict == expected


def test_without_a_known_interval_nothing_is_testable_but_a_tie() -> None:
    metric = "fidelity.psnr"
    rows = [_row(18.0, metric=metric), _row(19.0, metric=metric, method="h2o", mark="bold")]
    assert (_one(*rows).by_n, _one(*rows).verdict) == ("unknown", audit.UNTESTABLE)
    tied = [rows[0], replace(rows[1], value=18.0)]
    assert _one(*tied).verdict == audit.INSIDE


def test_prompts_are_stated_then_inferred_then_assumed() -> None:
    rows = [_row(0.96), _row(0.97, method="h2o", mark="bold")]
    assert (_one(*rows).prompts, _one(*rows).known) == (200, "stated")
    silent = [replace(row, n_prompts=None) for row in rows]
    assert (_one(*silent).prompts, _one(*silent).known) == (128, "assumed")
    assert _one(*silent, assume=50).prompts == 50
    counts = (101, 117, 33, 64, 91, 140, 209, 260)  # of 20 prompts x 15 clips
    moving = [
        _row(count / 300, metric=DYNAMIC, method=f"m{count}", n_prompts=None, block="") for count in counts
    ]
    found = _one(*silent, evidence=moving)
    assert (found.prompts, found.known) == (20, "inferred")


def test_clips_of_two_seconds_and_whole_videos() -> None:
    assert grains.clip_count(_row(0.5, metric=DYNAMIC)) == 15
    assert grains.clip_count(_row(0.5, metric="vbench.dynamic_degree", seconds=5.0)) == 1


def test_printed_quality_follows_from_its_columns() -> None:
    found = audit.recompute(published.load())
    recency = [one for one in found if one.row.paper == "2609.19729"]
    assert len(recency) == 8
    assert max(abs(one.deviation) for one in found) < audit.TOLERANCE
    spoiled = [
        replace(row, value=row.value + 0.002) if row.metric.endswith(".quality") else row
        for row in published.load()
        if row.paper == "2609.19729"
    ]
    assert all(one.deviation == pytest.approx(-0.002, abs=1e-4) for one in audit.recompute(spoiled))


def test_the_command_prints_tables_assumptions_and_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "cells.csv", tmp_path / "cells.md"]
    assert cli.main(["audit-published", f"--csv={files[0]}", "--markdown", str(files[1])]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    counts = json.loads(last)
    assert max(map(len, lines)) <= 120
    assert counts["bold"] == sum(counts[verdict] for verdict in audit.VERDICTS)
    text = "\n".join(lines)
    for word in ("128 assumed", "1003 inferred", "binomial", "No p-values", "25 of 25 lines", "Table 7"):
        assert word in text
    with files[0].open(newline="", encoding="utf-8") as stream:
        cells = list(csv.DictReader(stream))
    assert len(cells) == counts["bold"]
    assert files[1].read_text(encoding="utf-8").count("## ") >= 10


def test_the_command_takes_papers_and_another_assumption(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit-published", "2605.30083", "--assume-n=1000"]) == 0
    text = capsys.readouterr().out
    assert "1000 assumed" in text
    assert "Pyramid" not in text
    assert cli.main(["audit-published", "kv_quantisation"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["bold"] == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["future_forcin"], "did you mean 'future_forcing'"), (["--cvs=x"], "did you mean '--csv'"),
        (["--csv"], "needs a value"), (["--csv=nowhere/x.csv"], "in a folder that is there"),
        (["--assume-n=0"], "above 0"), (["--assume-n=many"], "above 0"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_ends_with_one_sentence(
    clean: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["audit-published", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1
