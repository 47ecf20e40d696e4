"""`ff-bench stationarity [KEY=VALUE ...]`: how much queries move before and after their rotation."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from ff_bench.analysis import asking
from ff_bench.config import RunConfig
from ff_bench.errors import out_of_range

if TYPE_CHECKING:
    import pandas as pd

    from ff_bench.analysis.stationarity import Sampling
    from ff_bench.models.base import Model

OWN = {"unit": "chunk", "lags": "1..24", "rows": "192", "frechet": "true", "out": ""}
"""Settings of the command; every other word is one of a run."""
MOST_LAG = 1000


def run(words: Sequence[str]) -> int:
    """Generate with the full cache, measure, print; the last line is JSON.

    Args:
        words: of the command line after `stationarity`.

    Returns:
        0; 1 where latents are not finite.

    Raises:
        UsageError: with one sentence for the user.
    """
    return asking.told(_run, words)


def _run(words: Sequence[str]) -> int:
    own, overrides = asking.split("stationarity", words, OWN)
    unit = asking.one_of("unit", own["unit"], ("chunk", "frame"))
    lags = asking.numbers("lags", own["lags"], low=1, high=MOST_LAG)
    most = asking.whole("rows", own["rows"], low=2, high=10**6)
    has_frechet = asking.one_of("frechet", own["frechet"], ("true", "false")) == "true"
    config = asking.full_cache(overrides)
    out = asking.folder(config, own["out"], "stationarity")

    from ff_bench import files, records, runs
    from ff_bench.analysis import drift_figure, drift_text, stationarity
    from ff_bench.report.style import paper_style, save

    chunks = len(config.facts.chunks(config.length.latent_frames))
    units = chunks if unit == "chunk" else config.length.latent_frames
    possible = tuple(lag for lag in lags if lag < units)
    if not possible:
        raise out_of_range("lags", own["lags"], f"below the {units} {unit}s of the video")
    sampling = stationarity.Sampling(unit, most, possible, has_frechet)
    began = time.monotonic()
    rows = _measure(config, sampling)
    tables = records.write_tables(rows, out)
    with paper_style():
        drawn = save(drift_figure.draw(rows, unit=unit), out / "stationarity")
    files.sweep_up(out, deep=False)
    print(drift_text.to_terminal(rows, unit=unit))
    print(f"\nrows    {tables[0]}\nfigure  {drawn[0]}")
    told = {
        name: {"before": round(before, 4), "after": round(after, 4)}
        for name, (before, after) in drift_text.numbers(rows).items()
    }
    document = {"videos": len(runs.videos(config)), "unit": unit, "seconds": round(time.monotonic() - began)}
    print(json.dumps({**document, "drift": told, "rows": str(tables[0]), "figure": str(drawn[0])}))
    return 0


def _measure(config: RunConfig, sampling: Sampling) -> pd.DataFrame:
    """Return the rows of every video; those that an earlier start has measured are read."""
    import pandas as pd

    from ff_bench import generate, runs
    from ff_bench.analysis import drift_store

    def load() -> Model:
        return generate.load_model(config.model, config.device, config.dtype)

    specs = tqdm(runs.videos(config), desc="full-cache rollouts", disable=None)
    return pd.concat([drift_store.measured(load, spec, sampling) for spec in specs], ignore_index=True)
