"""Figures from rows alone: the front, win rates, drift, what is left out, and that legends fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from ff_bench import records
from ff_bench.report.comparison import Table
from ff_bench.report.frontier import front, memory_of, pareto
from ff_bench.report.matrix import win_matrix, win_rates
from ff_bench.report.plots import figures
from ff_bench.report.selection import look_of, names_of, quality_of
from ff_bench.report.style import WIDTH, legend_above, new_figure, paper_style, save
from ff_bench.report.summary import summarise
from ff_bench.report.timeplots import drift_over_time, since_start
from tests.ff_bench.report.test_report_tables import pairs, rows_for

MIB = 2**20
QUALITY = {"full": (30, 31, 32), "h2o": (29, 32, 31), "random": (20, 21, 22)}
COSTS = {"full": (100.0, 5.0), "h2o": (10.0, 20.0), "random": (12.0, 15.0)}


def rows_of_policy(policy: str, **changes: Any) -> list[dict[str, Any]]:
    held, speed = COSTS[policy]
    rows = rows_for(policy, pairs(*QUALITY[policy]), **changes)
    rows += rows_for(policy, pairs(*[held * MIB] * 3), metric="cost.kv_bytes", unit="bytes", **changes)
    rows += rows_for(policy, pairs(*[speed] * 3), metric="cost.fps", unit="fps", **changes)
    for clip in range(3):
        levels = [0.5 + i + 0.1 * clip * (policy == "random") for i in range(3)]
        window = {"clip": clip, "t0": 5.0 * clip, "t1": 5.0 * clip + 5, "unit": "1", **changes}
        rows += rows_for(policy, pairs(*levels), metric="drift.saturation_level", **window)
    return rows


@pytest.fixture(scope="module")
def table() -> Table:
    rows = [row for policy in QUALITY for row in rows_of_policy(policy)]
    rows += [row for policy in ("h2o", "random") for row in rows_of_policy(policy, budget_tokens=2048)]
    return next(table for table in summarise(records.frame(rows)) if table.is_main)


def test_every_figure_of_the_rows_is_drawn(table: Table) -> None:
    with paper_style():
        made = figures(table)
    assert set(made) == {
        "drift-b1024",
        "drift-b2048",
        "wins-b1024",
        "wins-b2048",
        "budget",
        "pareto",
        "cost",
    } - (
        {"cost"}  # needs cost.seconds
    )
    assert all(figure.get_size_inches()[0] == WIDTH for figure in made.values())


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    points = {0: (1.0, 5.0), 1: (2.0, 6.0), 2: (2.0, 4.0), 3: (3.0, 6.0), 4: (0.5, 1.0)}
    assert front(points, is_more_better=(False, True)) == [4, 0, 1]
    assert front(points, is_more_better=(True, True)) == [3]
    assert front({0: (1.0, 1.0), 1: (1.0, 1.0)}, is_more_better=(True, True)) == [0, 1]


def test_points_of_the_front_come_from_the_rows(table: Table) -> None:
    held = {table.lines[place].policy: value for place, value in memory_of(table).items()}
    assert held == {policy: pytest.approx(cost) for policy, (cost, _) in COSTS.items()}
    with paper_style():
        figure = pareto(table)
    assert figure is not None
    assert [panel.get_xlabel() for panel in figure.axes] == ["memory held (MiB)", "frames per second"]


def test_win_rates_are_shares_of_common_videos(table: Table) -> None:
    places, rates, counts = win_rates(table, 1024, "world.revisit_psnr")
    named = {table.lines[place].policy: row for row, place in enumerate(places)}
    assert rates[named["h2o"], named["full"]] == pytest.approx(1 / 3)
    assert rates[named["full"], named["random"]] == 1
    assert np.isnan(rates.diagonal()).all()
    off = ~np.eye(len(places), dtype=bool)
    np.testing.assert_allclose((rates + rates.T)[off], 1)
    assert (counts[off] == 3).all()
    with paper_style():
        assert win_matrix(table, 1024) is not None


def test_drift_is_the_change_of_each_video(table: Table) -> None:
    rows = table.rows[table.rows["metric"] == "drift.saturation_level"]
    changes = since_start(rows)
    random = changes[(changes["policy"] == "random") & (changes["clip"] == 2)]
    np.testing.assert_allclose(random["value"].to_numpy(float), 0.2)
    assert (changes.loc[changes["clip"] == 0, "value"] == 0).all()
    with paper_style():
        assert drift_over_time(table, 1024) is not None


def test_nothing_to_draw_is_no_figure() -> None:
    (bare,) = summarise(records.frame(rows_for("h2o", pairs(1, 2))), headline=("world.revisit_psnr",))
    assert figures(bare) == {}


def test_quality_is_a_column_with_a_direction() -> None:
    rows = rows_for("h2o", pairs(1, 2), metric="guards.gradient_ratio")
    rows += rows_for("h2o", pairs(1, 2), metric="world.sprite_psnr")
    (found,) = summarise(records.frame(rows), headline=("guards.gradient_ratio", "world.sprite_psnr"))
    assert quality_of(found) == "world.sprite_psnr"


def test_variants_of_one_policy_look_different_and_marks_are_joined() -> None:
    rows = [row for i in range(3) for row in rows_for("h2o", pairs(1, 2), policy_fields=f'{{"a":{i}}}')]
    bland = rows_for("h2o", pairs(1, 1), policy_fields='{"a":0}', metric="guards.bland", budget_tokens=512)
    rows += [*rows_for("h2o", pairs(1, 2), policy_fields='{"a":0}', budget_tokens=512), *bland]
    (found,) = summarise(records.frame(rows), headline=("world.revisit_psnr",))
    looks = {line.label: look_of(found, line) for line in found.lines}
    assert len({str(look) for look in looks.values()}) == 3
    assert len({look["color"] for look in looks.values()}) == 1
    assert names_of(found)["h2o(a=0)"] == "h2o(a=0)‡"


def width_of_legend(labels: list[str]) -> float:
    with paper_style():
        figure: Figure = new_figure(2)
        handles = figure.subplots().plot(np.zeros((2, len(labels))))
        legend_above(figure, handles, labels)
        figure.draw_without_rendering()
        return float(figure.legends[0].get_window_extent().width / figure.dpi)


@pytest.mark.parametrize("letters", [4, 12, 20, 27, 40])
def test_legends_fit_the_column(letters: int) -> None:
    assert width_of_legend(["future_forcing(merge=value)_and_more_words"[:letters]] * 9) <= WIDTH


def test_figures_are_equal_byte_for_byte(table: Table, tmp_path: Path) -> None:
    with paper_style():
        for name in ("a", "b"):
            figure = pareto(table)
            assert figure is not None
            save(figure, tmp_path / name)
    for ending in (".png", ".pdf"):
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()
