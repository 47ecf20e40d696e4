"""What failed, for people: grouped by reason, each with a count and its first example."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable


def summarise(failures: Iterable[str]) -> list[str]:
    """Group sentences of the form `what: reason`; reasons that differ in numbers only are one.

    Args:
        failures: In the order in which they came.

    Returns:
        A line per reason, the most frequent first; a reason that stands alone is its own sentence.
    """
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for sentence in failures:
        what, _, reason = sentence.partition(": ")
        groups[re.sub(r"\d+(?:\.\d+)?", "N", reason)].append((what, reason))
    lines = []
    for found in sorted(groups.values(), key=len, reverse=True):
        what, reason = found[0]
        lines.append(f"{what}: {reason}" if len(found) == 1 else f"{len(found)} × {reason} (first: {what})")
    return lines
