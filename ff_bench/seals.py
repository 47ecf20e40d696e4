"""What a row must be, and the seal by which rows that were changed after they were written are told.

A seal is a digest: it tells accidents and edits by hand, not somebody who makes a new seal as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ff_bench.files import canonical, short_hash

LABELS = ("prompt_set", "prompt_list_sha256")
"""Names that may change while the numbers stay."""
EDITED = "its rows were changed after they were written: the same run scores it again"
LARGEST = 2**63
"""Whole numbers of tables are below; a larger one is none of ours."""
_TEXTS, _WHOLE, _NUMBERS = (
    ("video_id", "metric", "status"),
    ("version", "clip"),
    ("t0", "t1", "budget_tokens"),
)


def is_row(item: Mapping[str, Any], statuses: Sequence[str]) -> bool:
    """Say whether an item is a row: plain values in every column, and a finite number exactly where it is ok.

    Args:
        item: as read from JSON.
        statuses: that a row may have.
    """
    return (
        all(isinstance(item.get(name), str) for name in _TEXTS)
        and item["status"] in statuses
        and all(type(item.get(name)) is int for name in _WHOLE)
        and all(item.get(name) is None or _is_number(item[name]) for name in _NUMBERS)
        and all(
            value is None or isinstance(value, bool | str) or _is_number(value) for value in item.values()
        )
        and (_is_number(item.get("value")) if item["status"] == "ok" else item.get("value") is None)
    )


def seal(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Digest the rows of one metric of one video, in any order.

    Args:
        rows: of the metric.
        columns: what the seal holds for; a column that a row lacks is empty.
    """
    kept = [name for name in columns if name not in LABELS]
    return short_hash(sorted(canonical([row.get(name) for name in kept]) for row in rows))


def spoiled(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without its number, which cannot be trusted, and why."""
    return {**row, "value": None, "status": "failed", "reason": EDITED}


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < LARGEST if isinstance(value, int) else math.isfinite(value)
