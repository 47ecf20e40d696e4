"""Prompt sets: files in `conf/prompts/` with source, licence and sha256, or a file of the user's."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ff_bench.errors import UsageError, not_one_of, out_of_range
from ff_bench.models.mini.prompt import MiniPrompt

LOGGER = logging.getLogger(__name__)
ENDINGS = (".txt", ".csv", ".jsonl")
LARGEST_BYTES = 16 << 20


@dataclass(frozen=True)
class PromptSpec:
    """One prompt: an id fit for file names, the text that the model reads and its sha256."""

    id: str
    text: str
    sha256: str


@dataclass(frozen=True)
class PromptSet:
    """An ordered list of different prompts.

    Attributes:
        name: name of the set, or of the user's file without its ending.
        prompts: the prompts in order.
        sha256: digest of the whole list (`list_sha256`), before `limit` and `ids`.
        source: where the list is from.
        licence: its licence.
    """

    name: str
    prompts: tuple[PromptSpec, ...]
    sha256: str
    source: str = ""
    licence: str = ""


def list_sha256(texts: Iterable[str]) -> str:
    """Digest a list of prompts: sha256 over the texts, each followed by a newline, in UTF-8."""
    return hashlib.sha256("".join(f"{text}\n" for text in texts).encode()).hexdigest()


def set_files(folder: Path) -> dict[str, Path]:
    """Return the shipped prompt sets by name."""
    return {path.stem: path for path in sorted(folder.glob("*.txt"))}


def load(value: object, folder: Path, *, model: str) -> PromptSet:
    """Load a prompt set by name or path and parse each line for the model.

    Args:
        value: name of a shipped set, or a path that ends in .txt, .csv or .jsonl.
        folder: where the shipped sets are.
        model: name of the model; `mini` reads lines of its own language only.

    Raises:
        UsageError: for an unknown set, a missing or unreadable file, or a line that the model cannot read.
    """
    shipped = set_files(folder)
    if not isinstance(value, str) or not value:
        raise out_of_range("prompts", value, f"a set ({', '.join(shipped)}) or a file {', '.join(ENDINGS)}")
    if value in shipped:
        return _read(value, shipped[value], model=model, is_shipped=True)
    path = Path(value).expanduser()
    if path.suffix not in ENDINGS:
        error = not_one_of("prompts", value, shipped)
        raise UsageError(f"{error}; or give a file that ends in {', '.join(ENDINGS)}")
    if not path.is_file():
        raise UsageError(
            f"prompts={value} is not allowed: there is no such file; sets are {', '.join(shipped)}"
        )
    return _read(value, path, model=model, is_shipped=False)


def choose(
    prompts: PromptSet, *, ids: Sequence[str | int] | None, limit: int | None
) -> tuple[PromptSpec, ...]:
    """Take the asked ids (or positions from 0) in the order of the set, then the first `limit`.

    Raises:
        UsageError: for an id or position that the set does not have.
    """
    chosen = prompts.prompts
    if ids is not None:
        wanted = {_position(prompts, item) for item in ids}
        chosen = tuple(prompt for place, prompt in enumerate(chosen) if place in wanted)
    return chosen if limit is None else chosen[:limit]


def _position(prompts: PromptSet, item: str | int) -> int:
    known = [prompt.id for prompt in prompts.prompts]
    if isinstance(item, int):
        if not 0 <= item < len(known):
            raise out_of_range(
                "ids", item, f"positions from 0 to {len(known) - 1} or ids of the set {prompts.name}"
            )
        return item
    if item not in known:
        raise not_one_of("ids", item, known)
    return known.index(item)


def _read(value: str, path: Path, *, model: str, is_shipped: bool) -> PromptSet:
    if path.stat().st_size > LARGEST_BYTES:
        raise UsageError(f"prompts={value} is not allowed: the file is larger than {LARGEST_BYTES >> 20} MiB")
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise UsageError(
            f"prompts={value} is not allowed: the file cannot be read as UTF-8 ({error})"
        ) from None
    header, entries = _entries(value, path.suffix, content)
    if not entries:
        raise UsageError(f"prompts={value} is not allowed: the file holds no prompt")
    digest = list_sha256(text for _, text in entries)
    if header.get("sha256", digest) != digest:
        raise UsageError(
            f"prompts={value} is not allowed: its header says sha256 {header['sha256']}, "
            f"its lines give {digest}"
        )
    specs = tuple(
        _spec(value, place, identity, text, model=model) for place, (identity, text) in enumerate(entries)
    )
    name = value if is_shipped else path.stem
    return PromptSet(
        name, _different(value, specs), digest, header.get("source", ""), header.get("licence", "")
    )


def _entries(value: str, ending: str, content: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    if ending == ".txt":
        return _text_entries(content)
    rows = _csv_rows(value, content) if ending == ".csv" else _json_rows(value, content)
    entries = []
    for place, row in enumerate(rows):
        text = row.get("prompt", row.get("text"))
        if not isinstance(text, str) or not text.strip():
            raise UsageError(
                f"prompts={value} is not allowed: row {place + 1} has no text in a field 'prompt' or 'text'"
            )
        entries.append((str(row.get("id") or ""), text.strip()))
    return {}, entries


def _text_entries(content: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    header: dict[str, str] = {}
    entries: list[tuple[str, str]] = []
    for line in content.split("\n"):
        key = re.fullmatch(r"# (\w+): (.*)", line.rstrip())
        if key and not entries:
            header[key[1]] = key[2].strip()
        elif line.strip() and not (line.startswith("#") and not entries):
            entries.append(("", line.strip()))
    return header, entries


def _csv_rows(value: str, content: str) -> list[dict[str, object]]:
    try:
        return [dict(row) for row in csv.DictReader(io.StringIO(content), strict=True)]
    except csv.Error as error:
        raise UsageError(f"prompts={value} is not allowed: not a CSV file ({error})") from None


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


def _spec(value: str, place: int, identity: str, text: str, *, model: str) -> PromptSpec:
    if any(unicodedata.category(letter) == "Cc" for letter in text):
        raise UsageError(f"prompts={value} is not allowed: prompt {place + 1} holds control characters")
    if model == "mini":
        try:
            parsed = MiniPrompt.parse(text)
        except ValueError as error:
            raise UsageError(
                f"prompts={value} is not allowed with model=mini: prompt {place + 1}: {error}"
            ) from None
        identity, text = identity or parsed.id, parsed.text
    digest = hashlib.sha256(text.encode()).hexdigest()
    if identity and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", identity):
        raise UsageError(
            f"prompts={value} is not allowed: id '{identity}' of prompt {place + 1} "
            "must be letters, digits, '.', '_' or '-'"
        )
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:32].strip("-")
    return PromptSpec(id=identity or f"{slug or 'prompt'}-{digest[:8]}", text=text, sha256=digest)


def _different(value: str, specs: Sequence[PromptSpec]) -> tuple[PromptSpec, ...]:
    seen: dict[str, PromptSpec] = {}
    for spec in specs:
        if spec.id in seen and seen[spec.id].text != spec.text:
            raise UsageError(
                f"prompts={value} is not allowed: id '{spec.id}' stands for two different prompts"
            )
        seen.setdefault(spec.id, spec)
    if len(seen) < len(specs):
        LOGGER.warning("%s: %d repeated prompts are used once", value, len(specs) - len(seen))
    return tuple(seen.values())
