"""RAFT over torchvision's layers: what pairs of frames share is computed once, and nothing in vain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ff_bench.metrics.networks import checkpoints, vision

ITERATIONS = 20
HIDDEN = 128
LEVELS = 4
RADIUS = 4
FACTOR = 8
"""Flow is refined at an eighth of the resolution."""

_LAST = torch.channels_last
_RENAMES = (
    (r"^module\.", ""),
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    (r"^(\w+_encoder)\.conv1\.", r"\1.convnormrelu.0."),
    (r"^(\w+_encoder)\.norm1\.", r"\1.convnormrelu.1."),
    (r"^(\w+_encoder)\.conv2\.", r"\1.conv."),
    (r"(layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0."),
    (r"(layer\d\.\d)\.norm([12])\.", r"\1.convnormrelu\2.1."),
    (r"^update_block\.encoder\.conv([cf])(\d)\.", r"update_block.motion_encoder.conv\1\2.0."),
    (r"\.convc(\d)\.0", r".convcorr\1.0"),
    (r"\.convf(\d)\.0", r".convflow\1.0"),
    (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"^update_block\.gru\.conv([zrq])(\d)\.", r"update_block.recurrent_block.convgru\2.conv\1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
)
"""Names of the original network to torchvision's, applied one after the other."""


def load(file: Path, device: str) -> FlowNetwork:
    """Load the original weights.

    Args:
        file: State of princeton-vl/RAFT, its names led by `module.`.
        device: Where the network goes.

    Raises:
        Unavailable: where torchvision is not installed or the file holds something else.
    """
    model = vision.library("torchvision.models.optical_flow").raft_large(weights=None, progress=False)
    checkpoints.fill(model, renamed(checkpoints.read(file)), file=file, device=device)
    return FlowNetwork(model)


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the original weights torchvision's names; `norm3` is a second name of `downsample.1`."""
    found = {}
    for original, values in state.items():
        name = original
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        if ".norm3." not in name:
            found[name] = values
    return found


