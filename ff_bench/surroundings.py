"""What a policy of the user's may change around it, and later videos of the same process must not meet."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch


@contextmanager
def kept() -> Iterator[None]:
    """Put back what is the same for the whole process: folder, environment, streams, torch's defaults."""
    folder, environment, streams = os.getcwd(), dict(os.environ), (sys.stdout, sys.stderr)
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    try:
        yield
    finally:
        with suppress(OSError):  # it may have been removed, with all that was in it
            os.chdir(folder)
        if os.environ != environment:
            os.environ.clear()
            os.environ.update(environment)
        sys.stdout, sys.stderr = streams
        if torch.get_default_dtype() != dtype:
            torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
