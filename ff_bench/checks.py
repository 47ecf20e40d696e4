"""Checks of single configuration values; each returns the value in its type or raises a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ff_bench.errors import UsageError, nearest, not_one_of, out_of_range, shown


def whole(field: str, value: object, *, low: int, high: int) -> int:
    """Return a whole number within [low, high]."""
    allowed = f"a whole number from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise out_of_range(field, value, allowed)
    try:
        number = int(value) if not isinstance(value, float) else int(value) if value.is_integer() else None
    except (ValueError, OverflowError):
        number = None
    if number is None or not low <= number <= high:
        raise out_of_range(field, value, allowed)
    return number


def flag(field: str, value: object) -> bool:
    """Return true or false; other words are refused."""
    if not isinstance(value, bool):
        raise out_of_range(field, value, "true or false")
    return value


def text(field: str, value: object) -> str:
    """Return a non-empty line of text."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise out_of_range(field, value, "a non-empty line of text")
    return value


def choice(field: str, value: object, allowed: Iterable[str]) -> str:
    """Return a word of the allowed set."""
    words = list(allowed)
    if not isinstance(value, str) or value not in words:
        raise not_one_of(field, value, words)
    return value


def words(field: str, value: object, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return words of the allowed set, without repeats, in the order of `allowed`."""
    items = _items(field, value)
    for item in items:
        choice(field, item, allowed)
    return tuple(word for word in allowed if word in items)


def seeds(value: object) -> tuple[int, ...]:
    """Return seeds: one whole number or a list of different ones."""
    items = _items("seed", value)
    numbers = tuple(whole("seed", item, low=0, high=2**31 - 1) for item in items)
    if not numbers:
        raise out_of_range("seed", value, "a whole number or a non-empty list of them")
    if len(set(numbers)) < len(numbers):
        raise out_of_range("seed", value, "a list without repeats")
    return numbers


def names(field: str, value: object) -> tuple[str | int, ...] | None:
    """Return names or positions; null stands for all."""
    if value is None:
        return None
    items = _items(field, value)
    if not items or any(isinstance(item, bool) or not isinstance(item, str | int) for item in items):
        raise out_of_range(field, value, "null or a non-empty list of prompt ids or positions")
    return tuple(item for item in items if isinstance(item, str | int))


def keys(where: str, given: Mapping[str, object], every: Iterable[str]) -> None:
    """Refuse a key that is not known, and say when a known one is missing.

    Args:
        where: path of the mapping, empty for the top level.
        given: the mapping as composed.
        every: every key that must be there.
    """
    allowed = list(every)
    prefix = f"{where}." if where else ""
    known(where, given, allowed)
    for key in allowed:
        if key not in given:
            raise UsageError(
                f"{prefix}{key} is missing: it was deleted, leave it out of '~' to keep its default"
            )


def known(where: str, given: Mapping[str, object], allowed: Iterable[str]) -> None:
    """Refuse a key that is not among the allowed ones; any of them may be missing."""
    names = list(allowed)
    prefix = f"{where}." if where else ""
    for key in given:
        if key not in names:
            raise unknown_key(f"{prefix}{key}", given[key], [f"{prefix}{name}" for name in names])


def unknown_key(key: str, value: object, known: Iterable[str]) -> UsageError:
    """Build the error for a field that does not exist."""
    fields = sorted(known)
    told = f"fields are {', '.join(fields)}" if fields else "there are no fields here"
    near = nearest(key, fields)
    hint = f"; did you mean '{near}'?" if near else ""
    return UsageError(f"{key}={shown(value)}: there is no field '{shown(key)}', {told}{hint}")


def like(field: str, value: object, default: object) -> object:
    """Return a value of the type of `default`; whole numbers pass as decimals, null takes anything."""
    if default is None or (value is None and default is None):
        return value
    if isinstance(default, bool):
        return flag(field, value)
    if isinstance(default, int):
        return whole(field, value, low=-(2**53), high=2**53)
    if isinstance(default, float):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise out_of_range(field, value, "a number")
        return float(value)
    if isinstance(default, str):
        if not isinstance(value, str):
            raise out_of_range(field, value, "text")
        return value
    if isinstance(default, list) and isinstance(value, str):
        return [value]
    if not isinstance(value, type(default)):
        raise out_of_range(field, value, f"of the type of its default {shown(default)}")
    return value


def fields(where: str, tree: object, base: Mapping[str, object]) -> dict[str, object]:
    """Check keys and types of a group's fields against the group's own file.

    Args:
        where: the group; the protocol's fields have their own checks, so only its keys are checked here.
        tree: the group as composed with every override.
        base: the group as its file has it.
    """
    if not isinstance(tree, Mapping):
        raise out_of_range(where, tree, "one of its choices (ff-bench ls)")
    keys(where, tree, base)
    free = where == "protocol"
    return {
        key: value
        if free or isinstance(base[key], Mapping | list)
        else like(f"{where}.{key}", value, base[key])
        for key, value in tree.items()
    }


def _items(field: str, value: object) -> list[object]:
    if isinstance(value, Mapping):
        raise out_of_range(field, value, "one value or a list of values")
    return list(value) if isinstance(value, list | tuple) else [value]
