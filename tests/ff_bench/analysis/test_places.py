"""Cells of the panorama: what all tokens cover, what one frame covers, what is shown again."""

from __future__ import annotations

import pytest
import torch

from ff_bench.analysis.places import cells_of, coverage

ORBIT = "orbit palette=3 speed=4 sprite=disc hue=teal path=900"


def test_everything_held_covers_everything_seen() -> None:
    cells = cells_of(ORBIT, 24, "cpu")
    covered, again = coverage(torch.ones(1, 1, 24 * 64, dtype=torch.bool), cells)
    assert covered.item() == 1
    assert again.isnan().all()  # the video is over: nothing is shown again


def test_one_frame_covers_as_many_cells_as_it_has_tokens() -> None:
    cells = cells_of(ORBIT, 48, "cpu")
    kept = torch.zeros(1, 2, 24 * 64, dtype=torch.bool)
    kept[0, 0, :64] = True
    covered, _ = coverage(kept, cells)
    seen = cells.of_token[: 24 * 64].unique().numel()
    assert covered[0].tolist() == pytest.approx([64 / seen, 0.0])


def test_a_lap_later_the_same_cells_come_back() -> None:
    cells = cells_of(ORBIT, 96, "cpu")
    assert cells.count == cells.of_token[: 48 * 64].unique().numel()
    _, again = coverage(torch.ones(1, 1, 48 * 64, dtype=torch.bool), cells)
    assert again.item() == 1


def test_a_cell_of_another_version_is_another_cell() -> None:
    cut = cells_of("cut palette=1 speed=3 sprite=box hue=red path=955", 240, "cpu")
    orbit = cells_of("orbit palette=1 speed=3 sprite=box hue=red path=955", 240, "cpu")
    assert cut.count > orbit.count
