"""`ff-bench weights list|fetch|verify [NAMES|METRIC ...]`: the files that scoring networks load."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from tqdm import tqdm

from ff_bench import fetching, files, weights
from ff_bench.asked_files import Request, bar, read
from ff_bench.download import Failed, Opener, over_https
from ff_bench.errors import UsageError, not_one_of
from ff_bench.plan import grid, size
from ff_bench.weights import Weight

NONCOMMERCIAL = "--noncommercial"


def run(words: Sequence[str], *, opener: Opener = over_https) -> int:
    """List, get or check weights; the last line is JSON with the state of each.

    Args:
        words: of the command line after `weights`.
        opener: opens an address.

    Returns:
        1 where a file could not be had or is damaged, else 0.

    Raises:
        UsageError: with one sentence for the user.
    """
    asked = read("weights", words, switches=(NONCOMMERCIAL,))
    chosen = select(asked.words)
    if asked.action == "fetch":
        return _fetch(asked, chosen, opener)
    return _list(chosen) if asked.action == "list" else _verify(chosen)


def select(words: Iterable[str]) -> list[Weight]:
    """Return the weights that names and metrics mean, in the order of the manifest; all for no word.

    Raises:
        UsageError: for a word that is neither, with the nearest.
    """
    known = {name: {name} for name in weights.manifest()}
    for weight in weights.manifest().values():
        for metric in weight.serves:
            known.setdefault(metric, set()).add(weight.name)
    for family, parts in weights.FAMILIES.items():
        known[family] = set().union(*(known.get(part, set()) for part in parts))
        known |= {part: set() for part in parts if part not in known}
    meant: set[str] = set()
    listed = list(words)
    for word in listed:
        if word not in known:
            raise not_one_of("weights", word, known)
        meant |= known[word]
    return [weight for name, weight in weights.manifest().items() if name in meant or not listed]


def _list(chosen: Sequence[Weight]) -> int:
    states = {weight.name: weights.state(weight.name) for weight in chosen}
    rows = [
        (one.name, one.file, _size(one), one.licence, states[one.name], ", ".join(one.serves))
        for one in chosen
    ]
    print("\n".join(grid(("name", "file", "size", "licence", "state", "serves"), rows)))
    _finish(states)
    return 0


def _verify(chosen: Sequence[Weight]) -> int:
    rows, states, wrong = [], {}, []
    for weight in tqdm(chosen, desc="verify", unit=" file", disable=None):
        state, digest, sentence = _examined(weight)
        states[weight.name] = state
        rows.append((weight.name, state, digest[:16], _compared(weight, state)))
        wrong += [sentence] if sentence else []
    print("\n".join(grid(("name", "state", "sha256", "compared with"), rows)))
    for sentence in wrong:
        print(f"not the published file: {sentence}")
    _finish(states)
    return 1 if wrong else 0


def _examined(weight: Weight) -> tuple[str, str, str]:
    """Read one file again; return its state, its digest and what is wrong with it."""
    found = weights.folder() / weight.file
    if not found.is_file():
        return weights.ABSENT, "", ""
    digest = files.file_digest(found, again=True)
    state = weights.judged(weight, found, digest)
    if state in (weights.DAMAGED, weights.OTHER):
        wrong = weights.kind_fault(found) or weights.size_fault(weight, found)
        wrong = wrong or f"has sha256 {digest} instead of {weights.expected(weight)}"
        return state, digest, f"{found} {wrong}"
    if weight.name not in weights.recorded():
        with suppress(OSError):  # a folder of several machines need not be writable here
            weights.record(weight, digest, size=found.stat().st_size, url=str(found))
    return state, digest, ""


def _compared(weight: Weight, state: str) -> str:
    if state == weights.ABSENT:
        return ""
    return weight.sha256_source or f"its digest at first sight ({weights.LOCK}); no public source states one"


def _fetch(asked: Request, chosen: Sequence[Weight], opener: Opener) -> int:
    left_out = [one for one in chosen if one.noncommercial and not _is_allowed(one, asked)]
    wanted = [one for one in chosen if one not in left_out]
    if left_out and not wanted:
        raise UsageError(f"{_why_left_out(left_out[0])}: ff-bench weights fetch {left_out[0].name}")
    failures = []
    for weight in wanted:
        try:
            _get(weight, asked, opener)
        except Failed as error:
            failures.append(str(error))
    for weight in left_out:
        print(f"left out: {_why_left_out(weight)}")
    for sentence in failures:
        print(f"failed: {sentence}", file=sys.stderr)
    _finish({weight.name: weights.state(weight.name) for weight in chosen})
    return 1 if failures else 0


def _is_allowed(weight: Weight, asked: Request) -> bool:
    return NONCOMMERCIAL in asked.switches or weight.name in asked.words


def _why_left_out(weight: Weight) -> str:
    return f"{weight.name} is not for commercial use ({weight.licence}), name it or add {NONCOMMERCIAL}"


def _get(weight: Weight, asked: Request, opener: Opener) -> None:
    """Get one file unless it is here."""
    found = weights.folder() / weight.file
    if found.is_file():
        state = weights.state(weight.name) if files.known_digest(found) else _examined(weight)[0]
        if state == weights.OTHER:
            raise Failed(f"{weight.name} is not fetched: {found} is another file, remove it to get this one")
        if state != weights.DAMAGED:
            print(f"{weight.name} is {state}", flush=True)
            return
    if asked.source is not None:
        came = fetching.copy(weight, asked.source)
        print(f"{weight.name}, licence {weight.licence}: copied from {came}", flush=True)
        return
    print(f"{weight.name}, licence {weight.licence}: {_size(weight)} from {weight.url}", flush=True)
    with bar(weight.name) as show:
        fetching.fetch(weight, opener=opener, progress=show)


def _finish(states: Mapping[str, str]) -> None:
    print(f"\nweights  {weights.folder()}")
    print(json.dumps({"folder": str(weights.folder()), "states": dict(states)}))


def _size(weight: Weight) -> str:
    if weight.bytes is not None:
        return size(weight.bytes)
    found = weights.folder() / weight.file
    return size(found.stat().st_size) if found.is_file() else "unknown"
