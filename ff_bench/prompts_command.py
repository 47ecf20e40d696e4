"""`ff-bench prompts list|fetch|verify [NAMES ...]`: the prompt sets that papers use."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

from ff_bench import prompt_fetching, prompt_sets
from ff_bench.asked_files import Request, bar, read
from ff_bench.download import Failed, Opener, over_https
from ff_bench.errors import not_one_of
from ff_bench.plan import grid
from ff_bench.prompt_sets import Listed

COLUMNS = ("prompts", "lines", "licence", "state", "source")


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
    asked = read("prompts", words)
    chosen = select(asked.words)
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
    with bar(one.name) as show:
        url = prompt_fetching.fetch(one, opener=opener, progress=show)
    print(f"{one.name}, licence {one.licence}: {one.prompts} prompts from {url}", flush=True)


def _compared(one: Listed, states: dict[str, str]) -> tuple[str, str, str]:
    found = prompt_sets.place(one.name)
    return one.name, states[one.name], prompt_sets.digest(found) if found.is_file() else ""
