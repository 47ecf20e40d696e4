"""Does an error measured in minutes predict the quality of videos? Rank correlations over policies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ff_bench.errors import UsageError
from ff_bench.metrics.base import WHOLE

if TYPE_CHECKING:
    import pandas as pd

    from ff_bench.analysis.replay import Entry

LOWER_IS_BETTER = ("error",)
RESAMPLES = 1000
LEAST = 4
"""Policies below which no correlation is given."""


@dataclass(frozen=True)
class Agreement:
    """How well one measure orders policies as a quality does; 1 is the same order, best first.

    Attributes:
        measure: of the replay.
        spearman: mean over videos and budgets of the correlation over policies.
        kendall: the same.
        low: lower end of the 95 % interval of `spearman`: policies and videos resampled.
        high: upper end.
        policies: how many.
        groups: videos × budgets.
    """

    measure: str
    spearman: float
    kendall: float
    low: float
    high: float
    policies: int
    groups: int


def quality(rows: pd.DataFrame, entries: Sequence[Entry], metric: str) -> tuple[pd.DataFrame, list[str]]:
    """Find the values of a metric in rows of real runs of the same policies, fields, protocol and budgets.

    Args:
        rows: of ff-bench, as `records.read_table` reads them.
        entries: what was replayed.
        metric: a metric of whole videos.

    Returns:
        Columns policy (as replayed), budget_tokens, prompt_id, seed, quality; and notes for the reader.

    Raises:
        UsageError: where the rows have no such metric.
    """
    import pandas as pd

    whole = rows[(rows["metric"] == metric) & (rows["clip"] == WHOLE) & (rows["status"] == "ok")]
    if whole.empty:
        raise UsageError(f"metric={metric} is not in the rows: allowed is a metric of whole videos there")
    notes, found = [], []
    for entry in entries:
        own = whole[[_is_same(row, entry) for row in whole.to_dict("records")]]
        same = own[own["frames"] == entry.config.length.frames]
        if same.empty and not own.empty:
            same = own[own["frames"] == own["frames"].max()]
            notes.append(
                f"{entry.name}: replayed over {entry.config.length.frames} frames, the rows are of "
                f"{same['frames'].iloc[0]}"
            )
        if same.empty:
            notes.append(f"{entry.name} at {entry.tokens} tokens is not in the rows")
        found.append(
            same.assign(policy=entry.name, quality=same["value"])[
                ["policy", "budget_tokens", "prompt_id", "seed", "quality"]
            ]
        )
    return pd.concat(found, ignore_index=True), notes


def _is_same(row: dict[Any, Any], entry: Entry) -> bool:
    """Tell whether a row is of this policy; fields that a row does not know yet are not compared."""
    config = entry.config
    if (row["model"], row["policy"], row["protocol"]) != (
        config.model.name, config.policy.label, config.protocol.label,
    ) or row["budget_tokens"] != entry.tokens:  # fmt: skip
        return False
    fields = json.loads(row["policy_fields"])
    own = config.policy.fields | config.policy.shown
    return all(own.get(name) == value for name, value in fields.items())


def points(replayed: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Join the mean of each measure over chunks, layers and heads with the quality of the same video.

    Args:
        replayed: tidy rows of replays.
        found: of `quality`.
    """
    key = ["policy", "budget_tokens", "prompt_id", "seed"]
    means = replayed.pivot_table(index=key, columns="measure", values="value", aggfunc="mean").reset_index()
    return means.merge(found, on=key)


def agreement(joined: pd.DataFrame, measure: str, *, seed: int = 0) -> Agreement | None:
    """Correlate a measure with the quality over the policies that every video has.

    Args:
        joined: of `points`.
        measure: one of its columns.
        seed: of the resampling.

    Returns:
        None where fewer than `LEAST` policies are left, or nothing differs.
    """
    group = ["prompt_id", "seed", "budget_tokens"]
    sides = [
        joined.pivot_table(index=group, columns="policy", values=column).dropna(axis=1)
        for column in (measure, "quality")
    ]
    shared = [name for name in sides[0].columns if name in sides[1].columns]
    if len(shared) < LEAST:
        return None
    sign = -1.0 if measure in LOWER_IS_BETTER else 1.0
    one, other = (side[shared].to_numpy(np.float64) for side in sides)
    one = one * sign
    generator, drawn = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        chosen = np.ix_(
            generator.integers(len(one), size=len(one)), generator.integers(len(shared), size=len(shared))
        )
        drawn.append(np.nanmean(spearman(one[chosen], other[chosen])) if _differs(other[chosen]) else np.nan)
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Agreement(
        measure, float(np.mean(spearman(one, other))), float(np.mean(kendall(one, other))),
        float(low), float(high), len(shared), len(one),
    )  # fmt: skip


def spearman(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the rank correlation of each row of two (G, P) arrays, (G,); ties share their mean rank."""
    from scipy.stats import rankdata

    ranks = [rankdata(side, axis=1) for side in (one, other)]
    first, second = (side - side.mean(1, keepdims=True) for side in ranks)
    scale = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    result: np.ndarray = np.divide((first * second).sum(1), scale, out=np.zeros_like(scale), where=scale > 0)
    return result


def kendall(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return Kendall's tau-b of each row of two (G, P) arrays, (G,)."""
    signs = [np.sign(side[:, :, None] - side[:, None, :]) for side in (one, other)]
    scale = np.sqrt((signs[0] ** 2).sum((1, 2)) * (signs[1] ** 2).sum((1, 2)))
    total = (signs[0] * signs[1]).sum((1, 2))
    result: np.ndarray = np.divide(total, scale, out=np.zeros_like(scale), where=scale > 0)
    return result


def _differs(values: np.ndarray) -> bool:
    return bool((values != values[:, :1]).any())
