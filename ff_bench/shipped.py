"""Where the configurations that come with the package lie, and the models among them, without Hydra."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

PACKAGE = Path(__file__).parent
HERE = "@_here_"
"""How a file's `defaults` names the file that it starts from; Hydra reads the same line."""


def conf_dir() -> Path:
    """Return the directory of configurations: beside pyproject.toml, else inside the package."""
    checkout = PACKAGE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "conf" / "config.yaml").is_file():
        return checkout / "conf"
    return PACKAGE / "conf"


def models() -> tuple[str, ...]:
    """Return the names of the shipped models: `mini` first, then by name."""
    names = (path.stem for path in (conf_dir() / "model").glob("*.yaml"))
    return tuple(sorted(names, key=lambda name: (name != "mini", name)))


def model_fields(name: str) -> dict[str, Any]:
    """Read the file of a shipped model over the file that it starts from."""
    return _merged(conf_dir() / "model", name)


def policy_fields(name: str) -> dict[str, Any]:
    """Read the hyper-parameters of a shipped policy."""
    fields = _read(conf_dir() / "policy" / f"{name}.yaml")
    return {key: value for key, value in fields.items() if key != "name"}


@lru_cache(maxsize=64)
def _read(path: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def _merged(folder: Path, name: str) -> dict[str, Any]:
    """Merge as the `defaults` of our own files say: bases first, the file itself last."""
    own = dict(_read(folder / f"{name}.yaml"))
    merged: dict[str, Any] = {}
    for base in own.pop("defaults", []):
        if base != "_self_":
            merged = _over(merged, _merged(folder, base.removesuffix(HERE)))
    return _over(merged, own)


def _over(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key: _over(base[key], value)
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        else value
        for key, value in top.items()
    }
    return {**base, **both}
