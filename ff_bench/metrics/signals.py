"""Signals: what a formula or a network measures on the frames of a video, kept per frame, pair or clip.

One pass over a video feeds every signal that its metrics need (`ff_bench/metrics/passes.py`). Signals are
kept beside the rows; metrics, curves and drift are formulas on them, so that nothing is measured twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import ClassVar, Protocol

import torch
from torch import Tensor

CLIPS, HEADS, FRAMES = "clips", "heads", "frames"
"""What a signal reads: clips of 2 s one by one, the first frames of all clips, or the video in blocks."""

SIGNALS: Mapping[str, str] = {
    "levels": "ff_bench.metrics.levels:Levels",
    "difference": "ff_bench.metrics.levels:Difference",
    "thumbnails": "ff_bench.metrics.thumbnails:Thumbnails",
    "dino": "ff_bench.metrics.networks.dino:Dino",
    "clip_b32": "ff_bench.metrics.networks.clip:ClipB32",
    "aesthetic": "ff_bench.metrics.networks.clip:Aesthetic",
    "flow": "ff_bench.metrics.networks.raft:Flow",
    "flow_decision": "ff_bench.metrics.networks.raft:FlowDecision",
    "interpolation": "ff_bench.metrics.networks.amt:Interpolation",
    "musiq": "ff_bench.metrics.networks.musiq:Musiq",
    "viclip": "ff_bench.metrics.networks.viclip:ViClip",
    "dinov2": "ff_bench.metrics.networks.dino:DinoV2",
    "dreamsim": "ff_bench.metrics.networks.dreamsim:DreamSim",
}
"""Every signal by name; nothing is imported before it is needed."""


class Signal(Protocol):
    """One measurement on frames.

    Attributes:
        name: As in `SIGNALS`.
        version: Raised when any number may change.
        weights: Names in the manifest of weights (`ff_bench/weights.py`) of what it loads.
        libraries: Modules that it needs beside those of the core.
        reads: `CLIPS`, `HEADS` or `FRAMES`.
        reads_prompt: Whether its numbers depend on the prompt.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    weights: ClassVar[tuple[str, ...]]
    libraries: ClassVar[tuple[str, ...]]
    reads: ClassVar[str]
    reads_prompt: ClassVar[bool]

    def __init__(self, device: torch.device) -> None:
        """Load what it needs.

        Raises:
            Unavailable: where a library or a weight file is not on this machine.
        """

    def measure(self, frames: Tensor, *, fps: float, prompt: str, lead: int = 0) -> dict[str, Tensor]:
        """Measure consecutive frames.

        Args:
            frames: RGB, (T, 3, H, W) uint8, T >= 1, on the device: a clip, the first frames of all clips in
                order, or a block of the video.
            fps: Frames per second of the video.
            prompt: Text that the video was made from, empty where unknown.
            lead: Of a block: how many of the frames belong to the block before (0 or 1) and are there for
                differences only.

        Returns:
            Named arrays of the signal, float32 or bool, on any device; of a block, one number per frame after
            the lead, so that blocks can be joined.
        """


def kind(name: str) -> type[Signal]:
    """Import the class of a signal."""
    module, _, attribute = SIGNALS[name].partition(":")
    found: type[Signal] = getattr(import_module(module), attribute)
    return found
