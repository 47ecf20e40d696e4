"""One way to import the libraries of the extra `vbench`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ff_bench.errors import Unavailable
from ff_bench.libraries import mend_torchvision

INSTALL = "pip install 'ff-bench[vbench]'"


def library(name: str) -> Any:
    """Import a library.

    Raises:
        Unavailable: where it is not installed, with the command that installs it.
    """
    mend_torchvision()
    try:
        return import_module(name)
    except ImportError as error:
        raise Unavailable(f"needs the library '{error.name or name}': {INSTALL}") from None
