"""From rows to tables of numbers: what may be pooled, and what is compared with what."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from ff_bench import metrics, traits
from ff_bench.foreign import FOREIGN
from ff_bench.metrics.base import WHOLE, Measure
from ff_bench.report import joining
from ff_bench.report.comparison import MAIN, Cell, Column, Line, Table
from ff_bench.report.notes import budget_text, caveats, lacks_motion, title
from ff_bench.report.statistics import Pair, bootstrap, differences

HEADLINE = (
    "world.memory",
    "world.revisit_psnr",
    "world.revisit_psnr_last",
    "world.revisit_psnr_changed",
    "world.revisit_psnr_after_cut",
    "world.truth_psnr",
    "world.sprite_psnr",
    "fidelity.psnr",
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
UNTOLD = "–"
"""Budget of a video whose maker does not tell it."""
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
    rows: pd.DataFrame, *, baseline: str = "full", headline: Sequence[str] = HEADLINE
) -> list[Table]:
    """Split rows into comparable groups and summarise each.

    Args:
        rows: Rows of any number of videos, columns as in `ff_bench.records`.
        baseline: Policy that differences are taken to; at the same budget where it has one.
        headline: Metrics that become columns, where they have values.

    Raises:
        ValueError: When a headline metric is known to nobody.
    """
    for name in headline:
        if metrics.measure(name) is None:
            raise ValueError(
                f"headline metric '{name}' is unknown; families are {', '.join(metrics.names())}"
            )
    panels = {MAIN: headline, **PANELS} if headline is HEADLINE else {MAIN: headline}
    return [
        table
        for key, part in groups(rows)
        for panel, names in panels.items()
        for table in [_table(dict(key), part, baseline, names, panel=panel)]
        if table.columns or panel == MAIN or part["metric"].isin(names).any()
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
    found = _fields(protocol_fields)
    return found.get("prefix") == "truth", found.get("noise")


def _table(
    key: dict[str, object], rows: pd.DataFrame, baseline: str, headline: Sequence[str], *, panel: str
) -> Table:
    rows = _newest_versions(rows)
    there = set(rows.loc[(rows["status"] == "ok") & (rows["clip"] == WHOLE), "metric"])
    columns = [
        Column(name, metrics.measure(name) or Measure("1", None, ""))
        for name in headline
        if name in there and not lacks_motion(name, there)
    ]
    lines = [
        _line(part, columns, key)
        for _, part in rows.groupby(["policy", "policy_fields", "budget_tokens"], dropna=False)
    ]
    lines = sorted(_labelled(lines, rows), key=_order)
    compared = _with_best(_with_pairs(lines, columns, baseline), columns)
    notes = caveats(compared, rows, baseline, headline)
    named = title(key) if panel == MAIN else f"{title(key)} · {panel}"
    return Table(named, key, baseline, columns, compared, notes, rows, panel)


def _newest_versions(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep each metric's newest version: numbers of two versions are not comparable."""
    newest = rows.groupby("metric")["version"].transform("max")
    return rows[rows["version"] == newest]


def pair_values(rows: pd.DataFrame, metric: str, *, clip: int = WHOLE) -> dict[Pair, float]:
    """Return the numbers of one metric by (prompt, seed)."""
    chosen = rows[(rows["metric"] == metric) & (rows["clip"] == clip) & (rows["status"] == "ok")]
    keys = zip(chosen["prompt_id"].astype(str), chosen["seed"].astype(int), strict=True)
    return dict(zip(keys, chosen["value"].astype(float), strict=True))


def _line(rows: pd.DataFrame, columns: Sequence[Column], key: Mapping[str, object]) -> Line:
    first = rows.iloc[0]
    tokens = None if pd.isna(first["budget_tokens"]) else int(first["budget_tokens"])
    is_told = tokens is not None or first["checkpoint"] != FOREIGN or first["policy"] in traits.FULL
    values = {column.metric: pair_values(rows, column.metric) for column in columns}
    bland = pair_values(rows, "guards.bland")
    videos = rows[["prompt_id", "seed"]].drop_duplicates()
    return Line(
        policy=str(first["policy"]),
        fields=str(first["policy_fields"]),
        label=str(first["policy_fields"]),
        budget_tokens=tokens,
        budget=budget_text(tokens, key) if is_told else UNTOLD,
        is_pinned=bool(_listed(first.get("pinned"))),
        is_foreign=str(first["policy_fields"]) == joining.ELSEWHERE,
        is_bland=bool(bland) and sum(bland.values()) >= len(bland) / 2,
        prompts=videos["prompt_id"].nunique(),
        pairs=len(videos),
        cells={name: _cell(rows, name, numbers) for name, numbers in values.items()},
        values=values,
    )


