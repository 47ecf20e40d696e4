"""Whether a CSV file is a whole table: what parsers mend in silence, such as a torn last line, is told."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

LONGEST = 1 << 24
"""Signs of a cell; the module's own limit is that of a short note."""


def fault(path: Path, wanted: Sequence[str]) -> str:
    """Say what is wrong with the shape of a table; empty where every row has a cell for every column.

    Args:
        path: of the file.
        wanted: columns that it must have.

    Raises:
        OSError: where it cannot be read.
        UnicodeDecodeError: where it is no UTF-8.
    """
    before = csv.field_size_limit(LONGEST)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return _fault(csv.reader(stream, strict=True), wanted)
    except csv.Error as error:
        return f"it is no CSV file ({error})"
    finally:
        csv.field_size_limit(before)


def _fault(rows: Iterator[list[str]], wanted: Sequence[str]) -> str:
    head: list[str] = next(rows, [])
    missing = [name for name in wanted if name not in head]
    if missing:
        several = len(head) < 2 and any(sign in "".join(head) for sign in ";\t|")
        return f"it has no column {missing[0]}" + (", cells are separated by commas" if several else "")
    for name in head:
        if head.count(name) > 1:
            return f"it has two columns {name}"
    for number, row in enumerate(rows, start=1):
        if row and len(row) != len(head):
            return f"row {number} has {len(row)} cells, the head {len(head)}: it may be cut short"
        if any("\0" in cell for cell in row):
            return f"row {number} holds a sign that no text has (NUL)"
    return ""
