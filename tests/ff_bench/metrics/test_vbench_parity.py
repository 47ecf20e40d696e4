"""The numbers of `vbench_long` are those that VBench-Long's own code found on the same videos and weights.

Recorded by `python scripts/parity_vbench.py --record`, under seeded random weights of the true layouts.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import av
import pytest

from ff_bench import weights
from ff_bench.metrics.reference import samples
from ff_bench.metrics.shelf import COMPAT
from scripts import parity_vbench

RECORDED = json.loads((Path(__file__).parent / "data" / "vbench_reference.json").read_text(encoding="utf-8"))
QUICK = ("temporal_flickering", "motion_smoothness")
"""Dimensions that take seconds; the others write up to gigabytes of weights: `pytest -m slow`."""
LIBRARIES = {"motion_smoothness": "vbench", "imaging_quality": "pyiqa"}
"""Packages with networks of non-commercial licences."""


def cases() -> list[object]:
    found: list[object] = []
    for key in RECORDED["numbers"]:
        dimension, group, view = key.split("/")
        marks = [] if dimension in QUICK else pytest.mark.slow
        found.append(pytest.param(dimension, group, view, id=f"{dimension}-{group}-{view}", marks=marks))
    return found


@pytest.mark.parametrize(("dimension", "group_name", "view"), cases())
def test_numbers_are_those_of_vbench(
    dimension: str, group_name: str, view: str, tmp_path: Path, request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if dimension not in QUICK and "slow" not in request.config.option.markexpr:
        pytest.skip("minutes: pytest -m slow")
    if view == COMPAT and av.__version__ != RECORDED["versions"]["av"]:
        pytest.skip("another x264 writes other pixels")
    if find_spec(LIBRARIES.get(dimension, "torch")) is None:
        pytest.skip(f"needs {LIBRARIES[dimension]}")
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    parity_vbench.write_weights(tmp_path, [dimension])
    (group,) = (group for group in samples.GROUPS if group.name == group_name)
    row = parity_vbench.Row(dimension, group_name, view, parity_vbench.TOLERANCE[dimension])
    mine = parity_vbench.ours(group, dimension, view, "cpu")
    parity_vbench.compare(row, RECORDED["numbers"][f"{dimension}/{group_name}/{view}"], mine)
    assert row.is_equal, row


def test_recorded_scores_differ_between_clips() -> None:
    for key, videos in RECORDED["numbers"].items():
        scores = [score for numbers in videos for score in numbers.get("flow", numbers["score"])]
        assert len(set(scores)) > 1, key
