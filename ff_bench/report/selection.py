"""Which lines, rows and words belong into a figure of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ff_bench import metrics, traits
from ff_bench.metrics.base import WHOLE
from ff_bench.models.facts import find
from ff_bench.report.comparison import Line, Table, name_text
from ff_bench.report.statistics import Pair
from ff_bench.report.style import look

QUALITIES = (
    "world.memory", "world.revisit_psnr", "fidelity.psnr", "vbench_long.compat.quality",
    "vbench_long.strict.quality", "vbench_long.compat.imaging_quality", "vbench_long.strict.imaging_quality",
    "flicker.temporal_flickering",
)  # fmt: skip
"""The first of these that a table has is its quality, where the table's own columns name none of them."""
_NEEDED = [
    "policy", "policy_fields", "budget_tokens", "prompt_id", "seed", "clip", "t0", "t1", "value",
]  # fmt: skip


def budgets_of(table: Table) -> list[int | None]:
    """Return the budgets of a table in ascending order, without the full cache.

    That of a released context rule counts only where no policy was given a budget.
    """
    bound = [line for line in table.lines if line.budget_tokens is not None]
    asked = [line for line in bound if line.policy != traits.NATIVE] or bound
    return [*sorted({line.budget_tokens for line in asked if line.budget_tokens is not None})]


def lines_at(table: Table, budget: int | None) -> list[Line]:
    """Return the lines under one budget, with those of the full cache and of the released context rule."""
    return [
        line for line in table.lines if line.budget_tokens in (None, budget) or line.policy == traits.NATIVE
    ]


def rows_of(rows: pd.DataFrame, line: Line) -> pd.DataFrame:
    """Return a line's rows."""
    tokens = rows["budget_tokens"]
    same = tokens.isna() if line.budget_tokens is None else tokens == line.budget_tokens
    return rows[(rows["policy"] == line.policy) & (rows["policy_fields"] == line.fields) & same]


def numbers_of(table: Table, metric: str, *, is_whole: bool) -> pd.DataFrame:
    """Return the rows of one metric that hold a number: of whole videos, or of their windows."""
    rows = table.rows
    chosen = (rows["metric"] == metric) & (rows["status"] == "ok") & ((rows["clip"] == WHOLE) == is_whole)
    return rows.loc[chosen, _NEEDED]


def by_pair(rows: pd.DataFrame) -> dict[Pair, float]:
    """Return numbers by (prompt, seed)."""
    columns = (rows[name].tolist() for name in ("prompt_id", "seed", "value"))
    return {(str(prompt), int(seed)): float(value) for prompt, seed, value in zip(*columns, strict=True)}


def values_of(table: Table, metric: str) -> Mapping[int, Mapping[Pair, float]]:
    """Return the numbers of whole videos by the place of their line, where it has any."""
    rows = numbers_of(table, metric, is_whole=True)
    found = {place: by_pair(rows_of(rows, line)) for place, line in enumerate(table.lines)}
    return {place: values for place, values in found.items() if values}


def quality_of(table: Table) -> str | None:
    """Return the metric that stands for quality: of `QUALITIES`, else the first column with a direction."""
    shown = [column.metric for column in table.columns]
    rows = table.rows
    whole = set(rows.loc[(rows["clip"] == WHOLE) & (rows["status"] == "ok"), "metric"])
    ranked = [
        column.metric
        for column in table.columns
        if column.measure.higher_is_better is not None and not column.metric.startswith("cost.")
    ]
    known = [name for name in QUALITIES if name in shown] or ranked[:1]
    return next(iter([*known, *(name for name in QUALITIES if name in whole)]), None)


def axis_label(metric: str, *, change: bool = False) -> str:
    """Return the words of an axis: the label of a metric with its unit."""
    measure = metrics.measure(metric)
    assert measure is not None, metric
    unit = {"1": "", "bytes": "MiB", "fps": ""}.get(measure.unit, measure.unit)
    label = f"{'Δ ' if change else ''}{measure.label or metric}"
    return f"{label} ({unit})" if unit else label


def frames_in(table: Table, tokens: int | None) -> float:
    """Return a budget in latent frames, or in tokens where the model is not known."""
    facts = find(str(table.key["model"]))
    return (tokens or 0) / (facts.frame_tokens if facts else 1)


def share_text(table: Table, frames: float) -> str:
    """Return the share of the video that latent frames are; empty where the model is not known."""
    facts = find(str(table.key["model"]))
    total = facts.whole_chunks(facts.needed_latents(int(str(table.key["frames"])))) if facts else 0
    return f"{100 * frames / total:.0f} %" if total else ""


def budget_title(table: Table, tokens: int) -> str:
    """Return a budget in tokens, frames and share of the video."""
    frames = frames_in(table, tokens)
    share = share_text(table, frames)
    return f"{tokens} tokens = {frames:g} frames, {share} of video" if share else f"{tokens} tokens"


def short_budget(table: Table, line: Line) -> str:
    """Return a line's budget as a word of a label; empty for the full cache."""
    return "" if line.budget_tokens is None else f"{frames_in(table, line.budget_tokens):g}f"


def legend_inches(table: Table) -> float:
    """Return the height that a legend of the table's policies takes above the panels, in two columns."""
    return 0.125 * math.ceil((len(names_of(table)) + 2) / 2)


def look_of(table: Table, line: Line) -> dict[str, Any]:
    """Return how a line is drawn, the same in every figure of its table."""
    variants = sorted({other.fields for other in table.lines if other.policy == line.policy})
    return look(
        line.policy,
        [other.policy for other in table.lines],
        variant=variants.index(line.fields),
        is_bound=line.budget_tokens is not None,
    )


def names_of(table: Table) -> Mapping[str, str]:
    """Return the name of each label in a legend, with the marks that hold under any budget."""
    found: dict[str, str] = {}
    for line in table.lines:
        old = found.get(line.label, line.label)
        found[line.label] = old + "".join(
            mark for mark in name_text(line)[len(line.label) :] if mark not in old
        )
    return found
