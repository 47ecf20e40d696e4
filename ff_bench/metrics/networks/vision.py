"""One way to import torchvision, which timm, open_clip and RAFT rest on."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

import torch

from ff_bench.errors import Unavailable

INSTALL = "pip install 'ff-bench[vbench]'"
_SCHEMAS = ("nms", "qnms")


def library(name: str) -> Any:
    """Import a library of the extra `vbench`, after torchvision was made importable.

    Raises:
        Unavailable: where it is not installed, with the command that installs it.
    """
    _declare_operators()
    try:
        return import_module(name)
    except ImportError as error:
        raise Unavailable(f"needs the library '{error.name or name}': {INSTALL}") from None


@lru_cache(maxsize=1)
def _declare_operators() -> torch.library.Library | None:
    """Declare two operators that torchvision's compiled part would bring.

    The wheels of torchvision are built for CUDA; beside a torch for CPUs their compiled part cannot be loaded,
    and the import fails where it describes operators that are not there. Nothing here calls them.

    Returns:
        The library that holds the declarations, which must live as long as the process; None where torchvision
        brought them.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return None
    except RuntimeError:
        declared = torch.library.Library("torchvision", "FRAGMENT")
        for name in _SCHEMAS:
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return declared
    return None
