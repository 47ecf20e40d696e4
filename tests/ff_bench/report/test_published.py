"""The published numbers, and ours beside them."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from io import StringIO

import pandas as pd
import pytest

from ff_bench import metrics
from ff_bench.errors import UsageError
from ff_bench.report import beside, published
from ff_bench.report.comparison import Cell, Column, Line, Table
from ff_bench.report.published import COLUMNS, PAPERS, Row, grains, methods
from ff_bench.report.statistics import Interval

LONG = "vbench_long.compat"
LINE = {
    "paper": "0000.00000", "table": "Table 1", "block": "30 s", "model": "self_forcing", "method": "native",
    "seconds": "30", "budget_frames": "18", "metric": f"{LONG}.subject_consistency", "printed": "96.50",
    "value": "0.965", "mark": "", "n_prompts": "128", "prompt_list": "orbit", "clips": "fused", "note": "",
}  # fmt: skip


def _text(*changes: dict[str, str]) -> str:
    stream = StringIO()
    writer = csv.DictWriter(stream, COLUMNS)
    writer.writeheader()
    writer.writerows({**LINE, **change} for change in changes)
    return stream.getvalue()


def _rows(*changes: dict[str, str]) -> list[Row]:
    return published.read(_text(*changes), "made_up.csv")


def _cells(paper: str, table: str) -> list[Row]:
    return [row for row in published.load() if (row.paper, row.table) == (paper, table)]


def test_every_paper_has_its_file_and_no_cell_stands_twice() -> None:
    keys = Counter(row.key for row in published.load())
    assert len({row.paper for row in published.load()}) == len(PAPERS)
    assert max(keys.values()) == 1


def test_the_main_table_of_future_forcing_is_whole() -> None:
    rows = _cells("2605.30083", "Table 1")
    assert len(rows) == 4 * 3 * 7 * 2
    assert {row.seconds for row in rows} == {30.0, 60.0}
    assert set(Counter((row.model, row.method, row.seconds) for row in rows).values()) == {7}
    for rivals in published.blocks(rows).values():
        top = max(row.value for row in rivals)
        assert {row.method for row in rivals if row.mark == "bold"} == {
            row.method for row in rivals if row.value == top
        }


@pytest.mark.parametrize(
    ("table", "count"),
    [
        ("Table 2", 3 * (4 + 8 * 7)), ("Table 3", 3 * 9 * 2), ("Table 4", 35), ("Table 5", 35),
        ("Table 6", 35), ("Table 7", 35), ("Table 8", 5 * 2 * 3 * 2),
    ],
)  # fmt: skip
def test_the_other_tables_of_future_forcing_are_whole(table: str, count: int) -> None:
    assert len(_cells("2605.30083", table)) == count


def test_the_means_of_the_stationarity_table_are_those_printed() -> None:
    for kind in ("unrotated", "rotated"):
        metric = f"stationarity.w1_{kind}"
        values = [row.value for row in _cells("2605.30083", "Table 8") if row.metric == metric]
        (mean,) = (row.value for row in _cells("2605.30083", "Appendix G") if row.metric == metric)
        assert sum(values) / len(values) == pytest.approx(mean, abs=6e-4)


def test_models_and_policies_go_by_our_names_and_every_metric_is_known() -> None:
    models = {row.model for row in published.load()}
    assert {"self_forcing", "causal_forcing", "rolling_forcing", "reward_forcing", "longlive"} <= models
    for row in published.load():
        assert published.measure(row.metric) is not None
        assert row.value * published.scale(row.metric) == pytest.approx(
            float(row.printed) * (100 if float(row.printed) < 1.5 and row.metric.startswith("vbench") else 1)
        )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"metric": f"{LONG}.subject_consistence"}, "did you mean 'vbench_long.compat.subject_consistency'"),
        ({"value": "1.2", "printed": "120"}, "value=1.2 is not allowed"),
        ({"value": "nan"}, "value=nan is not allowed"),
        ({"value": "0.956"}, "is not printed=96.5"),
        ({"printed": "many"}, "printed=many is not allowed"),
        ({"mark": "strong"}, "allowed are"),
        ({"clips": "all"}, "allowed are"),
        ({"seconds": "-3"}, "above 0, or empty"),
        ({"n_prompts": "12.5"}, "a whole number"),
        ({"model": ""}, "model is empty"),
    ],
)
def test_a_wrong_line_is_refused_in_one_sentence(change: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        _rows({}, {"method": "h2o", **change})
    assert "made_up.csv line 3" in str(caught.value)
    assert told in str(caught.value)


def test_a_cell_that_stands_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="line 4: the same cell stands in line 2"):
        _rows({}, {"method": "h2o"}, {"printed": "96.60", "value": "0.966"})


def test_a_derived_mark_must_be_true() -> None:
    better = {"method": "h2o", "printed": "97.00", "value": "0.97"}
    assert [row.mark for row in _rows({}, {**better, "mark": "best"})] == ["", "best"]
    with pytest.raises(UsageError, match="is not the best"):
        _rows({"mark": "best"}, better)


def test_other_columns_are_refused() -> None:
    with pytest.raises(UsageError, match="columns must be paper, table"):
        published.read(_text({}).replace("budget_frames", "budget"), "made_up.csv")
    with pytest.raises(UsageError, match="must have 15 cells"):
        published.read(_text({}).rstrip() + ",more\n", "made_up.csv")


def test_methods_are_the_same_without_their_defaults() -> None:
    assert methods.parts("future_forcing(lam=0.1, horizon=3)") == (
        "future_forcing",
        {"lam": "0.1", "horizon": "3"},
    )
    assert methods.canonical("future_forcing(horizon=6)") == methods.canonical("future_forcing(lam=0.50)")
    assert methods.canonical("future_forcing(lam=0.1)") == "future_forcing(lam=0.1)"
    assert methods.canonical("deep_forcing") == "deep_forcing"


def test_the_number_of_prompts_follows_from_dynamic_degrees() -> None:
    moving = [f"{100 * count / 3000:.2f}" for count in (1201, 1577, 1802, 2003, 2219, 2751, 311)]
    fits, chance = grains.multiples(moving, 3000)
    assert fits == len(moving)
    assert chance == pytest.approx(0.3**7)
    found = {(grain.paper, grain.table): grain for grain in grains.grains(published.load())}
    ablations = [found["2605.30083", f"Table {number}"] for number in (4, 5, 6, 7)]
    assert {(grain.prompts, grain.clips) for grain in ablations} == {(20, 15)}
    assert found["2605.30083", "Table 3"].prompts == 1003
    assert found["2605.13111", "Table 1"].prompts == 128


@pytest.fixture
def ours() -> Table:
    """One table of `self_forcing` over 30 s with three lines of subject consistency."""
    column = Column(LINE["metric"], metrics.measure(LINE["metric"]))  # type: ignore[arg-type]

    def line(policy: str, fields: str, frames: int, mean: float) -> Line:
        cell = Cell(Interval(mean, mean - 0.002, mean + 0.002, 64, 64), pairs=64)
        tokens = frames * 1560
        return Line(policy, fields, policy, tokens, "", False, False, 64, 64, {column.metric: cell})

    key = {"model": "self_forcing", "prompt_set": "orbit", "frames": 480, "fps": 16}
    lines = [
        line("future_forcing", '{"lam": 0.5, "horizon": 6}', 18, 0.970),
        line("future_forcing", '{"lam": 0.1, "horizon": 6}', 18, 0.971),
        line("h2o", "{}", 9, 0.960),
    ]
    return Table("made up", key, "full", [column], lines, [], pd.DataFrame())


@pytest.fixture
def theirs() -> Callable[..., list[Row]]:
    return lambda **change: _rows({"method": "future_forcing", **change})


def test_equal_conditions_leave_no_caveat(ours: Table, theirs: Callable[..., list[Row]]) -> None:
    (match,) = beside.beside(ours, theirs(n_prompts="64")).pairs
    assert match.line.fields == '{"lam": 0.5, "horizon": 6}'
    assert match.difference == pytest.approx(0.005)
    assert match.caveats == ()


@pytest.mark.parametrize(
    ("change", "caveat"),
    [
        ({"n_prompts": ""}, "n"), ({"prompt_list": "MovieGen"}, "list"), ({"budget_frames": ""}, "budget"),
        ({"budget_frames": "9"}, "budget"), ({"clips": "unknown"}, "flag"), ({"clips": "in_clip"}, "flag"),
        ({"seconds": "29.8"}, "length"), ({"metric": "vbench.subject_consistency", "clips": ""}, "whole"),
    ],
)  # fmt: skip
def test_what_differs_is_said(
    ours: Table, theirs: Callable[..., list[Row]], change: dict[str, str], caveat: str
) -> None:
    found = beside.beside(ours, theirs(**{"n_prompts": "64", **change}))
    assert found.pairs[0].caveats == (caveat,)
    assert any(note.startswith(f"{caveat}: ") for note in beside.notes(found))


@pytest.mark.parametrize(
    "change", [{"model": "longlive"}, {"seconds": "60"}, {"method": "random"}, {"metric": f"{LONG}.quality"}]
)
def test_other_models_lengths_methods_and_metrics_do_not_match(
    ours: Table, theirs: Callable[..., list[Row]], change: dict[str, str]
) -> None:
    found = beside.beside(ours, theirs(**change))
    assert found.pairs == []
    assert "nothing is published" in beside.to_terminal(found)
    assert beside.to_markdown([found]) == ""


def test_a_variant_stands_beside_the_same_variant(ours: Table, theirs: Callable[..., list[Row]]) -> None:
    (match,) = beside.beside(ours, theirs(method="future_forcing(lam=0.1)")).pairs
    assert match.line.fields == '{"lam": 0.1, "horizon": 6}'


def test_all_three_forms_carry_numbers_difference_and_caveats(ours: Table) -> None:
    found = beside.beside(ours, published.load())
    tables = [match.theirs.table for match in found.pairs]
    assert tables == ["Table 1", "Table 4", "Table 5", "Table 5"]  # the defaults three times, lam=0.1 once
    for text in (beside.to_terminal(found), beside.to_markdown([found]), beside.to_latex([found])):
        for word in ("97.22", "-0.22", "97.00", "0.20", "2605.30083 Table 1", "list, n, flag"):
            assert word in text
        assert "p-value" in text
    assert max(map(len, beside.to_terminal(found).splitlines()[:4])) <= 130
    assert r"\_" in beside.to_latex([found])
