"""What tests of trackers share: a short run, what a tracker would be told of it, and its rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imsave

from ff_bench import pipeline, records, report, runs
from ff_bench.compose import expand
from ff_bench.metrics.base import WHOLE
from ff_bench.trackers.jobs import plan_of
from ff_bench.trackers.session import Plan

SHORT = ["length=1s", "metrics=[flicker,cost]", "budget=256", "limit=2", "stages=[generate,score]"]
WITH_REPORT = [*SHORT[:4], "stages=[generate,score,report]"]


def plan(words: Sequence[str], *, multirun: bool = False) -> Plan:
    """Plan what is told of a command line."""
    configs = [pipeline.check(job.config) for job in expand([*words], multirun=multirun).jobs]
    return plan_of(configs[0].tracker, configs, name="sweep-1", root=configs[0].runs_dir)


def whole(policy: str) -> list[dict[str, Any]]:
    """Return the rows over whole videos of a policy."""
    folders = sorted(path.parent for path in Path("runs/mini").glob(f"{policy}-*/*/*/{runs.ROWS}"))
    return [row for folder in folders for row in records.rows_of(folder) if row["clip"] == WHOLE]


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let reports be a page, a table and a figure of one pixel: drawing takes seconds."""

    def make(_: Sequence[Path], out: Path) -> report.Report:
        out.mkdir(parents=True)
        page, table, figure = out / "index.html", out / "summary.csv", out / "plots" / "time.png"
        figure.parent.mkdir()
        page.write_text("")
        table.write_text("policy,fps\nh2o,1.5\nrandom,\n")
        imsave(figure, np.zeros((1, 1, 3)))
        return report.Report((page, table, figure), "")

    monkeypatch.setattr(report, "make", make)
