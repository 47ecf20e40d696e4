"""`ff-bench prompts list|fetch|verify [NAMES ...]`: the prompt sets that papers use."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ff_bench import prompt_fetching, prompt_sets
from ff_bench.download import Failed, Opener, over_https
from ff_bench.errors import UsageError, nearest, not_one_of
from ff_bench.files import user_path
from ff_bench.plan import grid
from ff_bench.prompt_sets import Listed

ACTIONS = ("list", "fetch", "verify")
FLAGS = ("--from",)
COLUMNS = ("prompts", "lines", "licence", "state", "source")


@dataclass(frozen=True)
class Request:
    """What was asked.

    Attributes:
        action: `list`, `fetch` or `verify`.
        names: of sets; none means all.
        source: folder to copy from; None fetches from the sets' addresses.
    """

    action: str
    names: tuple[str, ...] = ()
    source: Path | None = None


def run(words: Sequence[str], *, opener: Opener = over_https) -> int:
    """List, get or check prompt sets; the last line is JSON with the state of each.

    Args:
        words: of the command line after `prompts`.
        opener: opens an address.

    Returns:
        1 where a file could not be had or is another one, else 0.

    Raises:
        UsageError: with one sentence for the user.
    """
    asked = read(words)
    chosen = select(asked.names)
    failures = _fetch(asked, chosen, opener) if asked.action == "fetch" else []
    states = {one.name: prompt_sets.state(one.name) for one in chosen}
    if asked.action == "list":
        print("\n".join(grid((*COLUMNS, "what"), [(*shown(one), one.about) for one in chosen])))
    if asked.action == "verify":
        print("\n".join(grid(("prompts", "state", "sha256"), [_compared(one, states) for one in chosen])))
    for sentence in failures:
        print(f"failed: {sentence}", file=sys.stderr)
    print(f"\nprompts  {prompt_sets.folder()}")
    print(json.dumps({"folder": str(prompt_sets.folder()), "states": states}))
    wrong = asked.action == "verify" and prompt_sets.OTHER in states.values()
    return 1 if failures or wrong else 0


def read(words: Sequence[str]) -> Request:
    """Read the command line.

    Raises:
        UsageError: for an unknown action or flag, or a folder that is not there.
    """
    if not words:
        raise UsageError(f"prompts needs one of {', '.join(ACTIONS)}: ff-bench prompts list")
    action, *rest = words
    if action not in ACTIONS:
        raise not_one_of("prompts", action, ACTIONS)
    names: list[str] = []
    source = None
    while rest:
        word = rest.pop(0)
        flag, has_value, value = word.partition("=")
        if not word.startswith("-"):
            names.append(word)
        elif flag == "--from" and action == "fetch":
            if not has_value and not rest:
                raise UsageError("--from needs a folder: ff-bench prompts fetch --from DIR")
            source = _folder(value if has_value else rest.pop(0))
        else:
            raise _unknown_flag(action, word)
    return Request(action, tuple(names), source)


def select(names: Iterable[str]) -> list[Listed]:
    """Return the named sets in the order of the manifest; all for no name.

    Raises:
        UsageError: for a name that the manifest does not have, with the nearest.
    """
    known, listed = prompt_sets.manifest(), list(names)
    for name in listed:
        if name not in known:
            raise not_one_of("prompts", name, known)
    return [one for name, one in known.items() if name in listed or not listed]


def shown(one: Listed) -> tuple[str, ...]:
    """Return what `COLUMNS` name of a set."""
    source = f"of {one.of}: {one.source}" if one.of else one.source
    return one.name, str(one.prompts), one.licence, prompt_sets.state(one.name), source


def _fetch(asked: Request, chosen: Sequence[Listed], opener: Opener) -> list[str]:
    """Get the files of the chosen sets; return a sentence for each that could not be had."""
    failures = []
    for name in dict.fromkeys(prompt_sets.base(one.name).name for one in chosen):
        try:
            _get(prompt_sets.manifest()[name], asked, opener)
        except Failed as error:
            failures.append(str(error))
    return failures


def _get(one: Listed, asked: Request, opener: Opener) -> None:
    """Get one file unless it is here."""
    state = prompt_sets.state(one.name)
    if state == prompt_sets.OTHER:
        raise Failed(
            f"{one.name} is not fetched: {prompt_sets.place(one.name)} is another file, remove it to get "
            "this one"
        )
    if state == prompt_sets.HERE:
        print(f"{one.name} is here", flush=True)
        return
    if asked.source is not None:
        came = prompt_fetching.copy(one, asked.source)
        print(f"{one.name}, licence {one.licence}: copied from {came}", flush=True)
        return
    with tqdm(desc=one.name, unit="B", unit_scale=True, unit_divisor=1024, disable=None) as bar:

        def show(done: int, whole: int | None) -> None:
            bar.total = whole
            bar.update(done - bar.n)

        url = prompt_fetching.fetch(one, opener=opener, progress=show)
    print(f"{one.name}, licence {one.licence}: {one.prompts} prompts from {url}", flush=True)


def _compared(one: Listed, states: dict[str, str]) -> tuple[str, str, str]:
    found = prompt_sets.place(one.name)
    return one.name, states[one.name], prompt_sets.digest(found) if found.is_file() else ""


def _folder(value: str) -> Path:
    folder = user_path(value)
    if not value or not folder.is_dir():
        raise UsageError(f"--from={value} is not allowed: --from must be a folder that holds the files")
    return folder


def _unknown_flag(action: str, word: str) -> UsageError:
    flags = FLAGS if action == "fetch" else ()
    near = nearest(word.partition("=")[0], flags)
    hint = f"; did you mean '{near}'?" if near and near != word else ""
    told = f"flags are {', '.join(flags)}" if flags else "it has no flags"
    return UsageError(f"prompts {action} takes no {word}: {told}{hint}")
