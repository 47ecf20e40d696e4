"""The record of a real backbone: its latents in one safetensors file, written as they come."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from ff_bench import files

NAME = "latents"
_ALIGNED = 8
"""Bytes whose multiples the header fills with spaces."""
_KINDS = {
    torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16",
}  # fmt: skip


@contextmanager
def recording(path: str | os.PathLike[str], frames: int) -> Iterator[Callable[[Tensor], None]]:
    """Write latents as they come, byte for byte what `safetensors.torch.save` makes of them together.

    Args:
        path: target; the file takes this name when all went well.
        frames: latent frames of the whole video.

    Yields:
        What takes the next latents (F, C, h, w), on any device.

    Raises:
        ValueError: at the end, where there were fewer or more frames.
    """
    seen = 0
    with files.temporary(Path(path)) as part, part.open("wb") as stream:

        def take(latents: Tensor) -> None:
            nonlocal seen
            if not seen:
                _write_header(stream, (frames, *latents.shape[1:]), latents.dtype)
            seen += len(latents)
            stream.write(latents.contiguous().cpu().flatten().view(torch.uint8).numpy().data)

        yield take
        if seen != frames:
            raise ValueError(f"the video has {seen} latent frames, not {frames}")


def _write_header(stream: BinaryIO, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Say what follows: an 8-byte length, then JSON."""
    count = dtype.itemsize
    for side in shape:
        count *= side
    described = {NAME: {"dtype": _KINDS[dtype], "shape": shape, "data_offsets": (0, count)}}
    header = json.dumps(described, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _ALIGNED)
    stream.write(len(header).to_bytes(8, "little") + header)
