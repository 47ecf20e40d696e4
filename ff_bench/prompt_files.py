"""Files of prompts: .txt a prompt a line, .csv and .jsonl with ids; .jsonl also with switches and a start."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ff_bench.errors import UsageError, shown
from ff_bench.files import user_path
from ff_bench.quantities import parse_seconds

ENDINGS = (".txt", ".csv", ".jsonl")
STARTS = (".png", ".jpg", ".jpeg", ".webp", ".mp4", ".mkv", ".webm", ".mov", ".safetensors")
"""Endings of what a video can start from: a picture, a clip, latents."""
LARGEST_BYTES = 16 << 20


@dataclass(frozen=True)
class Entry:
    """One prompt as a file has it.

    Attributes:
        id: as written, or empty.
        text: what holds from the beginning.
        switches: times in seconds and the texts that hold from then on, times increasing.
        start: picture, clip or latents that the video starts from, or None.
        start_sha256: digest of that file, empty without one.
    """

    id: str
    text: str
    switches: tuple[tuple[float, str], ...] = ()
    start: Path | None = None
    start_sha256: str = ""

    @property
    def signature(self) -> str:
        """Everything that tells this prompt from others, as text; of a plain prompt its text alone."""
        lines = [self.text, *(f"{seconds:g}s {text}" for seconds, text in self.switches)]
        return "\n".join([*lines, f"start {self.start_sha256}"] if self.start else lines)


def read(value: str, path: Path) -> tuple[dict[str, str], list[Entry]]:
    """Read a file of prompts.

    Args:
        value: what the user wrote, for errors.
        path: the file.

    Returns:
        The fields of its header (of a .txt file, `# key: value`), and its prompts, at least one.

    Raises:
        UsageError: where it cannot be read, or holds something else.
    """
    content = _content(value, path)
    header: dict[str, str] = {}
    if path.suffix == ".txt":
        header, entries = _text_entries(content)
    else:
        rows = _csv_rows(value, content) if path.suffix == ".csv" else _json_rows(value, content)
        entries = [_entry(value, f"row {place + 1}", row, path) for place, row in enumerate(rows)]
    if not entries:
        raise UsageError(f"prompts={value} is not allowed: the file holds no prompt")
    for place, entry in enumerate(entries):
        _check_signs(value, f"prompt {place + 1}", (entry.text, *(text for _, text in entry.switches)))
    return header, entries


def _content(value: str, path: Path) -> str:
    if path.stat().st_size > LARGEST_BYTES:
        raise UsageError(f"prompts={value} is not allowed: the file is larger than {LARGEST_BYTES >> 20} MiB")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise UsageError(
            f"prompts={value} is not allowed: the file cannot be read as UTF-8 ({error})"
        ) from None


def _text_entries(content: str) -> tuple[dict[str, str], list[Entry]]:
    header: dict[str, str] = {}
    entries: list[Entry] = []
    for line in content.split("\n"):
        key = re.fullmatch(r"# (\w+): (.*)", line.rstrip())
        if key and not entries:
            header[key[1]] = key[2].strip()
        elif line.strip() and not (line.startswith("#") and not entries):
            entries.append(Entry("", line.strip()))
    return header, entries


def _csv_rows(value: str, content: str) -> list[dict[str, object]]:
    try:
        found = csv.DictReader(io.StringIO(content), strict=True)
        rows: list[dict[str, object]] = [dict(row) for row in found]
    except csv.Error as error:
        raise UsageError(f"prompts={value} is not allowed: not a CSV file ({error})") from None
    _check_cells(value, found.fieldnames or (), rows)
    for key in ("switch", "start"):
        if any(row.pop(key, None) for row in rows):
            raise UsageError(
                f"prompts={value} is not allowed: '{key}' cannot stand in a .csv file, write .jsonl"
            )
    return rows


def _check_cells(value: str, head: Sequence[str], rows: Sequence[Mapping[Any, object]]) -> None:
    """Refuse cells whose column is not clear: a comma in a prompt without quotes would cut it short."""
    for place, row in enumerate(rows, start=1):
        if None in row:
            raise UsageError(
                f"prompts={value} is not allowed: row {place} has more cells than the head has columns; "
                "texts with a comma stand in double quotes"
            )
    for name in head:
        if list(head).count(name) > 1:
            raise UsageError(f"prompts={value} is not allowed: it has two columns '{shown(name)}'")


def _json_rows(value: str, content: str) -> list[dict[str, object]]:
    rows = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UsageError(f"prompts={value} is not allowed: line {number} is not a JSON object")
        rows.append(row)
    return rows


def _entry(value: str, where: str, row: Mapping[str, object], path: Path) -> Entry:
    text = row.get("prompt", row.get("text"))
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f"prompts={value} is not allowed: {where} has no text in a field 'prompt' or 'text'")
    start = _start(value, where, row.get("start"), path.parent)
    return Entry(
        id=str(row.get("id") or ""), text=text.strip(), switches=_switches(value, where, row.get("switch")),
        start=start, start_sha256=_file_sha256(value, where, start) if start else "",
    )  # fmt: skip


def _switches(value: str, where: str, switch: object) -> tuple[tuple[float, str], ...]:
    """Read `[["20s", "text"], ...]`."""
    if switch is None:
        return ()
    found: list[tuple[float, str]] = []
    for item in switch if isinstance(switch, list) else [switch]:
        seconds, text = _switch(value, where, item)
        if seconds <= (found[-1][0] if found else 0):
            before = f"the one at {found[-1][0]:g}s" if found else "the beginning"
            raise UsageError(
                f"prompts={value} is not allowed: switch of {where} at {seconds:g}s must come after {before}"
            )
        found.append((seconds, text))
    return tuple(found)


def _switch(value: str, where: str, item: object) -> tuple[float, str]:
    if isinstance(item, list) and len(item) == 2 and isinstance(item[1], str) and item[1].strip():
        return float(parse_seconds(f"switch of {where} in prompts={value}", item[0])), item[1].strip()
    raise UsageError(
        f"prompts={value} is not allowed: switch of {where} holds {shown(item)}, allowed is a list of pairs "
        'of a time and a text such as [["20s", "what holds from then on"]]'
    )


def _start(value: str, where: str, start: object, folder: Path) -> Path | None:
    """Read a path, relative to the file of prompts."""
    if start is None:
        return None
    if not isinstance(start, str) or Path(start).suffix.lower() not in STARTS:
        raise UsageError(
            f"prompts={value} is not allowed: start of {where} is {shown(start)}, allowed is a file that "
            f"ends in {', '.join(STARTS)}"
        )
    try:
        path = folder / user_path(start)
        is_file = path.is_file()
    except (OSError, ValueError, RuntimeError):
        is_file = False
    if not is_file:
        raise UsageError(
            f"prompts={value} is not allowed: start of {where} is {shown(start)}, there is no such file "
            f"beside the prompts"
        )
    return path


def _file_sha256(value: str, where: str, path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(
            f"prompts={value} is not allowed: start of {where} cannot be read ({error})"
        ) from None


def _check_signs(value: str, where: str, texts: Sequence[str]) -> None:
    kinds = {unicodedata.category(letter) for text in texts for letter in text}
    if "Cc" in kinds:
        raise UsageError(f"prompts={value} is not allowed: {where} holds control characters")
    if "Cs" in kinds:
        raise UsageError(f"prompts={value} is not allowed: {where} holds half a letter (\\ud800)")
