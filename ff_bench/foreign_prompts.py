"""The table that says what videos show and who made them: a CSV or JSON-lines file, one video a row."""

from __future__ import annotations

import csv
import io
import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ff_bench import checks
from ff_bench.errors import UsageError, nearest, shown
from ff_bench.files import user_path
from ff_bench.foreign_files import FIT, Place

COLUMNS = (
    "file", "prompt", "id", "model", "policy", "seed", "budget_tokens", "protocol", "chunk_frames",
    "reference",
)  # fmt: skip
ENDINGS = (".csv", ".jsonl")
LARGEST_BYTES = 64 << 20
LARGEST = 2**53


@dataclass(frozen=True)
class Declared:
    """What a row says of one file; None where it says nothing.

    Attributes:
        prompt: Text, empty where it is not known.
        reference: File of the full-cache video of the same prompt and seed.
    """

    prompt: str
    id: str | None = None
    model: str | None = None
    policy: str | None = None
    seed: int | None = None
    budget_tokens: int | None = None
    protocol: str | None = None
    chunk_frames: int | None = None
    reference: Path | None = None


def read(path: Path, places: Sequence[Place]) -> dict[Path, Declared]:
    """Read a table and find the file of each row.

    Args:
        path: Of the table, ending in .csv or .jsonl.
        places: The videos of the command line.

    Returns:
        What is declared, by file.

    Raises:
        UsageError: For a row that cannot be used, with its number.
    """
    found: dict[Path, Declared] = {}
    for number, row in enumerate(_rows(path), start=1):
        where = f"prompts={path} is not allowed: row {number}"
        file = _file(where, row, path.parent, places)
        if file in found:
            raise UsageError(f"{where} names '{shown(row['file'])}', as a row before it does")
        found[file] = _declared(where, row, path.parent)
    return found


def _rows(path: Path) -> list[dict[str, object]]:
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"prompts={path} is not allowed: it must end in {' or '.join(ENDINGS)}")
    if not path.is_file():
        raise UsageError(f"prompts={path} is not allowed: there is no such file")
    if path.stat().st_size > LARGEST_BYTES:
        raise UsageError(f"prompts={path} is not allowed: it is larger than {LARGEST_BYTES >> 20} MiB")
    try:
        content = path.read_text(encoding="utf-8-sig")
        rows = _csv_rows(content) if path.suffix.lower() == ".csv" else _json_rows(content)
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise UsageError(f"prompts={path} is not allowed: it cannot be read ({error})") from None
    if not rows:
        raise UsageError(f"prompts={path} is not allowed: it has no row")
    return rows


def _csv_rows(content: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    found = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    head = [name.strip() for name in found.fieldnames or ()]
    if len(set(head)) < len(head):
        raise ValueError("a column is there twice")
    for row in found:
        if None in row:
            raise ValueError(f"row {len(rows) + 1} has more cells than the head")
        rows.append({str(name).strip(): cell for name, cell in row.items()})
    return rows


def _json_rows(content: str) -> list[dict[str, object]]:
    rows = []
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not a JSON object")
            rows.append(row)
    return rows


def _file(where: str, row: Mapping[str, object], folder: Path, places: Sequence[Place]) -> Path:
    """Return the one video that a row means, by its path from the table or from a folder searched."""
    name = row.get("file")
    if not isinstance(name, str) or not name.strip():
        raise UsageError(f"{where} has no 'file'")
    own = _below(folder, name)
    matching = [place.path for place in places if place.path in (own, _below(place.root, name))]
    if len(matching) == 1:
        return matching[0]
    if matching:
        several = ", ".join(shown(path) for path in matching[:3])
        raise UsageError(f"{where}: file '{shown(name)}' may be any of {several}; write it from the table on")
    near = nearest(name, [place.relative for place in places])
    hint = f"; did you mean '{shown(near)}'?" if near else ""
    raise UsageError(f"{where}: file '{shown(name)}' is none of the videos{hint}")


def _below(folder: Path, name: str) -> Path:
    return Path(os.path.abspath(folder / user_path(name.strip())))


def _declared(where: str, row: Mapping[str, object], folder: Path) -> Declared:
    """Check the cells of a row; empty ones say nothing."""
    for name in row:
        if name not in COLUMNS:
            near = nearest(name, COLUMNS)
            hint = f"; did you mean '{near}'?" if near else ""
            raise UsageError(f"{where} has a column '{shown(name)}', columns are {', '.join(COLUMNS)}{hint}")
    cells = {name: cell for name, cell in row.items() if cell is not None and str(cell).strip()}
    texts = {name: _text(where, cells, name) for name in ("prompt", "id", "model", "policy", "protocol")}
    if texts["id"] is not None and not FIT.fullmatch(texts["id"]):
        told = "letters, digits, '.', '_' or '-', at most 80 of them"
        raise UsageError(f"{where}: id '{shown(texts['id'])}' must be {told}")
    reference = _text(where, cells, "reference")
    file = None if reference is None else _below(folder, reference)
    if file is not None and not file.is_file():
        raise UsageError(f"{where}: reference '{shown(reference)}' is no file, seen from the table")
    return Declared(
        prompt=texts["prompt"] or "", id=texts["id"], model=texts["model"], policy=texts["policy"],
        seed=_whole(where, cells, "seed", low=0, high=2**31 - 1), protocol=texts["protocol"], reference=file,
        budget_tokens=_whole(where, cells, "budget_tokens", low=1, high=LARGEST),
        chunk_frames=_whole(where, cells, "chunk_frames", low=1, high=LARGEST),
    )  # fmt: skip


def _text(where: str, cells: Mapping[str, object], name: str) -> str | None:
    cell = cells.get(name)
    if cell is None:
        return None
    text = str(cell).strip()
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise UsageError(f"{where}: {name} holds control characters or half a letter")
    return text


def _whole(where: str, cells: Mapping[str, object], name: str, *, low: int, high: int) -> int | None:
    cell = cells.get(name)
    if cell is None:
        return None
    try:
        return checks.whole(name, cell.strip() if isinstance(cell, str) else cell, low=low, high=high)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
