"""Errors of the user: one sentence with field, value, allowed values and the nearest match."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(ValueError):
    """A command line or configuration that cannot run; its text is one sentence for the user."""

    def __init__(self, sentence: str) -> None:
        """Keep the sentence on one line.

        Args:
            sentence: what is wrong with which field, which value was given and what is allowed.
        """
        super().__init__(" ".join(sentence.split()))


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
    text = str(value)
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable if len(printable) <= 200 else printable[:197] + "..."
