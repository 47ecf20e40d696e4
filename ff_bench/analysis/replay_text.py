"""Replays as text: a line per policy and budget, overlaps, and what predicts quality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ff_bench.analysis.greedy import NAME
from ff_bench.analysis.replay import MEASURES
from ff_bench.plan import grid

if TYPE_CHECKING:
    import pandas as pd

    from ff_bench.analysis.prediction import Agreement

WORDS = {
    "error": "error", "recall": "recall", "recall_ahead": "recall ahead", "recall_top": "recall top",
    "coverage": "coverage", "coverage_again": "cov. again", "frames_held": "frames",
}  # fmt: skip


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each measure per budget and policy: chunks, layers and heads first, then videos."""
    by_video = rows.groupby(["budget_tokens", "policy", "prompt_id", "seed", "measure"])["value"].mean()
    table = by_video.groupby(["budget_tokens", "policy", "measure"]).mean().unstack("measure")
    return table.sort_values(["budget_tokens", "error"])


def to_terminal(rows: pd.DataFrame, overlap: pd.DataFrame) -> str:
    """Lay out the means, the least error first, and below how much what is kept overlaps."""
    table = means(rows)
    shown = [measure for measure in MEASURES if measure in table]
    body = [
        (f"{row['budget_tokens']:g}", row["policy"], *(f"{row[measure]:.3f}" for measure in shown))
        for row in table.reset_index().to_dict("records")
    ]
    lines = grid(("budget", "policy", *(WORDS[measure] for measure in shown)), body)
    lines.append(
        f"\nmean over chunks, layers, heads, then videos; {NAME} knows the future: a reference, not a policy"
    )
    if len(overlap):
        pairs = overlap.groupby(["budget_tokens", "policy", "other"])["jaccard"].mean().reset_index()
        ordered = pairs.sort_values("jaccard", ascending=False)
        told = [
            (f"{row['budget_tokens']:g}", row["policy"], row["other"], f"{row['jaccard']:.2f}")
            for row in ordered.to_dict("records")
        ]
        ends = told if len(told) <= 8 else [*told[:4], *told[-4:]]
        lines += ["", *grid(("budget", "kept alike", "and", "Jaccard"), ends)]
    return "\n".join(lines)


def predicted(found: Sequence[Agreement], metric: str) -> str:
    """Lay out how well each measure orders the policies as a metric does."""
    body = [
        (one.measure, f"{one.spearman:+.2f}", f"[{one.low:+.2f}, {one.high:+.2f}]", f"{one.kendall:+.2f}",
         str(one.policies), str(one.groups))
        for one in found
    ]  # fmt: skip
    head = ("predicts " + metric, "Spearman", "95 %", "Kendall", "policies", "videos")
    return "\n".join(grid(head, body))
