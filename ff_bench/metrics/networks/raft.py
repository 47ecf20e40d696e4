"""RAFT: flow between frames an eighth of a second apart, and whether a clip moves (dynamic degree)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ff_bench.errors import Unavailable
from ff_bench.metrics.networks import checkpoints
from ff_bench.metrics.networks.flow_network import FlowNetwork, load
from ff_bench.metrics.signals import CLIPS

MULTIPLE = 8
SMALLEST = 128
"""Sides are padded to multiples of 8; below 128 px the coarsest level of correlations has a single cell."""
TOP = 0.05
"""Share of pixels with the largest flow that speaks for a pair."""
FRAMES_A_SECOND = 8
PIXELS = 2**22
"""Pixels of frames that are encoded together: ten frames of 480x832 px."""
CORRELATIONS = 2**31
"""Bytes of the correlations of pairs that are matched together: ten pairs of 480x832 px."""


class _Raft:
    """What both signals share: the network and what it needs."""

    version: ClassVar[int] = 1
    weights: ClassVar[tuple[str, ...]] = ("raft_things",)
    libraries: ClassVar[tuple[str, ...]] = ("torchvision",)
    reads_prompt: ClassVar[bool] = False
    reads: ClassVar[str] = CLIPS

    def __init__(self, device: torch.device) -> None:
        """Load the network.

        Raises:
            Unavailable: where torchvision or the weights are not on this machine.
        """
        self._network = _network(str(device), *checkpoints.located("raft_things"))


class Flow(_Raft):
    """Motion of every pair of consecutive kept frames.

    Source: arXiv:2003.12039, weights `raft-things`; VBench@45e79ec `vbench/dynamic_degree.py`
    (arXiv:2311.17982).
    Deviates: frames of at most 120 px a side are refused, where VBench divides by zero in its coarsest level.
    """

    name: ClassVar[str] = "flow"

    def measure(self, frames: Tensor, *, fps: float, prompt: str, lead: int = 0) -> dict[str, Tensor]:
        """Measure all pairs of a clip.

        Args:
            frames: RGB, (T, 3, H, W) uint8.
            fps: Every `max(1, round(fps / 8))`-th frame is kept.
            prompt: Not used.
            lead: Not used.

        Returns:
            `motion`: mean flow of the 5 % of pixels that move most, px, per pair, (P,) float32.
            `known`: (P,) bool, all true.

        Raises:
            Unavailable: where the frames are too small for the network.
        """
        clip = _Clip(self._network, kept(frames, fps))
        motion = clip.motion(range(clip.pairs))
        return {"motion": motion, "known": torch.ones_like(motion, dtype=torch.bool)}


class FlowDecision(_Raft):
    """The same, but only for as many pairs as decide whether the clip is dynamic; the answer is the same.

    Pairs are measured in the order of how much their pixels change, the most first, since those are likely to
    move, in groups of the fewest that can settle the answer: no pair is measured after it is settled. Of 15
    pairs 4 at least (dynamic) or 12 (static) are measured.
    """

    name: ClassVar[str] = "flow_decision"

    def measure(self, frames: Tensor, *, fps: float, prompt: str, lead: int = 0) -> dict[str, Tensor]:
        """Measure pairs of a clip until it is decided.

        Args:
            frames: RGB, (T, 3, H, W) uint8.
            fps: Every `max(1, round(fps / 8))`-th frame is kept.
            prompt: Not used.
            lead: Not used.

        Returns:
            `motion`: as of `Flow`, 0 where a pair was not measured, (P,) float32.
            `known`: which pairs were measured, (P,) bool.

        Raises:
            Unavailable: where the frames are too small for the network.
        """
        chosen = kept(frames, fps)
        clip = _Clip(self._network, chosen)
        motion, known = decide(clip.motion, by_change(chosen), limit=threshold(*frames.shape[-2:]))
        return {"motion": motion, "known": known}


def kept(frames: Tensor, fps: float) -> Tensor:
    """Return every `max(1, round(fps / 8))`-th frame from the first on."""
    return frames[:: max(1, round(fps / FRAMES_A_SECOND))]


def needed(kept: int) -> int:
    """Return how many pairs must move in a dynamic clip of so many kept frames: a quarter, half to even."""
    return round(4 * kept / 16)


def threshold(height: int, width: int) -> float:
    """Return the flow in pixels above which a pair moves: 6 px per 256 px of the shorter side."""
    return 6.0 * (min(height, width) / 256.0)


def is_dynamic(motion: Tensor, known: Tensor, *, height: int, width: int) -> bool:
    """Decide whether a clip is dynamic.

    As in VBench, two kept frames need no moving pair, and a single frame is static.

    Args:
        motion: Px, (P,), of `Flow` or `FlowDecision`.
        known: (P,) bool.
        height: Of the frames, px, before padding.
        width: The same.

    Raises:
        ValueError: where the pairs that are not known could turn the answer.
    """
    pairs = len(motion)
    above = int(((motion > threshold(height, width)) & known).sum())
    if unsettled(pairs, seen=int(known.sum()), above=above):
        raise ValueError(f"{int(known.sum())} of {pairs} pairs, {above} of them moving, do not decide")
    return pairs > 0 and above >= needed(pairs + 1)


def unsettled(pairs: int, *, seen: int, above: int) -> int:
    """Return the fewest further pairs that can settle whether a clip is dynamic, 0 where it is settled.

    Args:
        pairs: All pairs of the clip.
        seen: Pairs measured so far.
        above: How many of these move.
    """
    rest, moving = pairs - seen, needed(pairs + 1) - above
    resting = rest - moving + 1
    return max(0, min(moving, resting))


def decide(
    measure: Callable[[Sequence[int]], Tensor], queue: Sequence[int], *, limit: float
) -> tuple[Tensor, Tensor]:
    """Measure pairs in the order of a queue until they settle whether a clip is dynamic.

    Args:
        measure: Returns the motion of the pairs with the given numbers.
        queue: All pairs of the clip, each once.
        limit: Motion above which a pair moves.

    Returns:
        Motion, 0 where it was not measured, (P,) float32, and which pairs were measured, (P,) bool.
    """
    motion, known = torch.zeros(len(queue)), torch.zeros(len(queue), dtype=torch.bool)
    seen = above = 0
    while more := unsettled(len(queue), seen=seen, above=above):
        group = list(queue[seen : seen + more])
        found = measure(group).cpu()
        motion[group], known[group] = found, True
        seen, above = seen + more, above + int((found > limit).sum())
    return motion, known


def by_change(frames: Tensor) -> list[int]:
    """Order pairs of consecutive frames by how much their pixels change, the most first, ties by time.

    Args:
        frames: (N, 3, H, W) uint8.
    """
    if len(frames) < 2:
        return []
    changes = [_change(frames[pair], frames[pair + 1]) for pair in range(len(frames) - 1)]
    return [int(pair) for pair in torch.stack(changes).argsort(descending=True, stable=True).tolist()]


def _change(frame: Tensor, other: Tensor) -> Tensor:
    """Exact sum of absolute differences, the same on every device."""
    return (frame.to(torch.int16) - other.to(torch.int16)).abs().sum(dtype=torch.int64)


def strongest(flows: Tensor) -> Tensor:
    """Return the mean length of the longest 5 % of flow vectors, (B, 2, H, W) to (B,)."""
    lengths = flows.square().sum(1).sqrt().flatten(1)
    return lengths.topk(int(lengths.shape[1] * TOP), dim=1, sorted=False).values.mean(1)


class _Clip:
    """Kept frames of one clip and the features of those that were needed so far, each encoded once."""

    def __init__(self, network: FlowNetwork, frames: Tensor) -> None:
        self._network = network
        self._frames = frames
        self._borders = _borders(*frames.shape[-2:])
        height, width = frames.shape[-2] + sum(self._borders[2:]), frames.shape[-1] + sum(self._borders[:2])
        self._cells = height * width // MULTIPLE**2
        self._features: dict[int, Tensor] = {}
        self.pairs = len(frames) - 1

    @torch.inference_mode()
    def motion(self, pairs: Sequence[int]) -> Tensor:
        """Measure pairs by their numbers; the flow keeps its padding, as in VBench."""
        if not pairs:
            return torch.zeros(0)
        step = max(1, CORRELATIONS * 3 // (16 * self._cells**2))  # 4 bytes and a third for coarser levels
        groups = [pairs[start : start + step] for start in range(0, len(pairs), step)]
        return torch.cat([strongest(self._flows(group)) for group in groups])

    def _flows(self, pairs: Sequence[int]) -> Tensor:
        self._encode(sorted({frame for pair in pairs for frame in (pair, pair + 1)} - self._features.keys()))
        first = torch.stack([self._features[pair] for pair in pairs])
        second = torch.stack([self._features[pair + 1] for pair in pairs])
        return self._network.flows(self._images(pairs), first, second)

    def _encode(self, numbers: Sequence[int]) -> None:
        step = max(1, PIXELS // (self._frames.shape[-2] * self._frames.shape[-1]))
        for start in range(0, len(numbers), step):
            part = numbers[start : start + step]
            self._features.update(zip(part, self._network.features(self._images(part)), strict=True))

    def _images(self, numbers: Sequence[int]) -> Tensor:
        """Return frames as the network takes them: padded, float32, -1 to 1."""
        chosen = torch.stack([self._frames[number] for number in numbers]).to(torch.float32)
        return 2 * (functional.pad(chosen, self._borders, mode="replicate") / 255.0) - 1.0


def _borders(height: int, width: int) -> tuple[int, int, int, int]:
    """Return the padding left, right, above and below, the larger half right and below.

    Raises:
        Unavailable: where a side is too short.
    """
    across, down = -width % MULTIPLE, -height % MULTIPLE
    if min(width + across, height + down) < SMALLEST:
        needs = f"which needs more than {SMALLEST - MULTIPLE} px a side"
        raise Unavailable(f"frames of {height}x{width} px are too small for RAFT, {needs}")
    return across // 2, across - across // 2, down // 2, down - down // 2


@lru_cache(maxsize=2)
def _network(device: str, file: Path, modified: int) -> FlowNetwork:
    """Load RAFT once for each device and state of the file."""
    return load(file, device)
