"""The cells of a table that another run, machine or program wrote: numbers are numbers, words are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

NUMBERS = ("schema", "budget_tokens", "frames", "seed", "version", "clip", "t0", "t1", "value")
WHOLE = ("frames", "seed", "version", "clip")
COUNTED = ("latent_frames", "prefix_frames", "fps", "steps", "batch")
"""Numbers that a table may lack."""
NAMED = ("video_id", "model", "policy", "protocol", "prompt_id", "metric", "status")
"""Words without which a row says nothing."""
LARGEST = 2**53


def wrong(found: pandas.DataFrame, statuses: Sequence[str]) -> str:
    """Say what in a table is no row of ours; empty where all is.

    Args:
        found: with every column of the schema.
        statuses: what a status may be.
    """
    import numpy
    import pandas

    for name in (*NUMBERS, *(name for name in COUNTED if name in found)):
        numbers = pandas.to_numeric(found[name], errors="coerce").astype(float)
        if (numbers.isna() & found[name].notna()).any() or numpy.isinf(numbers).any():
            return f"column {name} holds what is no finite number"
        if name in WHOLE and not ((numbers % 1 == 0) & (numbers.abs() < LARGEST)).all():
            return f"column {name} holds what is no whole number"
    for name in NAMED:
        if not all(isinstance(cell, str) and cell.strip() for cell in found[name]):
            return f"column {name} has cells without a word"
    if not found["status"].isin(statuses).all():
        return f"column status must be one of {', '.join(statuses)}"
    told = found["value"].notna() == (found["status"] == "ok")
    return "" if told.all() else "a row has a value where its status is ok, and only there; not so here"
