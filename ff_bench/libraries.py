"""What other libraries need before they can be imported here."""

from __future__ import annotations

from functools import lru_cache

_SCHEMAS = ("nms", "qnms")


@lru_cache(maxsize=1)
def mend_torchvision() -> object:
    """Make torchvision importable beside a torch for CPUs; timm, transformers and others import it.

    Its wheels are built for CUDA. Beside a torch for CPUs their compiled part cannot be loaded, and the
    import fails where it describes operators that are not there. Two are declared; nothing here calls them.

    Returns:
        The library that holds the declarations, which must live as long as the process; None where
        torchvision is absent or whole.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return None
    except RuntimeError:
        import torch

        declared = torch.library.Library("torchvision", "FRAGMENT")
        for name in _SCHEMAS:
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return declared
    return None
