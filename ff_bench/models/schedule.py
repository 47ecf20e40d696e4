"""The order of passes of a rollout, as data: which latent frames, at which noise levels, what is kept.

A *turn* ends with one chunk finished and committed. Usually its passes cover that chunk alone; where chunks
are denoised jointly at different noise levels, they cover later ones too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Span:
    """Neighbouring latent frames of one chunk at one noise level.

    Attributes:
        chunk: number of the chunk that they belong to.
        first: first latent frame.
        frames: how many.
        level: noise level that goes in, in [0, 1].
        next_level: noise level that comes out; None where the latents stay as they are.
        step: number of the noisy pass of this chunk, from 0.
    """

    chunk: int
    first: int
    frames: int
    level: float
    next_level: float | None
    step: int


@dataclass(frozen=True)
class Pass:
    """One forward over the neighbouring frames of one or more chunks.

    Attributes:
        spans: its frames in order.
        commit: True where keys and values are written to the cache.
    """

    spans: tuple[Span, ...]
    commit: bool

    @property
    def first(self) -> int:
        """First latent frame."""
        return self.spans[0].first

    @property
    def frames(self) -> int:
        """Latent frames of the forward."""
        return sum(span.frames for span in self.spans)

    @property
    def levels(self) -> tuple[float, ...]:
        """Noise level of each frame."""
        return tuple(span.level for span in self.spans for _ in range(span.frames))


@dataclass(frozen=True)
class Turn:
    """What ends with one chunk finished.

    Attributes:
        number: of the chunk, from 0.
        first: its first latent frame.
        frames: its latent frames.
        passes: forwards in order; the last one commits the chunk.
        is_prefix: whether the chunk is given, so that nothing but the committing pass runs.
    """

    number: int
    first: int
    frames: int
    passes: tuple[Pass, ...]
    is_prefix: bool = False

    @property
    def widest(self) -> int:
        """Latent frames of its widest pass."""
        return max(step.frames for step in self.passes)


def chunkwise(
    sizes: Sequence[int],
    levels: Sequence[float],
    *,
    end: float | None = 0.0,
    first_levels: Sequence[float] | None = None,
    prefix_frames: int = 0,
    clean: float = 0.0,
) -> tuple[Turn, ...]:
    """One chunk after the other: its noisy passes, then the clean pass that commits it.

    Args:
        sizes: latent frames of each chunk.
        levels: noise levels of the noisy passes, descending.
        end: level behind the last noisy pass; None where its prediction is taken as it is.
        first_levels: other levels of the first chunk that is generated.
        prefix_frames: latent frames at the start that are given, whole chunks.
        clean: level that the clean pass is told.
    """
    turns: list[Turn] = []
    is_first = True
    for number, (first, frames) in enumerate(zip(starts(sizes), sizes, strict=True)):
        commit = Pass((Span(number, first, frames, clean, None, 0),), commit=True)
        if first < prefix_frames:
            turns.append(Turn(number, first, frames, (commit,), is_prefix=True))
            continue
        own = first_levels if is_first and first_levels is not None else levels
        is_first = False
        following = [*own[1:], end]
        noisy = tuple(
            Pass((Span(number, first, frames, own[step], following[step], step),), commit=False)
            for step in range(len(own))
        )
        turns.append(Turn(number, first, frames, (*noisy, commit)))
    return tuple(turns)


def rolling(sizes: Sequence[int], levels: Sequence[float], *, clean: float = 0.0) -> tuple[Turn, ...]:
    """Neighbouring chunks denoised jointly, the oldest one step from clean, the newest from noise.

    Window w covers the chunks w - S + 1 ... w, as far as they exist, for S levels; a chunk is at its own
    level in every window, and is committed by a clean pass when its last step is done.

    Args:
        sizes: latent frames of each chunk.
        levels: noise levels of the noisy passes, descending.
        clean: level that the clean pass is told.

    Source: arXiv 2509.25161; the schedule of TencentARC/RollingForcing@a1477d09.
    Deviates: the first chunk is committed once, when it is finished; the original also commits its unfinished
        states, which no later pass reads.
    """
    steps, begin = len(levels), starts(sizes)
    following = [*levels[1:], None]
    windows: list[Pass] = []
    for window in range(len(sizes) + steps - 1):
        chunks = range(max(0, window - steps + 1), min(len(sizes) - 1, window) + 1)
        spans = []
        for chunk in chunks:
            step = window - chunk
            spans.append(Span(chunk, begin[chunk], sizes[chunk], levels[step], following[step], step))
        windows.append(Pass(tuple(spans), commit=False))
    turns = []
    for number, (first, frames) in enumerate(zip(begin, sizes, strict=True)):
        noisy = windows[:steps] if number == 0 else windows[number + steps - 1 : number + steps]
        commit = Pass((Span(number, first, frames, clean, None, 0),), commit=True)
        turns.append(Turn(number, first, frames, (*noisy, commit)))
    return tuple(turns)


def starts(sizes: Sequence[int]) -> list[int]:
    """Return the first latent frame of each chunk."""
    return [0, *accumulate(sizes)][: len(sizes)]
