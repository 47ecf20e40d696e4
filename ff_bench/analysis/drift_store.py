"""Measurements of single videos on disk, so that an interrupted `stationarity` goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from ff_bench import files
from ff_bench.analysis import stationarity
from ff_bench.analysis.stationarity import COLUMNS, Sampling
from ff_bench.models.base import Model
from ff_bench.runs import VideoSpec

SCHEMA = 1
"""Of what is measured and how: a change makes every video new."""
FOLDER = "stationarity"


def place(spec: VideoSpec, sampling: Sampling) -> Path:
    """Return the file of one video: named by everything that changes its rows."""
    config = spec.config
    name = files.short_hash({"video": spec.identity, "sampling": asdict(sampling), "schema": SCHEMA})
    return config.runs_dir / config.model.name / FOLDER / f"{spec.prompt.id}-s{spec.seed}-{name}.parquet"


def measured(model: Callable[[], Model], spec: VideoSpec, sampling: Sampling) -> pd.DataFrame:
    """Return the tidy rows of one video, measured where they are not here or `overwrite` asks for it.

    Args:
        model: loads the backbone, called where there is something to generate.
        spec: a video of the full cache.
        sampling: what is compared with what.
    """
    path = place(spec, sampling)
    found = None if spec.config.overwrite else _read(path)
    if found is not None:
        return found
    rows = pd.DataFrame(stationarity.measure(model(), spec, sampling), columns=list(COLUMNS))
    path.parent.mkdir(parents=True, exist_ok=True)
    files.sweep_up(path.parent, deep=False)
    with files.temporary(path) as part:
        rows.to_parquet(part, index=False, compression="zstd")
    return rows


def _read(path: Path) -> pd.DataFrame | None:
    """Read what is there; a file that somebody has damaged is measured again."""
    if not path.is_file():
        return None
    try:
        rows = pd.read_parquet(path)
    except (OSError, ValueError):
        return None
    return rows if tuple(rows.columns) == COLUMNS else None
