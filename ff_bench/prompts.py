"""Prompt sets: files in `conf/prompts/` with source, licence and sha256, sets of papers, files of users."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ff_bench import prompt_files, prompt_sets
from ff_bench.errors import UsageError, not_one_of, out_of_range, shown
from ff_bench.files import user_path
from ff_bench.models.facts import ModelFacts
from ff_bench.models.mini.prompt import WORLDS, MiniPrompt
from ff_bench.prompt_files import ENDINGS, Entry

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class PromptSpec:
    """One prompt.

    Attributes:
        id: fit for file names.
        text: what the model reads.
        sha256: digest of the text and, where there are any, of the switches.
        switches: times in seconds and the texts that hold from then on, times increasing.
        start: picture, clip or latents that the video starts from, or None.
        start_sha256: digest of that file, empty without one.
    """

    id: str
    text: str
    sha256: str
    switches: tuple[tuple[float, str], ...] = ()
    start: Path | None = None
    start_sha256: str = ""

    @property
    def later(self) -> tuple[str, ...]:
        """The texts of its switches."""
        return tuple(text for _, text in self.switches)


@dataclass(frozen=True)
class PromptSet:
    """An ordered list of different prompts.

    Attributes:
        name: name of the set, or of the user's file without its ending.
        prompts: the prompts in order.
        sha256: digest of the whole list (`list_sha256`), before `limit`, `ids` and `subset`.
        source: where the list is from.
        licence: its licence.
    """

    name: str
    prompts: tuple[PromptSpec, ...]
    sha256: str
    source: str = ""
    licence: str = ""


def list_sha256(texts: Iterable[str]) -> str:
    """Digest a list of prompts: sha256 over their signatures, each followed by a newline, in UTF-8."""
    return hashlib.sha256("".join(f"{text}\n" for text in texts).encode()).hexdigest()


def set_files(folder: Path) -> dict[str, Path]:
    """Return the shipped prompt sets by name."""
    return {path.stem: path for path in sorted(folder.glob("*.txt"))}


def load(value: object, folder: Path, *, model: ModelFacts) -> PromptSet:
    """Load a prompt set by name or path and parse each prompt for the model.

    Args:
        value: name of a shipped set or one of `prompt_sets.csv`, or a path that ends in .txt, .csv, .jsonl.
        folder: where the shipped sets are.
        model: sizes of the model; `mini` reads lines of its own language only.

    Raises:
        UsageError: for an unknown set, one that is not fetched, a missing or unreadable file, or a prompt
            that the model cannot read.
    """
    shipped = set_files(folder)
    known = [*shipped, *prompt_sets.manifest()]
    if not isinstance(value, str) or not value:
        raise out_of_range("prompts", value, f"a set ({', '.join(known)}) or a file {', '.join(ENDINGS)}")
    if value in known:
        _check_set(value, known, model)
        listed = None if value in shipped else prompt_sets.manifest()[value]
        path = shipped[value] if listed is None else prompt_sets.path(value)
        return _read(value, path, model=model, name=value, listed=listed)
    path = user_path(value)
    if path.suffix not in ENDINGS:
        error = not_one_of("prompts", value, known)
        raise UsageError(f"{error}; or give a file that ends in {', '.join(ENDINGS)}")
    if not path.is_file():
        raise UsageError(
            f"prompts={value} is not allowed: there is no such file; sets are {', '.join(known)}"
        )
    return _read(value, path, model=model, name=path.stem)


def _check_set(value: str, known: Iterable[str], model: ModelFacts) -> None:
    """Refuse worlds for a model of text, and text for a model of worlds."""
    if model.prompt_sets and value not in model.prompt_sets:
        told = "a world that it cannot follow" if value in WORLDS else "text"
        allowed = model.prompt_sets
    elif not model.prompt_sets and value in WORLDS:
        told, allowed = "worlds of the embedded model", tuple(name for name in known if name not in WORLDS)
    else:
        return
    raise UsageError(
        f"prompts={value} is not allowed with model={model.name}: it holds {told}, allowed are "
        f"{', '.join(allowed)} and files of your own"
    )


def choose(
    prompts: PromptSet, *, ids: Sequence[str | int] | None, limit: int | None, subset: int | None = None
) -> tuple[PromptSpec, ...]:
    """Take the asked ids (or positions from 0) in the order of the set, then the first `limit`.

    Args:
        prompts: the set.
        ids: ids or positions; None for all.
        limit: how many of the first; None for all.
        subset: this many instead, spread over the set by chance; a smaller one is part of a larger one.

    Raises:
        UsageError: for an id or position that the set does not have, or a subset larger than the set.
    """
    chosen = prompts.prompts
    if subset is not None:
        return _subset(prompts, subset)
    if ids is not None:
        wanted = {_position(prompts, item) for item in ids}
        chosen = tuple(prompt for place, prompt in enumerate(chosen) if place in wanted)
    return chosen if limit is None else chosen[:limit]


def _subset(prompts: PromptSet, size: int) -> tuple[PromptSpec, ...]:
    """Draw by the list's own digest: the same on every machine, other prompts for another list."""
    every = prompts.prompts
    if not 1 <= size <= len(every):
        raise out_of_range(
            "subset", size, f"a whole number from 1 to {len(every)}, the prompts of {prompts.name}"
        )
    drawn = sorted(range(len(every)), key=lambda place: _sha256(f"{prompts.sha256} {every[place].sha256}"))
    return tuple(every[place] for place in sorted(drawn[:size]))


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


