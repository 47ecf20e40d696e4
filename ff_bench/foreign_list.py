"""Every video of a command line, with what its table, the command, its folders and its name say of it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ff_bench.errors import UsageError, shown
from ff_bench.foreign import FOREIGN, Foreign
from ff_bench.foreign_files import Found, Place, digest_of
from ff_bench.foreign_prompts import Declared
from ff_bench.models.mini.prompt import MiniPrompt
from ff_bench.models.mini.recipe import is_mini
from ff_bench.prompts import list_sha256

REFERENCE_POLICY = "full"


@dataclass(frozen=True)
class Defaults:
    """What the command says of every video that its table does not.

    Attributes:
        out: Directory of runs.
        model: Name of the model; None is `foreign`.
        policy: Name of the policy; None takes the folders of each file.
        table: The table, None without one.
    """

    out: Path
    model: str | None = None
    policy: str | None = None
    table: Path | None = None


def describe(found: Found, declared: Mapping[Path, Declared], defaults: Defaults) -> list[Foreign]:
    """Say of each file what it is; the nearest source wins: table, command, folder and name.

    Raises:
        UsageError: Where two rows of the table stand for one prompt, seed and policy, a reference has one
            itself, or a prompt of the embedded model is not of its language.
    """
    videos = [_one(place, declared.get(place.path), defaults) for place in found.places]
    videos = _apart(videos, found.places, declared, defaults)
    videos = _with_lists(videos, declared, found, defaults)
    return _with_references([_read_by_mini(one) for one in videos], declared)


def _one(place: Place, row: Declared | None, defaults: Defaults) -> Foreign:
    said = row or Declared("")
    return Foreign(
        path=place.path, out=defaults.out, model=said.model or defaults.model or FOREIGN,
        policy=said.policy or defaults.policy or place.policy, prompt=said.prompt,
        prompt_id=said.id or (_id_of(said.prompt) if said.prompt else place.id),
        seed=place.seed if said.seed is None else said.seed, budget_tokens=said.budget_tokens,
        protocol=said.protocol or FOREIGN, chunk_frames=said.chunk_frames,
    )  # fmt: skip


def _id_of(prompt: str) -> str:
    """Name a prompt as a file of prompts without ids does, so that videos of ours pair with it."""
    slug = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:32].strip("-")
    return f"{slug or 'prompt'}-{hashlib.sha256(prompt.encode()).hexdigest()[:8]}"


def _apart(
    videos: Sequence[Foreign], places: Sequence[Place], declared: Mapping[Path, Declared], defaults: Defaults
) -> list[Foreign]:
    """Keep files apart that would stand for the same prompt, seed and policy, such as a.mp4 and a.webm."""
    counts = Counter(_cell(one) for one in videos)
    kept = []
    for one, place in zip(videos, places, strict=True):
        if counts[_cell(one)] == 1:
            kept.append(one)
        elif one.path in declared:
            raise UsageError(
                f"prompts={defaults.table} is not allowed: '{shown(place.relative)}' is not the only video "
                f"of prompt {one.prompt_id}, seed {one.seed}, policy '{shown(one.policy)}'; give seeds or ids"
            )
        else:
            name = f"{one.prompt_id[:70]}-{digest_of(place.relative)}"
            kept.append(replace(one, prompt_id=name))
    return kept


def _cell(one: Foreign) -> tuple[object, ...]:
    return one.model, one.policy, one.budget_tokens, one.protocol, one.prompt_id, one.seed


def _with_lists(
    videos: Sequence[Foreign], declared: Mapping[Path, Declared], found: Found, defaults: Defaults
) -> list[Foreign]:
    """Name the list of prompts: the table with its texts, or the folder with the names of its files."""
    listed = [one for one in videos if one.path in declared]
    texts = list_sha256(sorted({one.prompt or one.prompt_id for one in listed}))
    names = list_sha256(sorted({one.prompt_id for one in videos if one.path not in declared}))
    table = defaults.table.stem if defaults.table else ""
    return [
        replace(one, prompt_set=table, prompt_list_sha256=texts)
        if one.path in declared
        else replace(one, prompt_set=found.name, prompt_list_sha256=names)
        for one in videos
    ]


def _read_by_mini(one: Foreign) -> Foreign:
    """Let the embedded model read its prompt, which says what the pictures should be."""
    if not is_mini(one.model):
        return one
    try:
        return replace(one, prompt=MiniPrompt.parse(one.prompt).text)
    except ValueError as error:
        raise UsageError(
            f"model={one.model} is not allowed for '{shown(one.path.name)}': its prompt is none of that "
            f"model, give prompts=FILE.csv ({error})"
        ) from None


def _with_references(videos: Sequence[Foreign], declared: Mapping[Path, Declared]) -> list[Foreign]:
    """Find the reference of each video; one that is not listed itself is a full cache with that prompt."""
    by_path = {one.path: one for one in videos}
    used = {row.reference for row in declared.values() if row.reference is not None}
    paired = []
    for one in videos:
        row = declared.get(one.path)
        file = row.reference if row else None
        if file is not None and file != one.path:
            if one.path in used:
                raise UsageError(
                    f"'{shown(one.path.name)}' is the reference of another video and so can have none itself"
                )
            own = replace(one, path=file, policy=REFERENCE_POLICY, protocol=FOREIGN)
            own = replace(own, budget_tokens=None, chunk_frames=None)
            one = replace(one, reference=by_path.setdefault(file, own))
        paired.append(one)
    return paired


def references(videos: Iterable[Foreign]) -> list[Foreign]:
    """Return the references that are not listed themselves, each once."""
    listed = [*videos]
    own = {one.path for one in listed}
    found = {one.reference.path: one.reference for one in listed if one.reference is not None}
    return [one for path, one in found.items() if path not in own]
