"""From rows to tables of numbers: what may be pooled, and what is compared with what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from ff_bench import metrics, traits
from ff_bench.metrics.base import WHOLE, Measure
from ff_bench.report import joining
from ff_bench.report.comparison import MAIN, Column, Table
from ff_bench.report.lines import fields_of, lines_of, only
from ff_bench.report.notes import caveats, lacks_motion, other_lists, title
from ff_bench.report.pairing import with_pairs, with_ranks

HEADLINE = (
    "world.memory",
    "world.revisit_psnr",
    "world.revisit_psnr_last",
    "world.revisit_psnr_changed",
    "world.revisit_psnr_after_cut",
    "world.truth_psnr",
    "world.sprite_psnr",
    "fidelity.psnr",
    "flicker.temporal_flickering",
    "guards.gradient_ratio",
    "cost.fps",
)
"""Columns of the summary table, where they have values."""
_DIMENSIONS = (
    "subject_consistency", "subject_consistency_clip2clip", "background_consistency",
    "background_consistency_clip2clip", "dynamic_degree", "temporal_flickering", "motion_smoothness",
    "aesthetic_quality", "imaging_quality", "overall_consistency", "quality", "semantic", "total",
)  # fmt: skip
PANELS: Mapping[str, Sequence[str]] = {
    "VBench-Long compat": [f"vbench_long.compat.{name}" for name in _DIMENSIONS],
    "VBench-Long strict": [f"vbench_long.strict.{name}" for name in _DIMENSIONS],
    "VBench reference": [f"vbench_reference.{name}" for name in _DIMENSIONS],
    "drift": [
        "drift.imaging_quality", "drift.imaging_quality_abs", "drift.aesthetic_quality",
        "drift.aesthetic_quality_abs", "drift.saturation", "drift.contrast", "drift.brightness",
        "drift.gradient_energy", "drift.temporal_flickering", "drift.frozen", "drift.loop",
    ],
}  # fmt: skip
"""Further tables of the same videos: their title, and their columns where they have values."""
_GROUP = (
    "model",
    "checkpoint",
    "prompt_set",
    "prompt_list_sha256",
    "frames",
    "fps",
    "steps",
    "dtype",
    "batch",
    "device",
)


def summarise(
    rows: pd.DataFrame,
    *,
    baseline: str = "full",
    headline: Sequence[str] = HEADLINE,
    margins: Mapping[str, float] | None = None,
) -> list[Table]:
    """Split rows into comparable groups and summarise each.

    Args:
        rows: Rows of any number of videos, columns as in `ff_bench.records`.
        baseline: Policy that differences are taken to; at the same budget where it has one.
        headline: Metrics that become columns, where they have values.
        margins: Smallest differences worth a claim, by name; see `ff_bench.report.margins`.

    Raises:
        ValueError: When a headline metric is known to nobody.
    """
    for name in headline:
        if metrics.measure(name) is None:
            raise ValueError(
                f"headline metric '{name}' is unknown; families are {', '.join(metrics.names())}"
            )
    panels = {MAIN: headline, **PANELS} if headline is HEADLINE else {MAIN: headline}
    found = [
        table
        for key, part in groups(rows)
        for table in _tables(dict(key), part, baseline, panels, margins=margins or {})
    ]
    told = other_lists([table.key for table in found])
    return [
        replace(table, notes=[*table.notes, *([note] if note and table.is_main else [])])
        for table, note in zip(found, told, strict=True)
    ]


def groups(rows: pd.DataFrame) -> Iterator[tuple[Mapping[str, object], pd.DataFrame]]:
    """Yield what may be pooled: its key and its rows; videos that were not made here join where they fit."""
    rows = rows.assign(device=rows["device"].fillna("").astype(str).str.partition(":")[0])
    is_other = joining.is_foreign(rows)
    yield from joining.join(_own_groups(rows[~is_other]), rows[is_other])


def _own_groups(rows: pd.DataFrame) -> Iterator[joining.Group]:
    """Yield what may be pooled of videos made here. Videos of the full cache join every protocol."""
    for values, part in rows.groupby(list(_GROUP), dropna=False, sort=True):
        key = {name: _as_whole(value) for name, value in zip(_GROUP, values, strict=True)}
        is_full = part["policy"].isin(traits.FULL)
        protocols = sorted(part.loc[~is_full, "protocol"].unique()) or sorted(part["protocol"].unique())
        start = part["protocol_fields"].map(_start)
        for protocol in protocols:
            own = (part["protocol"] == protocol) & (~is_full | bool(is_full.all()))
            yield {**key, "protocol": protocol}, part[own | (is_full & start.isin(set(start[own])))]


def _as_whole(value: object) -> object:
    """Undo what a table does to whole numbers beside missing ones."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _start(protocol_fields: object) -> tuple[bool, object]:
    """Return what the full cache shares with others: whether it starts with true frames, and its noise."""
    found = fields_of(protocol_fields)
    return found.get("prefix") == "truth", found.get("noise")


def _tables(
    key: dict[str, object],
    rows: pd.DataFrame,
    baseline: str,
    panels: Mapping[str, Sequence[str]],
    *,
    margins: Mapping[str, float],
) -> Iterator[Table]:
    """Yield a table per panel that any video of the group speaks to; the first one always."""
    rows = _newest_versions(rows)
    whole = rows[rows["clip"] == WHOLE]
    there = set(whole.loc[whole["status"] == "ok", "metric"])
    asked, known = {name for names in panels.values() for name in names}, set(whole["metric"])
    every = lines_of(rows, sorted(asked & there), key)
    for panel, names in panels.items():
        columns = [
            Column(name, metrics.measure(name) or Measure("1", None, ""))
            for name in names
            if name in there and not lacks_motion(name, there)
        ]
        if not columns and panel != MAIN and known.isdisjoint(names):
            continue
        lines = only(every, [column.metric for column in columns])
        compared = with_ranks(with_pairs(lines, columns, baseline, margins), columns)
        notes = caveats(compared, rows, baseline, columns=columns, headline=names)
        named = title(key) if panel == MAIN else f"{title(key)} · {panel}"
        yield Table(named, key, baseline, columns, compared, notes, rows, panel)


def _newest_versions(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep each metric's newest version: numbers of two versions are not comparable."""
    newest = rows.groupby("metric")["version"].transform("max")
    is_newest = rows["version"] == newest
    return rows if is_newest.all() else rows[is_newest]
