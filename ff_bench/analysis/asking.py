"""Words of the analysis commands: their own settings first, everything else composes a full-cache run."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ff_bench import errors, masking
from ff_bench.compose import compose
from ff_bench.config import RunConfig
from ff_bench.errors import UsageError, not_one_of, out_of_range
from ff_bench.files import Locked, user_path

LOGGER = logging.getLogger(__name__)
FULL = "policy=full"


def told(command: Callable[[Sequence[str]], int], words: Sequence[str]) -> int:
    """Run a command; what stops it on the way, through no fault of its words, is a sentence and code 1.

    A device that is gone, or a policy that raises, ends it as it ends a video of a run.
    """
    try:
        return command(words)
    except (Locked, FloatingPointError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except (UsageError, OSError, MemoryError):
        raise
    except Exception as error:
        LOGGER.debug("%s failed", command.__module__, exc_info=True)
        print(f"failed: {masking.text(errors.told(error))}", file=sys.stderr)
        return 1


def split(
    command: str, words: Sequence[str], defaults: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Separate the settings of a command from overrides of a run.

    Args:
        command: name of the command, for sentences.
        words: of the command line.
        defaults: settings of the command with their defaults, as text.

    Returns:
        The settings, complete, and the overrides.

    Raises:
        UsageError: for a flag, a path, a setting given twice, or a policy or budget of the full cache.
    """
    own, overrides = dict(defaults), []
    given: set[str] = set()
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key.startswith("-"):
            told = ", ".join(defaults)
            raise UsageError(
                f"{command} takes no {word}: it takes KEY=VALUE, of a run or one of its own ({told})"
            )
        if key not in defaults:
            overrides.append(word)
            continue
        if key in given:
            raise UsageError(f"{word} is not allowed: {key} is given twice")
        given.add(key)
        own[key] = value
    for word in overrides:
        if word.partition("=")[0].partition(".")[0] in ("policy", "budget"):
            raise UsageError(f"{word} is not allowed: {command} generates with the full cache, leave it out")
    return own, overrides


def full_cache(overrides: Sequence[str]) -> RunConfig:
    """Compose a run of the full cache and name its device.

    Raises:
        UsageError: with field, value and what is allowed, or for weights that are not here.
    """
    from ff_bench import pipeline

    config = compose([*overrides, FULL]).config
    pipeline.check_files(config)
    return replace(config, device=pipeline.device_of(config.device))


def items(field: str, text: str) -> list[str]:
    """Return the items of `[a,b]` or `a,b`.

    Raises:
        UsageError: for an empty list.
    """
    stripped = text.strip()
    inner = stripped[1:-1] if stripped.startswith("[") and stripped.endswith("]") else stripped
    found = [item.strip() for item in re.split(r",(?![^\[]*\])", inner)]  # not within brackets of an item
    if not all(found):
        raise out_of_range(field, text, "a non-empty list such as [a,b]")
    return found


def numbers(field: str, text: str, *, low: int, high: int) -> tuple[int, ...]:
    """Return different whole numbers within [low, high], increasing; `all` or `a..b` for every one.

    Raises:
        UsageError: with what is allowed.
    """
    if text == "all":
        return tuple(range(low, high + 1))
    allowed = f"all, a..b or a list of whole numbers from {low} to {high}"
    first, dots, last = text.partition("..")
    words = [first, last] if dots else items(field, text)
    if not all(word.isascii() and word.isdigit() and low <= int(word) <= high for word in words):
        raise out_of_range(field, text, allowed)
    found = range(int(first), int(last) + 1) if dots else sorted({int(word) for word in words})
    if not found:
        raise out_of_range(field, text, allowed)
    return tuple(found)


def whole(field: str, text: str, *, low: int, high: int) -> int:
    """Return one whole number within [low, high].

    Raises:
        UsageError: with what is allowed.
    """
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise out_of_range(field, text, f"a whole number from {low} to {high}")
    return int(text)


def one_of(field: str, text: str, allowed: Sequence[str]) -> str:
    """Return a word of the allowed set.

    Raises:
        UsageError: with what is allowed.
    """
    if text not in allowed:
        raise not_one_of(field, text, allowed)
    return text


def folder(config: RunConfig, text: str, name: str) -> Path:
    """Return where results go: as asked, else `reports/<name>` below the runs.

    Raises:
        UsageError: where it is a file.
    """
    path = user_path(text) if text else config.runs_dir / "reports" / name
    if path.exists() and not path.is_dir():
        raise out_of_range("out", text, "a directory")
    return path