def _cell(rows: pd.DataFrame, metric: str, numbers: Mapping[Pair, float]) -> Cell:
    if numbers:
        return Cell(bootstrap(numbers), pairs=len(numbers))
    about = rows["metric"].isin([metric, f"{metric.partition('.')[0]}.error", "error"])
    reasons = rows.loc[about & (rows["clip"] == WHOLE) & (rows["status"] != "ok"), "reason"].dropna()
    return Cell(None, reason=str(reasons.iloc[0]) if len(reasons) else "not scored")


def _labelled(lines: Sequence[Line], rows: pd.DataFrame) -> Iterator[Line]:
    """Name lines by policy; variants of one policy by the fields in which they differ."""
    variants = rows.groupby("policy")["policy_fields"].unique()
    for line in lines:
        every = [_fields(text) for text in variants[line.policy]]
        own = _fields(line.label)
        differing = [name for name in own if any(other.get(name) != own[name] for other in every)]
        rule = f" ({own['rule']})" if line.policy == traits.NATIVE and "rule" in own else ""
        label = f"{line.policy}{rule}" + (
            f"({', '.join(f'{name}={own[name]}' for name in differing)})" if differing else ""
        )
        yield replace(line, label=label)


def _fields(value: object) -> dict[str, object]:
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return {}
    return dict(found) if isinstance(found, Mapping) else {}


def _listed(value: object) -> list[str]:
    """Read a list of words that may stand as a list, as JSON or separated by commas."""
    if isinstance(value, str):
        return [word.strip(' "[]') for word in value.split(",") if word.strip(' "[]')]
    return [str(word) for word in value] if isinstance(value, Sequence) else []


def _order(line: Line) -> tuple[bool, int, bool, str]:
    """The full cache first, then by budget, `random` first among equals."""
    return line.budget_tokens is not None, line.budget_tokens or 0, line.policy != "random", line.label


def find_baseline(lines: Sequence[Line], line: Line, baseline: str) -> Line | None:
    """Return the baseline's line at the same budget, else without a budget, else None."""
    same = [other for other in lines if other.policy == baseline]
    for tokens in (line.budget_tokens, None):
        for other in same:
            if other.budget_tokens == tokens:
                return other
    return None


def _with_pairs(lines: Sequence[Line], columns: Sequence[Column], baseline: str) -> list[Line]:
    paired = []
    for line in lines:
        base = find_baseline(lines, line, baseline)
        cells = dict(line.cells)
        for column in columns:
            if base is None:
                continue
            gap = differences(line.values[column.metric], base.values[column.metric])
            paired_gap = None if base is line else bootstrap(gap)
            cells[column.metric] = replace(
                cells[column.metric], paired=paired_gap, is_baseline=base is line, has_baseline=True
            )
        paired.append(replace(line, cells=cells))
    return paired


def _with_best(lines: Sequence[Line], columns: Sequence[Column]) -> list[Line]:
    """Mark the best of each budget; the full cache and bland lines do not compete."""
    best: set[tuple[int, str]] = set()
    for tokens in {line.budget_tokens for line in lines if line.budget_tokens is not None}:
        rivals = [i for i, line in enumerate(lines) if line.budget_tokens == tokens and not line.is_bland]
        for column in columns:
            best |= {(i, column.metric) for i in _winners(lines, rivals, column)}
    return [
        replace(
            line, cells={name: replace(cell, is_best=(i, name) in best) for name, cell in line.cells.items()}
        )
        for i, line in enumerate(lines)
    ]


def _winners(lines: Sequence[Line], rivals: Sequence[int], column: Column) -> list[int]:
    """Return who is best in one column, among those with the most videos; nobody without a rival.

    Costs are not ranked: without an interval a winner would be noise.
    """
    means = {i: cell.mean for i in rivals if (cell := lines[i].cells[column.metric]).mean is not None}
    most = max((mean.pairs for mean in means.values() if mean), default=0)
    equal = {i: mean.mean for i, mean in means.items() if mean and mean.pairs == most}
    unranked = column.measure.higher_is_better is None or column.metric.startswith("cost.")
    if len(equal) < 2 or unranked:
        return []
    top = (max if column.measure.higher_is_better else min)(equal.values())
    return [i for i, mean in equal.items() if mean == top]