class FlowNetwork:
    """Flow of pairs of frames, as torchvision's `raft_large` returns it after 20 refinements.

    Three things are saved, at no cost in accuracy beyond the order of sums: frames are encoded once, not once
    for each pair that they are in; only the last refinement predicts how to upsample; and what the recurrent
    unit adds for the context, which no refinement changes, is computed once a pair.
    """

    def __init__(self, model: Any) -> None:
        """Take the layers of a loaded model."""
        self._features = model.feature_encoder
        self._context = model.context_encoder
        self._motion = model.update_block.motion_encoder.to(memory_format=_LAST)
        self._head = model.update_block.flow_head.to(memory_format=_LAST)
        self._mask = model.mask_predictor.to(memory_format=_LAST)
        unit = model.update_block.recurrent_block
        self._gates = (_Gate.of(unit.convgru1), _Gate.of(unit.convgru2))

    def features(self, images: Tensor) -> Tensor:
        """Encode frames for matching.

        Args:
            images: (N, 3, H, W) float32, -1 to 1, both sides multiples of 8.

        Returns:
            (N, 256, H / 8, W / 8).
        """
        found: Tensor = self._features(images)
        return found

    def flows(self, images: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Find where each pixel of the first frames goes in the second.

        Args:
            images: First frames, (B, 3, H, W), as of `features`.
            first: Features of the first frames.
            second: Features of the second frames.

        Returns:
            Pixels across and down, (B, 2, H, W) float32.
        """
        pyramid = _correlations(first, second)
        hidden, context = self._context(images).split(HIDDEN, dim=1)
        hidden, context = hidden.tanh().contiguous(memory_format=_LAST), context.relu()
        shares = [gate.share(context) for gate in self._gates]
        start = _grid(first)
        places = start
        for _ in range(ITERATIONS):
            seen = self._motion(places - start, _lookup(pyramid, places))
            for gate, share in zip(self._gates, shares, strict=True):
                hidden = gate.step(hidden, seen, share)
            places = places + self._head(hidden)
        return _upsampled(places - start, self._mask(hidden))


@dataclass(frozen=True)
class _Gate:
    """One direction of the recurrent unit, its weights split by what they see.

    Attributes:
        gates: Update and reset gate over hidden state and motion, (256, 256, *kernel).
        candidate: The same for the new state, (128, 256, *kernel).
        context: All three over the context, (384, 128, *kernel).
        bias: (384,).
        padding: Of the kernel, rows and columns.
    """

    gates: Tensor
    candidate: Tensor
    context: Tensor
    bias: Tensor
    padding: tuple[int, int]

    @classmethod
    def of(cls, unit: Any) -> _Gate:
        """Split a unit whose inputs are hidden state, context and motion, 128 channels each."""
        layers = (unit.convz, unit.convr, unit.convq)
        parts = [layer.weight.split(HIDDEN, dim=1) for layer in layers]
        own = [torch.cat((hidden, motion), dim=1) for hidden, _, motion in parts]
        return cls(
            gates=torch.cat(own[:2]).contiguous(memory_format=_LAST),
            candidate=own[2].contiguous(memory_format=_LAST),
            context=torch.cat([context for _, context, _ in parts]),
            bias=torch.cat([layer.bias for layer in layers]),
            padding=unit.convz.padding,
        )

    def share(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the context adds to both gates and to the candidate."""
        added = functional.conv2d(context, self.context, self.bias, padding=self.padding)
        gates, candidate = added.contiguous(memory_format=_LAST).split((2 * HIDDEN, HIDDEN), dim=1)
        return gates, candidate

    def step(self, hidden: Tensor, seen: Tensor, share: tuple[Tensor, Tensor]) -> Tensor:
        """Update the hidden state, (B, 128, h, w), by what is seen, of the same shape."""
        inputs = torch.cat((hidden, seen), dim=1)
        gates = functional.conv2d(inputs, self.gates, padding=self.padding).add_(share[0]).sigmoid_()
        update, reset = gates.split(HIDDEN, dim=1)
        inputs = torch.cat((reset * hidden, seen), dim=1)
        candidate = functional.conv2d(inputs, self.candidate, padding=self.padding).add_(share[1]).tanh_()
        mixed: Tensor = (1 - update) * hidden + update * candidate
        return mixed


def _correlations(first: Tensor, second: Tensor) -> list[Tensor]:
    """Correlate two feature maps, (B, C, h, w), and pool to four levels of (B * h * w, 1, h', w')."""
    pairs, channels, height, width = first.shape
    scaled = first.flatten(2).transpose(1, 2) / channels**0.5
    level = (scaled @ second.flatten(2)).view(pairs * height * width, 1, height, width)
    levels = [level]
    for _ in range(LEVELS - 1):
        level = functional.avg_pool2d(level, kernel_size=2, stride=2)
        levels.append(level)
    return levels


def _lookup(pyramid: list[Tensor], places: Tensor) -> Tensor:
    """Read correlations in windows of 9x9 cells around places, on each level: (B, 324, h, w).

    The network was trained on windows that run down its columns first: the slower step goes across.
    """
    pairs, _, height, width = places.shape
    steps = torch.arange(-RADIUS, RADIUS + 1, device=places.device, dtype=places.dtype)
    side = len(steps)
    across, down = places.movedim(1, -1).reshape(-1, 2, 1).unbind(1)  # (B * h * w, 1) each
    found = []
    for level in pyramid:
        rows, columns = level.shape[-2:]
        grid = torch.stack(
            (
                (2 * (across + steps) / (columns - 1) - 1)[:, :, None].expand(-1, side, side),
                (2 * (down + steps) / (rows - 1) - 1)[:, None, :].expand(-1, side, side),
            ),
            dim=-1,
        )
        window = functional.grid_sample(level, grid, align_corners=True)  # bilinear, zero outside
        found.append(window.view(pairs, height, width, -1))
        across, down = across / 2, down / 2
    return torch.cat(found, dim=-1).movedim(-1, 1)


def _grid(features: Tensor) -> Tensor:
    """Column and row of every cell, (B, 2, h, w)."""
    pairs, _, height, width = features.shape
    rows, columns = (torch.arange(side, device=features.device) for side in (height, width))
    places = torch.stack(torch.meshgrid(columns, rows, indexing="xy")).to(features.dtype)
    return places.expand(pairs, -1, -1, -1)


def _upsampled(flow: Tensor, mask: Tensor) -> Tensor:
    """Mix each fine vector from nine coarse ones around it: (B, 2, h, w) to (B, 2, 8h, 8w)."""
    pairs, _, height, width = flow.shape
    shares = mask.reshape(pairs, 1, 9, FACTOR, FACTOR, height, width).softmax(dim=2)
    around = functional.unfold(FACTOR * flow, kernel_size=3, padding=1).view(pairs, 2, 9, 1, 1, height, width)
    fine = (shares * around).sum(dim=2).permute(0, 1, 4, 2, 5, 3)
    return fine.reshape(pairs, 2, FACTOR * height, FACTOR * width)
