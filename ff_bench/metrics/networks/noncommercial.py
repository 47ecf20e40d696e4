"""Networks whose licences forbid commercial use: loaded from the packages that carry them, no part of this.

No line of theirs is copied or rewritten here. What the user has installed is loaded as it is, without running
the packages' own start-up, which would import dozens of libraries that the networks do not need.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from ff_bench.errors import Unavailable


@dataclass(frozen=True)
class Package:
    """A package with a network of a non-commercial licence.

    Attributes:
        name: What is imported.
        requirement: What pip installs.
        licence: Half a sentence on what may be done with the network.
        quiet: The package and those below it whose `__init__` is left out.
    """

    name: str
    requirement: str
    licence: str
    quiet: tuple[str, ...]


AMT = Package(
    "vbench",
    "vbench==0.1.5",
    "AMT's code and weights are CC BY-NC 4.0: no commercial use",
    ("vbench",),
)
MUSIQ = Package(
    "pyiqa",
    "pyiqa==0.1.16",
    "pyiqa is under the PolyForm Noncommercial License 1.0.0 and the S-Lab License 1.0: no commercial use",
    ("pyiqa", "pyiqa.archs", "pyiqa.data", "pyiqa.utils"),
)


def module(package: Package, name: str) -> ModuleType:
    """Load one module of a package by its full name.

    The modules import one another by absolute names, which is why empty stand-ins of the packages in `quiet`
    take their places while they load. Afterwards no trace is left in `sys.modules`: a program that also uses
    the package itself finds it as it was.

    Args:
        package: `AMT` or `MUSIQ`.
        name: For example `pyiqa.archs.musiq_arch`.

    Raises:
        Unavailable: where the package or a library that it needs is not installed, with its licence.
    """
    command = f"pip install --no-deps {package.requirement}"
    terms = f"which is not installed by default ({package.licence})"
    origin = _folder(package.name)
    if origin is None:
        raise Unavailable(f"needs the package '{package.name}', {terms}: {command}")
    with _stand_ins(package, origin.parent):
        try:
            return import_module(name)
        except ImportError as error:
            missing = error.name or str(error)
            raise Unavailable(f"the package '{package.name}', {terms}, needs '{missing}'") from None


def _folder(name: str) -> Path | None:
    spec = find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


@contextmanager
def _stand_ins(package: Package, root: Path) -> Iterator[None]:
    """Hold empty packages in the place of those whose start-up is left out."""
    before = _taken(package.name)
    for name in package.quiet:
        empty = ModuleType(name)
        empty.__path__ = [str(root.joinpath(*name.split(".")))]
        sys.modules[name] = empty
    try:
        yield
    finally:
        _taken(package.name)
        sys.modules.update(before)


def _taken(name: str) -> dict[str, ModuleType]:
    """Take a package and all below it out of `sys.modules`."""
    found = [key for key in sys.modules if key == name or key.startswith(f"{name}.")]
    return {key: sys.modules.pop(key) for key in found}
