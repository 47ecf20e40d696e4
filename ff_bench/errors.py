"""Errors of the user: one sentence with field, value, allowed values and the nearest match."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

LONGEST, HALF = 3000, 1400
"""Signs of a sentence; of a longer one, which quotes a word without end, the two ends are told."""
POLICY_FILE = "policy_file_"
"""What names of modules begin with that are files of policies."""
LONGEST_WORD = 200
"""Signs of a word that a near one is looked for: the time grows with their square."""


class UsageError(ValueError):
    """A command line or configuration that cannot run; its text is one sentence for the user."""

    def __init__(self, sentence: str) -> None:
        """Keep the sentence on one line.

        Args:
            sentence: what is wrong with which field, which value was given and what is allowed.
        """
        told = printable(" ".join(sentence.split()))
        super().__init__(told if len(told) <= LONGEST else f"{told[:HALF]} ... {told[-HALF:]}")


class TooSmall(UsageError):
    """A budget in which one policy cannot run; a sweep where others can leaves that job out and says so."""

    def __init__(self, sentence: str, budget: str) -> None:
        """Keep what was asked.

        Args:
            sentence: for the user.
            budget: as the user wrote it.
        """
        super().__init__(sentence)
        self.budget = budget


class Unavailable(RuntimeError):
    """A number cannot be made here, as a library or a weight file is missing; the text says which."""


class Skipped(RuntimeError):
    """A policy cannot run on a model; the video becomes a row `skipped` with this reason."""


def nearest(value: object, allowed: Iterable[object]) -> str:
    """Return the allowed word closest to `value`, or an empty string where none is close."""
    if len(str(value)) > LONGEST_WORD:
        return ""
    choices = {str(choice).lower(): str(choice) for choice in allowed}
    found = get_close_matches(str(value).lower(), choices, n=1, cutoff=0.5)
    return choices[found[0]] if found else ""


def not_one_of(field: str, value: object, allowed: Iterable[object]) -> UsageError:
    """Build the error for a value outside a set of words.

    Args:
        field: name of the field as the user writes it.
        value: what was given.
        allowed: every value that would have been accepted.

    Returns:
        The error, with the nearest match where there is one.
    """
    choices = sorted(str(choice) for choice in allowed)
    near = nearest(value, choices)
    hint = f"; did you mean '{near}'?" if near else ""
    told = ", ".join(choices) if choices else "nothing here"
    return UsageError(f"{field}={shown(value)} is not known: allowed are {told}{hint}")


def out_of_range(field: str, value: object, allowed: str) -> UsageError:
    """Build the error for a value of the wrong kind or size; `allowed` says in words what fits."""
    return UsageError(f"{field}={shown(value)} is not allowed: {field} must be {allowed}")


def shown(value: object) -> str:
    """Print a value as the user would write it on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(shown(item) for item in value) + "]"
    text = printable(str(value))
    return text if len(text) <= 200 else text[:197] + "..."


def told(error: BaseException) -> str:
    """Name an error and what it says in one line, whatever an object of the user's says of itself."""
    try:
        says = str(error)
    except Exception:
        says = "it cannot say why"
    line = printable(" ".join(f"{type(error).__name__}: {says}{_place(error)}".split()))
    return line if len(line) <= LONGEST else f"{line[:HALF]} ... {line[-HALF:]}"


def _place(error: BaseException) -> str:
    """Name the line of a policy file that an error came through last; empty for all other errors."""
    frames = traceback.walk_tb(error.__traceback__)
    places = [
        f" ({Path(frame.f_code.co_filename).name}, line {line})"
        for frame, line in frames
        if str(frame.f_globals.get("__name__", "")).startswith(POLICY_FILE)
    ]
    return places[-1] if places else ""


def printable(text: str) -> str:
    """Replace signs that move a terminal's cursor, change its colours or cannot be printed at all."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