def _read(
    value: str, path: Path, *, model: ModelFacts, name: str, listed: prompt_sets.Listed | None = None
) -> PromptSet:
    header, entries = prompt_files.read(value, path)
    if listed is not None:
        header = {"source": listed.source, "licence": listed.licence}
        entries = _lines(path, listed.places) if listed.of else entries
    digest = list_sha256(entry.signature for entry in entries)
    if header.get("sha256", digest) != digest:
        raise UsageError(
            f"prompts={value} is not allowed: its header says sha256 {header['sha256']}, "
            f"its lines give {digest}"
        )
    specs = tuple(_spec(value, f"prompt {place + 1}", entry, model) for place, entry in enumerate(entries))
    return PromptSet(
        name, _different(value, specs), digest, header.get("source", ""), header.get("licence", "")
    )


def _lines(path: Path, places: Iterable[int]) -> list[Entry]:
    """Pick lines by their number from 0, empty ones counted."""
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    return [Entry("", lines[place].strip()) for place in places]


def _spec(value: str, where: str, entry: Entry, model: ModelFacts) -> PromptSpec:
    entry = _read_by(model, value, where, entry)
    if entry.id and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", entry.id):
        raise UsageError(
            f"prompts={value} is not allowed: id '{shown(entry.id)}' of {where} must be letters, digits, "
            "'.', '_' or '-'"
        )
    slug = re.sub(r"[^a-z0-9]+", "-", entry.text.lower()).strip("-")[:32].strip("-")
    return PromptSpec(
        id=entry.id or f"{slug or 'prompt'}-{_sha256(entry.signature)[:8]}", text=entry.text,
        sha256=_sha256(replace(entry, start=None).signature), switches=entry.switches, start=entry.start,
        start_sha256=entry.start_sha256,
    )  # fmt: skip


def _read_by(model: ModelFacts, value: str, where: str, entry: Entry) -> Entry:
    """Let the model read a prompt; the embedded one has a language of its own, with a canonical form."""
    if entry.switches and model.prompt_sets:
        raise UsageError(
            f"prompts={value} is not allowed with model={model.name}: {where} has a switch, which only a "
            "model of text can follow"
        )
    if entry.start and not model.takes_start:
        raise UsageError(
            f"prompts={value} is not allowed with model={model.name}: {where} has a start, which only a "
            "model of text that makes one chunk after the other can follow"
        )
    if model.architecture != "mini":
        return entry
    try:
        parsed = MiniPrompt.parse(entry.text)
    except ValueError as error:
        raise UsageError(
            f"prompts={value} is not allowed with model={model.name}: {where}: {error}"
        ) from None
    return replace(entry, id=entry.id or parsed.id, text=parsed.text)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _different(value: str, specs: Sequence[PromptSpec]) -> tuple[PromptSpec, ...]:
    seen: dict[str, PromptSpec] = {}
    for spec in specs:
        if spec.id in seen and seen[spec.id] != spec:
            raise UsageError(
                f"prompts={value} is not allowed: id '{spec.id}' stands for two different prompts"
            )
        seen.setdefault(spec.id, spec)
    if len(seen) < len(specs):
        LOGGER.warning("%s: %d repeated prompts are used once", value, len(specs) - len(seen))
    return tuple(seen.values())
