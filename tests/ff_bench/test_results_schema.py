"""docs/results_schema.md lists the columns of rows, all of them and no other."""

from __future__ import annotations

import re
from pathlib import Path

from ff_bench import records

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "results_schema.md").read_text(encoding="utf-8")


def documented(text: str) -> list[str]:
    return re.findall(r"^\| `([a-z0-9_]+)` \|", text, flags=re.MULTILINE)


def test_every_column_is_documented_in_order_and_nothing_else() -> None:
    result, provenance = TEXT.split("Provenance:")
    assert tuple(documented(result)) == records.COLUMNS
    assert tuple(documented(provenance)) == records.PROVENANCE


def test_every_line_has_all_its_cells() -> None:
    lines = [line for line in TEXT.splitlines() if re.match(r"\| `", line)]
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == 5, line
        assert all(cells[place] for place in (0, 1, 3, 4)), line


def test_schema_key_and_statuses_are_those_of_the_code() -> None:
    assert f"Schema **{records.SCHEMA}**" in TEXT
    assert ", ".join(f"`{name}`" for name in records.KEY) in TEXT
    assert all(f"`{status}`" in TEXT for status in records.STATUSES)
