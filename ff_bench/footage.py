"""The frames of a video, in blocks: held in memory, or made from a file or from latents when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

BLOCK = 32
"""Frames of a block; large videos are never held whole."""


class Footage(Protocol):
    """The frames of one video, which can be read from the start as often as needed."""

    @property
    def count(self) -> int:
        """Number of frames."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield consecutive frames, RGB, (n, H, W, 3) uint8 with 1 <= n <= `BLOCK`.

        Raises:
            ValueError: Where the frames are not what they should be; at the latest after the last block.
        """

    @property
    def frames(self) -> np.ndarray:
        """All frames, RGB, (T, H, W, 3) uint8: for small videos only."""


@dataclass(frozen=True)
class Held:
    """Frames in memory.

    Attributes:
        frames: RGB, (T, H, W, 3) uint8.
    """

    frames: np.ndarray

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.frames.shape[1:3]
        return int(height), int(width)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield consecutive frames."""
        for start in range(0, len(self.frames), BLOCK):
            yield self.frames[start : start + BLOCK]


@dataclass(frozen=True)
class Streamed:
    """Frames that are made when they are asked for, each time anew.

    Attributes:
        count: Number of frames.
        size: Height and width in pixels.
        source: Begins at the first frame; yields pieces (n, H, W, 3) uint8 of any n >= 1, and raises
            ValueError where they are not what they should be.
    """

    count: int
    size: tuple[int, int]
    source: Callable[[], Iterator[np.ndarray]]

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield consecutive frames; fewer or more than `count` are an error."""
        seen = 0
        for block in regroup(self.source(), BLOCK):
            seen += len(block)
            if seen > self.count or block.shape[1:3] != self.size:
                break
            yield block
        if seen != self.count:
            found = "more" if seen > self.count else seen
            raise ValueError(f"the video has {found} frames, not {self.count}")

    @cached_property
    def frames(self) -> np.ndarray:
        """All frames."""
        return np.concatenate(list(self.blocks()))


def regroup(pieces: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Join and cut pieces along their first axis into blocks of `size`; the last one may be shorter."""
    held: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += len(piece)
        if count < size:
            continue
        joined = np.concatenate(held) if len(held) > 1 else held[0]
        whole = count - count % size
        for start in range(0, whole, size):
            yield joined[start : start + size]
        held, count = ([joined[whole:]], count - whole) if count > whole else ([], 0)
    if count:
        yield np.concatenate(held) if len(held) > 1 else held[0]
