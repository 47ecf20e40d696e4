"""Hydra's errors as sentences: which word is at fault and what would have been allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Sweep
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ff_bench.checks import unknown_key
from ff_bench.errors import UsageError, not_one_of, shown

SEVERAL = ("metrics",)
"""Groups of which several choices may stand together."""


def refuse_odd_choices(hydra: Hydra, overrides: Sequence[Override]) -> None:
    """Refuse what Hydra takes silently: a list, mapping or null where a group wants one name.

    Raises:
        UsageError: with the choices.
    """
    for override in overrides:
        key = override.key_or_group
        if override.is_delete() or override.is_sweep_override() or isinstance(override.value(), str):
            continue
        if key.startswith("hydra"):
            continue
        options = hydra.config_loader.get_group_options(key)
        if options and not (key in SEVERAL and isinstance(override.value(), list)):
            kind = "a list of" if key in SEVERAL else "one of"
            raise UsageError(
                f"{override.input_line} is not allowed: {key} must be {kind} {', '.join(options)}"
            )


def explain(hydra: Hydra, words: Sequence[str], error: Exception) -> UsageError:
    """Find the word that Hydra stumbled over and say what it should have been.

    Args:
        hydra: the open session.
        words: overrides of the command line.
        error: what Hydra raised; its first line is the answer where no word is found at fault.
    """
    if isinstance(error, UsageError):
        return error
    overrides = []
    for word in words:
        try:
            overrides.append(OverridesParser.create().parse_override(word))
        except HydraException:
            return _unreadable(word)
    for override in overrides:
        found = _wrong_choice(hydra, override)
        if found is not None:
            return found
    fields = _fields(hydra, overrides)
    for override in overrides:
        found = _wrong_key(hydra, override, fields)
        if found is not None:
            return found
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return UsageError(f"configuration: {first.strip()} (from {' '.join(words) or 'the files'})")


def _unreadable(word: str) -> UsageError:
    key, equals, value = word.partition("=")
    if not equals:
        return UsageError(
            f"'{shown(word)}' is not of the form key=value: ff-bench --help lists fields and groups"
        )
    return UsageError(
        f"{key}={shown(value)} cannot be read: put special signs in quotes, as in \"{key}='...'\""
    )


def _wrong_choice(hydra: Hydra, override: Override) -> UsageError | None:
    key = override.key_or_group
    options = hydra.config_loader.get_group_options(key)
    if key == "experiment" and not options:
        return UsageError(
            f"{override.input_line} is not allowed: no experiment is here, --config-dir brings your own"
        )
    if not options or override.is_delete():
        return None
    if override.is_force_add() or (not override.is_add() and _needs_plus(hydra, key)):
        return UsageError(
            f"{override.input_line} is not allowed: write +{key}=... with one of {', '.join(options)}"
        )
    for value in _values(override):
        if value is not None and value not in options:
            return not_one_of(key, value, options)
    return None


def _needs_plus(hydra: Hydra, key: str) -> bool:
    composed = hydra.compose_config("config", [], RunMode.RUN, with_log_configuration=False)
    return key not in composed and key not in composed.hydra.runtime.choices


def _wrong_key(hydra: Hydra, override: Override, fields: Mapping[str, Any]) -> UsageError | None:
    key = override.key_or_group
    if hydra.config_loader.get_group_options(key) or key.startswith("hydra"):
        return None
    value = ",".join(shown(item) for item in _values(override))
    inner: Any = fields
    path: list[str] = []
    for part in key.split("."):
        if not isinstance(inner, Mapping):
            return UsageError(f"{key}={value}: there is no field '{key}', '{'.'.join(path)}' has no fields")
        if part not in inner:
            prefix = "".join(f"{name}." for name in path)
            return unknown_key(key, value, [f"{prefix}{name}" for name in inner])
        inner = inner[part]
        path.append(part)
    return None


def _fields(hydra: Hydra, overrides: Sequence[Override]) -> Mapping[str, Any]:
    """Compose with the choices of groups alone; where several are swept, the first of each."""
    choices = []
    for override in overrides:
        options = hydra.config_loader.get_group_options(override.key_or_group)
        values = _values(override)
        if options and not override.is_delete() and values:
            choices.append(f"{'+' if override.is_add() else ''}{override.key_or_group}={shown(values[0])}")
    try:
        composed = hydra.compose_config("config", choices, RunMode.RUN, with_log_configuration=False)
    except (HydraException, OmegaConfBaseException):
        composed = hydra.compose_config("config", [], RunMode.RUN, with_log_configuration=False)
    plain = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(plain, dict), plain
    return {str(key): value for key, value in plain.items() if key != "hydra"}


def _values(override: Override) -> list[Any]:
    if override.is_delete():
        return []
    value = override.value()
    if isinstance(value, Sweep):
        return [] if not override.is_discrete_sweep() else [_unquoted(text) for text in _swept(override)]
    return list(value) if isinstance(value, list) else [value]


def _swept(override: Override) -> list[str]:
    try:
        return [str(text) for text in override.sweep_string_iterator()]
    except (HydraException, ValueError, TypeError):
        return []


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
