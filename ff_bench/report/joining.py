"""Videos that were not made here: which tables of ours they join, and which tables they have alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ff_bench.foreign import FOREIGN
from ff_bench.models.facts import find

Group = tuple[Mapping[str, object], pd.DataFrame]
ELSEWHERE = '{"made":"elsewhere"}'
"""Policy fields of a video that joined a table of ours: its policy is not ours, whatever its name."""
_LIST = ["model", "prompt_set", "prompt_list_sha256"]
_GROUP = [*_LIST, "protocol", "frames", "fps", "size"]


@dataclass(frozen=True)
class _Part:
    """Videos of one model, list of prompts, protocol, length, rate and size."""

    key: Mapping[str, object]
    rows: pd.DataFrame


def is_foreign(rows: pd.DataFrame) -> pd.Series:
    """Say which rows are of videos that were not made here."""
    found: pd.Series = rows["checkpoint"].astype(str) == FOREIGN
    return found


def join(own: Iterable[Group], rows: pd.DataFrame) -> Iterator[Group]:
    """Yield the groups of our videos with those that join them, then the groups of all others.

    Others join where the model that they name, the size, number and rate of frames agree, and their prompts
    are among ours; they pair by the text of the prompt. Where they name a protocol, that must agree as well.

    Args:
        own: Keys and rows of our groups.
        rows: Of videos that were not made here.
    """
    parts = _parts(rows)
    joined: set[int] = set()
    for key, part in own:
        found = [place for place, other in enumerate(parts) if _fits(other, key, part)]
        joined.update(found)
        yield key, pd.concat([part, *(_paired(parts[place].rows, key, part) for place in found)])
    yield from ((other.key, other.rows) for place, other in enumerate(parts) if place not in joined)


def _parts(rows: pd.DataFrame) -> list[_Part]:
    """Cut rows into videos of one kind; broken ones, of no kind, stay with others of their list."""
    if rows.empty:
        return []
    sizes = rows["protocol_fields"].map(lambda fields: facts_of(fields).get("size", ""))
    rows = rows.assign(size=sizes, **{name: rows[name].fillna("") for name in _LIST})
    broken = rows["frames"] == 0
    parts = [_Part(_key(values), part) for values, part in rows[~broken].groupby(_GROUP, sort=True)]
    homeless = []
    for values, part in rows[broken].groupby([*_LIST, "policy"], sort=True):
        home = _home(parts, values[:-1], str(values[-1]))
        if home is None:
            homeless.append(part)
        else:
            parts[home] = _Part(parts[home].key, pd.concat([parts[home].rows, part]))
    alone = pd.concat(homeless) if homeless else rows[:0]
    lost = alone.groupby(_LIST, sort=True)
    return [*parts, *(_Part(_key((*values, FOREIGN, 0, 0.0, "")), part) for values, part in lost)]


def _home(parts: Sequence[_Part], listed: tuple[object, ...], policy: str) -> int | None:
    """Return the place of the most videos of a list of prompts, of the same policy where there are any."""
    same = [place for place, part in enumerate(parts) if tuple(part.key[name] for name in _LIST) == listed]
    own = [place for place in same if (parts[place].rows["policy"] == policy).any()]
    return max(own or same, key=lambda place: parts[place].rows["video_id"].nunique(), default=None)


def _key(values: tuple[object, ...]) -> dict[str, object]:
    unknown = {"checkpoint": FOREIGN, "steps": "", "dtype": "", "batch": "", "device": ""}
    return {**dict(zip(_GROUP, values, strict=True)), **unknown}


def _fits(other: _Part, key: Mapping[str, object], rows: pd.DataFrame) -> bool:
    """Say whether others may stand in a table of ours."""
    same = all(other.key[name] == key[name] for name in ("model", "frames", "fps"))
    facts = find(str(key["model"]))
    if not same or (facts is not None and other.key["size"] != f"{facts.width}x{facts.height}"):
        return False
    texts = {*other.rows["prompt_text"].fillna("")}
    return other.key["protocol"] in (FOREIGN, key["protocol"]) and texts <= {*rows["prompt_text"]} - {""}


def _paired(others: pd.DataFrame, key: Mapping[str, object], rows: pd.DataFrame) -> pd.DataFrame:
    """Give others the names that our prompts have, and fields that keep them apart from policies of ours."""
    names = dict(zip(rows["prompt_text"], rows["prompt_id"], strict=True))
    return others.assign(
        prompt_id=others["prompt_text"].map(names), policy_fields=ELSEWHERE,
        prompt_set=str(key["prompt_set"]), prompt_list_sha256=str(key["prompt_list_sha256"]),
    ).drop(columns="size")  # fmt: skip


def facts_of(protocol_fields: object) -> Mapping[str, object]:
    """Read what the rows of a foreign video say of its file: `size`, and `rate` where that varies."""
    try:
        found = json.loads(protocol_fields) if isinstance(protocol_fields, str) else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
