"""The rows that a report rests on: of folders and tables, each number once and each video one thing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ff_bench import records, runs, seals, traits
from ff_bench.errors import UsageError
from ff_bench.foreign import FOREIGN, is_superseded

OTHER_VIDEO = "its rows are of another video than its manifest: the same run scores it again"
_SAME = (
    "model", "checkpoint", "policy", "policy_fields", "protocol", "protocol_fields", "budget_tokens",
    "frames", "prompt_set", "prompt_list_sha256", "prompt_id", "prompt_sha256", "seed", "steps", "dtype",
    "batch",
)  # fmt: skip
"""What tables tell videos apart by; the device is added by its kind."""


def read_rows(paths: Iterable[Path]) -> pd.DataFrame:
    """Read the rows of every video below some folders, finished or failed, and of tables of rows.

    Raises:
        UsageError: Where a table is none, a number is there twice with two values, or two videos would stand
            in one place of a table.
    """
    places = list(paths)
    folders = {found.parent.resolve() for path in places for found in path.rglob(runs.ROWS)}
    folders = {folder for folder in folders if not is_superseded(folder)}
    tables = [records.read_table(path) for path in places if path.suffix in records.TABLES and path.is_file()]
    own = records.frame(row for folder in sorted(folders) for row in _rows_of(folder))
    parts = [part for part in (own, *tables) if len(part)]
    if not parts:
        return own
    found = _once(pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0])
    _check_places(found)
    return found


def _rows_of(folder: Path) -> list[dict[str, object]]:
    """Return the rows of a folder; what its manifest does not bear out has no number."""
    rows, manifest = records.rows_of(folder), runs.read_manifest(folder)
    if manifest is None:  # of a video that failed, or whose manifest is being written
        return rows
    told = {"video_id": manifest.video_id, "frames_sha256": manifest.frames_sha256}
    is_own = [all(row.get(name) in (value, "", None) for name, value in told.items()) for row in rows]
    return [
        row if fits else {**seals.spoiled(row), "reason": OTHER_VIDEO}
        for row, fits in zip(rows, is_own, strict=True)
    ]


def _once(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep each number once.

    Seconds and bytes may differ where a video was made on two machines: the first ones stay.
    """
    keys = list(records.KEY)
    twice = rows[rows.duplicated(keys, keep=False) & (rows["status"] == "ok")]
    twice = twice[~twice["metric"].astype(str).str.startswith("cost.")]
    values = twice.groupby(keys)["value"].agg(["min", "max"])
    wrong = values[values["min"] != values["max"]]
    if len(wrong):
        (video, metric, *_), (low, high) = wrong.index[0], wrong.iloc[0]
        raise UsageError(
            f"report: video {video} has two values of {metric}, {low:g} and {high:g}, in what was given: "
            "name the folder or table that counts, without the other"
        )
    return rows.drop_duplicates(keys, ignore_index=True)


def _check_places(rows: pd.DataFrame) -> None:
    """Refuse two videos of one policy, budget, prompt and seed, of which a table would show one."""
    own = rows[(rows["checkpoint"].astype(str) != FOREIGN) & ~rows["policy"].isin(traits.FULL)]
    if own.empty:
        return
    device = own["device"].astype(object).where(own["device"].notna(), "")
    own = own.assign(device=device.astype(str).str.partition(":")[0])
    own = own[(own["status"] == "ok") & (own["device"] != "")]
    if own.empty:
        return
    counts = own.groupby([*_SAME, "device"], dropna=False)["video_id"].agg(["nunique", "min", "max"])
    wrong = counts[counts["nunique"] > 1]
    if len(wrong):
        named = dict(zip(counts.index.names, wrong.index[0], strict=True))
        first, last = wrong.iloc[0]["min"], wrong.iloc[0]["max"]
        raise UsageError(
            f"report: videos {first} and {last} both stand for policy {named['policy']}, prompt "
            f"{named['prompt_id']}, seed {named['seed']}, made by different code or weights: name the "
            "folders of one of them"
        )
