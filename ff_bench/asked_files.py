"""What `ff-bench weights` and `ff-bench prompts` are asked for: an action, names, where files come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ff_bench.errors import UsageError, nearest, not_one_of
from ff_bench.files import user_path

ACTIONS = ("list", "fetch", "verify")
FROM = "--from"
Show = Callable[[int, int | None], None]
"""Takes bytes that are here, and bytes of the whole file where they are known."""


@dataclass(frozen=True)
class Request:
    """What was asked.

    Attributes:
        action: `list`, `fetch` or `verify`.
        words: names; none means all.
        source: folder to copy from; None fetches from publishers.
        switches: other flags that were given.
    """

    action: str
    words: tuple[str, ...] = ()
    source: Path | None = None
    switches: frozenset[str] = frozenset()


def read(command: str, words: Sequence[str], *, switches: Sequence[str] = ()) -> Request:
    """Read the command line.

    Args:
        command: `weights` or `prompts`.
        words: behind the command.
        switches: flags without a value that `fetch` takes beside `--from`.

    Raises:
        UsageError: for an unknown action or flag, or a folder that is not there.
    """
    if not words:
        raise UsageError(f"{command} needs one of {', '.join(ACTIONS)}: ff-bench {command} list")
    action, *rest = words
    if action not in ACTIONS:
        raise not_one_of(command, action, ACTIONS)
    names, source, given = [], None, set()
    while rest:
        word = rest.pop(0)
        flag, has_value, value = word.partition("=")
        if not word.startswith("-"):
            names.append(word)
        elif flag == FROM and action == "fetch":
            if not has_value and not rest:
                raise UsageError(f"{FROM} needs a folder: ff-bench {command} fetch {FROM} DIR")
            source = _folder(command, value if has_value else rest.pop(0))
        elif word in switches and action == "fetch":
            given.add(word)
        else:
            raise _unknown_flag(command, action, word, (FROM, *switches))
    return Request(action, tuple(names), source, frozenset(given))


def _folder(command: str, value: str) -> Path:
    folder = user_path(value)
    if not value or not folder.is_dir():
        raise UsageError(f"{FROM}={value} is not allowed: {FROM} must be a folder that holds {command}")
    return folder


def _unknown_flag(command: str, action: str, word: str, flags: Sequence[str]) -> UsageError:
    flags = flags if action == "fetch" else ()
    near = nearest(word.partition("=")[0], flags)
    hint = f"; did you mean '{near}'?" if near and near != word else ""
    told = f"flags are {', '.join(flags)}" if flags else "it has no flags"
    return UsageError(f"{command} {action} takes no {word}: {told}{hint}")


@contextmanager
def bar(name: str) -> Iterator[Show]:
    """Show the progress of one file on a terminal."""
    from tqdm import tqdm

    with tqdm(desc=name, unit="B", unit_scale=True, unit_divisor=1024, disable=None) as shown:

        def show(done: int, whole: int | None) -> None:
            shown.total = whole
            shown.update(done - shown.n)

        yield show
