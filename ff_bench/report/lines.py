"""The lines of a table: one policy under one budget, its numbers by video and their means."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from ff_bench import traits
from ff_bench.foreign import FOREIGN
from ff_bench.metrics.base import WHOLE
from ff_bench.report import joining
from ff_bench.report.comparison import Cell, Line
from ff_bench.report.notes import budget_text
from ff_bench.report.statistics import Interval, Pair, intervals

UNTOLD = "–"
"""Budget of a video whose maker does not tell it."""
BLAND = "guards.bland"
_LINE = ["policy", "policy_fields", "budget_tokens"]
_NEEDED = [
    *_LINE, "checkpoint", "pinned", "prompt_id", "seed", "metric", "status", "reason", "value",
]  # fmt: skip
_Numbers = Mapping[str, Mapping[Pair, float]]


def lines_of(rows: pd.DataFrame, names: Sequence[str], key: Mapping[str, object]) -> list[Line]:
    """Make the lines of one group of videos, in the order of tables, with a cell for each metric.

    Args:
        rows: Of videos that may be pooled, of one version of each metric.
        names: Metrics.
        key: What the videos have in common.
    """
    whole = rows.loc[rows["clip"] == WHOLE, _NEEDED]
    parts = [part for _, part in whole.groupby(_LINE, dropna=False)]
    numbers = [_numbers(part, (*names, BLAND)) for part in parts]
    means = iter(intervals([values[name] for values in numbers for name in names]))
    lines = [
        _line(part, values, {name: next(means) for name in names}, key)
        for part, values in zip(parts, numbers, strict=True)
    ]
    return sorted(_labelled(lines, whole), key=_order)


def _numbers(rows: pd.DataFrame, names: Sequence[str]) -> _Numbers:
    """Return the numbers of some metrics of one line by (prompt, seed); of none where it has none."""
    found: dict[str, dict[Pair, float]] = {name: {} for name in names}
    chosen = rows[(rows["status"] == "ok") & rows["metric"].isin(names)]
    columns = (chosen[name].tolist() for name in ("metric", "prompt_id", "seed", "value"))
    for metric, prompt, seed, value in zip(*columns, strict=True):
        found[metric][str(prompt), int(seed)] = float(value)
    return found


def _line(
    rows: pd.DataFrame, values: _Numbers, means: Mapping[str, Interval | None], key: Mapping[str, object]
) -> Line:
    first = rows.iloc[0]
    tokens = None if pd.isna(first["budget_tokens"]) else int(first["budget_tokens"])
    is_told = tokens is not None or first["checkpoint"] != FOREIGN or first["policy"] in traits.FULL
    videos = rows[["prompt_id", "seed"]].drop_duplicates()
    bland = values[BLAND]
    return Line(
        policy=str(first["policy"]),
        fields=str(first["policy_fields"]),
        label=str(first["policy_fields"]),
        budget_tokens=tokens,
        budget=budget_text(tokens, key) if is_told else UNTOLD,
        is_pinned=bool(_listed(first["pinned"])),
        is_foreign=str(first["policy_fields"]) == joining.ELSEWHERE,
        is_bland=bool(bland) and sum(bland.values()) >= len(bland) / 2,
        prompts=videos["prompt_id"].nunique(),
        pairs=len(videos),
        cells={name: _cell(rows, name, mean) for name, mean in means.items()},
        values={name: values[name] for name in means},
    )


def _cell(rows: pd.DataFrame, metric: str, mean: Interval | None) -> Cell:
    if mean is not None:
        return Cell(mean, pairs=mean.pairs)
    about = rows["metric"].isin([metric, f"{metric.partition('.')[0]}.error", "error"])
    reasons = rows.loc[about & (rows["status"] != "ok"), "reason"].dropna()
    return Cell(None, reason=str(reasons.iloc[0]) if len(reasons) else "not scored")


def only(lines: Sequence[Line], names: Sequence[str]) -> list[Line]:
    """Return the same lines with the cells of some metrics."""
    return [
        replace(
            line,
            cells={name: line.cells[name] for name in names},
            values={name: line.values[name] for name in names},
        )
        for line in lines
    ]


def _labelled(lines: Sequence[Line], rows: pd.DataFrame) -> Iterator[Line]:
    """Name lines by policy; variants of one policy by the fields in which they differ."""
    variants = rows.groupby("policy")["policy_fields"].unique()
    for line in lines:
        every = [fields_of(text) for text in variants[line.policy]]
        own = fields_of(line.label)
        differing = [name for name in own if any(other.get(name) != own[name] for other in every)]
        rule = f" ({own['rule']})" if line.policy == traits.NATIVE and "rule" in own else ""
        label = f"{line.policy}{rule}" + (
            f"({', '.join(f'{name}={own[name]}' for name in differing)})" if differing else ""
        )
        yield replace(line, label=label)


def fields_of(value: object) -> dict[str, object]:
    """Read a mapping that may stand as JSON; anything else is empty."""
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
