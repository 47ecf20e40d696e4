"""Names of methods with their fields, `future_forcing(lam=0.1)`, and what they are without their defaults."""

from __future__ import annotations

from collections.abc import Mapping

from ff_bench import shipped


def parts(method: str) -> tuple[str, dict[str, str]]:
    """Split a method into its name and the fields that are named, as text."""
    name, _, rest = method.partition("(")
    pairs = (pair.partition("=") for pair in rest.rstrip(")").split(",") if pair)
    return name, {field.strip(): value.strip() for field, _, value in pairs}


def canonical(method: str) -> str:
    """Drop the fields that have the defaults of our policy of that name: one thing gets one name."""
    name, fields = parts(method)
    usual = defaults(name)
    differing = {field: value for field, value in fields.items() if not equal(usual.get(field), value)}
    inside = ", ".join(f"{field}={value}" for field, value in sorted(differing.items()))
    return f"{name}({inside})" if inside else name


def defaults(name: str) -> Mapping[str, object]:
    """Return the hyper-parameters of a shipped policy; empty where there is none of that name."""
    path = shipped.conf_dir() / "policy" / f"{name}.yaml"
    return shipped.policy_fields(name) if path.is_file() else {}


def equal(value: object, text: str) -> bool:
    """Compare a value with its text: numbers as numbers."""
    try:
        return value is not None and float(str(value)) == float(text)
    except ValueError:
        return str(value) == text
