"""The statistics of queries in a few numbers, beside those that the paper prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ff_bench.analysis.stationarity import AFTER, BEFORE, FRECHET, LAG, PASS, W1
from ff_bench.plan import grid

if TYPE_CHECKING:
    import pandas as pd

PAPER = "arXiv 2605.30083, Table 8"
PUBLISHED: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...] = (
    ("mean of five models", (0.123,), (1.176,)),
    ("Self Forcing, dim 0", (0.098, 0.122, 0.204), (1.192,)),
    ("Self Forcing, dim 5", (0.092, 0.092, 0.094), (1.187,)),
    ("Causal Forcing, dim 0", (0.139, 0.147, 0.152), ()),
    ("Causal Forcing, dim 5", (0.103, 0.103, 0.150), ()),
    ("LongLive, dim 0", (0.126, 0.113, 0.207), ()),
    ("LongLive, dim 5", (0.097, 0.167, 0.059), ()),
    ("Reward Forcing, dim 0", (0.126, 0.088, 0.195), (1.149,)),
    ("Reward Forcing, dim 5", (0.066, 0.101, 0.068), (1.110,)),
    ("Rolling Forcing, dim 0", (0.168, 0.083, 0.206), ()),
    ("Rolling Forcing, dim 5", (0.093, 0.093, 0.130), ()),
)
"""Normalised Wasserstein-1 between frames: model and channel, before rotation (three values), after it."""
PRINTED_CHANNELS = (0, 5)
"""The channels of a head that the paper prints."""
HEAD = ("queries", "before rotation", "after rotation", "ratio")


def curve(
    rows: pd.DataFrame, quantity: str, versus: str, *, axis: str = "", channel: int | None = None
) -> pd.DataFrame:
    """Return means over layers, heads, channels and videos: distance by rotation.

    Args:
        rows: tidy rows.
        quantity: `w1` or `frechet`.
        versus: `lag` or `pass`.
        axis: channels of one axis only; empty takes all.
        channel: one channel only; None takes all.
    """
    some = rows[(rows["quantity"] == quantity) & (rows["versus"] == versus)]
    if axis:
        some = some[some["axis"] == axis]
    if channel is not None:
        some = some[some["channel"] == channel]
    return some.pivot_table(index="distance", columns="rotation", values="value", aggfunc="mean")


def turning(rows: pd.DataFrame) -> tuple[float, float] | None:
    """Find the cycle of the queries before their rotation.

    Returns:
        The lag at which they are farthest apart and, among longer lags, the one at which they are nearest
        again; None where the farthest lag is the longest that was measured.
    """
    found = curve(rows, FRECHET, LAG)
    if found.empty:
        return None
    before = {float(str(lag)): float(value) for lag, value in found[BEFORE].items()}
    far = max(before, key=lambda lag: before[lag])
    later = [lag for lag in before if lag > far]
    return (far, min(later, key=lambda lag: before[lag])) if later else None


def numbers(rows: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return what was measured in words -> mean before and after the rotation."""
    found: dict[str, tuple[float, float]] = {}
    for label, axis in (("all channels", ""), ("time channels", "time")):
        by_lag = curve(rows, W1, LAG, axis=axis)
        for lag in _some(list(by_lag.index)):
            found[f"W1, {label}, lag {lag:g}"] = _pair(by_lag, lag)
    for channel in PRINTED_CHANNELS:
        by_lag = curve(rows, W1, LAG, channel=channel)
        if len(by_lag):
            first = next(iter(by_lag.index))
            found[f"W1, channel {channel}, lag {first:g}"] = _pair(by_lag, first)
    by_lag = curve(rows, FRECHET, LAG)
    cycle = turning(rows) or ()
    for lag in [] if by_lag.empty else sorted({*_some(list(by_lag.index)), *cycle}):
        found[f"Frechet, lag {lag:g}"] = _pair(by_lag, lag)
    by_pass = curve(rows, W1, PASS)
    for level in sorted(by_pass.index, reverse=True):
        found[f"W1, clean against noise {level:.2f}"] = _pair(by_pass, level)
    return found


def _some(lags: Sequence[float]) -> list[float]:
    """Return the first, the middle and the last."""
    return sorted({lags[0], lags[len(lags) // 2], lags[-1]}) if lags else []


def _pair(table: pd.DataFrame, distance: float) -> tuple[float, float]:
    before, after = (float(table[rotation].to_dict()[distance]) for rotation in (BEFORE, AFTER))
    return before, after


def to_terminal(rows: pd.DataFrame, *, unit: str) -> str:
    """Lay out what was measured and, below, what the paper prints.

    Args:
        rows: tidy rows.
        unit: of the lags.
    """
    measured = [
        (name, f"{before:.3f}", f"{after:.3f}", f"{after / before:.1f}" if before > 0 else "")
        for name, (before, after) in numbers(rows).items()
    ]
    printed = [
        (name, " ".join(f"{x:.3f}" for x in before), " ".join(f"{x:.3f}" for x in after), "")
        for name, before, after in PUBLISHED
    ]
    lines = grid(HEAD, measured)
    lines += ["", *grid((PAPER, *HEAD[1:3], ""), printed)]
    lines.append(
        f"\nW1 in standard deviations of a channel; Frechet over the mean squared norm; lags in {unit}s; "
        "the paper's lag is one frame"
    )
    cycle = turning(rows)
    if cycle is not None:
        lines.append(f"before rotation: farthest apart at lag {cycle[0]:g}, nearest again at {cycle[1]:g}")
    return "\n".join(lines)
