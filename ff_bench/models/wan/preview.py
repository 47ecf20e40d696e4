"""A tiny decoder for quick looks at a video: TAEHV, causal, with a memory of one frame per block.

Source: madebyollin/taehv@1f14a56 taehv.py (MIT), the file taew2_1.pth. Scores are taken from the VAE.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ff_bench.errors import UsageError
from ff_bench.models.numbers import refuse_formats, refuse_infinite
from ff_bench.models.wan.member import LATENT_CHANNELS
from ff_bench.models.wan.tensors import read_tensors, refuse_differences, renamed

WIDTHS = (256, 128, 64, 64)
GROWTH = (1, 2, 2)
"""Frames that each stage makes of one."""
BLOCKS = 3
TRIMMED = 3
"""Pictures dropped at the start, so that the first latent frame is one picture."""


class MemoryBlock(nn.Module):
    """Residual block that also sees what the frame before looked like at this place."""

    def __init__(self, width: int) -> None:
        """Build it for `width` channels in and out."""
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, now: Tensor, before: Tensor) -> Tensor:
        """Mix a frame (B, C, h, w) with the one before, which is zeros at the start."""
        return functional.relu(self.conv(torch.cat([now, before], 1)) + now)


class Stage(nn.Module):
    """Three memory blocks, then twice the size, then `growth` frames of each, then fewer channels."""

    def __init__(self, width: int, narrower: int, growth: int) -> None:
        """Build it.

        Args:
            width: channels in.
            narrower: channels out.
            growth: frames made of one.
        """
        super().__init__()
        self.blocks = nn.ModuleList(MemoryBlock(width) for _ in range(BLOCKS))
        self.grow = nn.Conv2d(width, growth * width, 1, bias=False)
        self.project = nn.Conv2d(width, narrower, 3, padding=1, bias=False)
        self.growth = growth

    def forward(self, frame: Tensor, memory: list[Tensor | None]) -> list[Tensor]:
        """Turn a frame (B, C, h, w) into `growth` frames (B, C', 2h, 2w); changes the blocks' `memory`."""
        for index, block in enumerate(self.blocks):
            before = memory[index]
            memory[index], frame = frame, block(frame, torch.zeros_like(frame) if before is None else before)
        grown = self.grow(functional.interpolate(frame, scale_factor=2.0, mode="nearest"))
        return [self.project(part) for part in grown.chunk(self.growth, 1)]


class PreviewNetwork(nn.Module):
    """The decoder of TAEHV for Wan2.1 latents."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        """Build it with `widths` channels at each size."""
        super().__init__()
        self.entry = nn.Conv2d(LATENT_CHANNELS, widths[0], 3, padding=1)
        pairs = zip(widths[:-1], widths[1:], GROWTH, strict=True)
        self.stages = nn.ModuleList(Stage(*sizes) for sizes in pairs)
        self.exit = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, latent: Tensor, memory: list[list[Tensor | None]]) -> Tensor:
        """Decode one latent frame.

        Args:
            latent: (B, 16, h, w).
            memory: of each stage's blocks; changed.

        Returns:
            (B, 4, 3, 8h, 8w), about [0, 1].
        """
        frames = [functional.relu(self.entry(torch.tanh(latent / 3) * 3))]
        for stage, held in zip(self.stages, memory, strict=True):
            frames = [made for frame in frames for made in stage(frame, held)]
        return torch.stack([self.exit(functional.relu(frame)) for frame in frames], 1)


class PreviewDecoder:
    """Decodes videos side by side; one call per chunk."""

    def __init__(self, network: PreviewNetwork) -> None:
        """Begin at the first frame."""
        self.network = network
        self.memory: list[list[Tensor | None]] = [[None] * BLOCKS for _ in network.stages]
        self.trim = TRIMMED

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Tensor:
        """Decode the next latent frames.

        Args:
            latents: (B, F, 16, h, w) as the transformer gives them; no statistics are undone.

        Returns:
            (B, T, 8h, 8w, 3) uint8; T is 4F, and 4F - 3 in the first call.
        """
        weight = self.network.entry.weight
        placed = latents.to(device=weight.device, dtype=weight.dtype)
        made = torch.cat([self.network(frame, self.memory) for frame in placed.unbind(1)], 1)
        pictures, self.trim = made[:, self.trim :], 0
        return (pictures.float().clamp(0, 1) * 255).round().byte().permute(0, 1, 3, 4, 2)

    @property
    def state_nbytes(self) -> int:
        """Bytes held from chunk to chunk, all videos."""
        return sum(kept.nbytes for stage in self.memory for kept in stage if kept is not None)


class TaeHV:
    """The preview decoder's weights."""

    def __init__(self, network: PreviewNetwork) -> None:
        """Wrap a network; moved to evaluation without gradients."""
        self.network = network.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: Path, device: torch.device | str, dtype: torch.dtype) -> TaeHV:
        """Load the decoder's half of `taew2_1.pth`.

        Args:
            path: the file, `.pth` or `.safetensors`.
            device: where to.
            dtype: number format of the weights.

        Raises:
            ValueError: where the file is damaged or holds another decoder.
        """
        stored = read_tensors(path)
        refuse_formats(stored, path)
        weights = renamed(
            {name: value for name, value in stored.items() if name.startswith("decoder.")}, original_names()
        )
        try:
            ends = [weights[f"stages.{stage}.grow.weight"].shape[1] for stage in range(len(GROWTH))]
            widths = (*ends, weights["exit.weight"].shape[1])
        except (KeyError, IndexError):
            raise UsageError(f"{path} holds no TAEHV decoder: there is no tensor of its stages") from None
        for stage, growth in enumerate(GROWTH):
            # Where a file makes more frames than this model needs, the last ones count.
            name, rows = f"stages.{stage}.grow.weight", growth * widths[stage]
            weights[name] = weights[name][-rows:]
        with torch.device("meta"):
            network = PreviewNetwork(widths)
        expected = {name: value.shape for name, value in network.state_dict().items()}
        refuse_differences(expected, weights, path=path, what="TAEHV decoder for Wan2.1")
        placed = {name: value.to(device=device, dtype=dtype) for name, value in weights.items()}
        refuse_infinite(placed, path)
        network.load_state_dict(placed, assign=True)
        return cls(network)

    def decoder(self) -> PreviewDecoder:
        """Begin to decode videos side by side."""
        return PreviewDecoder(self.network)


def original_names() -> dict[str, str]:
    """Map the names of `taew2_1.pth`, numbers in one sequence of layers, to those of `PreviewNetwork`."""
    names = {}
    for part in ("weight", "bias"):
        names[f"decoder.1.{part}"] = f"entry.{part}"
        names[f"decoder.22.{part}"] = f"exit.{part}"
    for stage in range(len(GROWTH)):
        first = 3 + stage * (BLOCKS + 3)  # the blocks, the enlargement, the growth, the projection
        for block in range(BLOCKS):
            for conv in (0, 2, 4):
                for part in ("weight", "bias"):
                    leaf = f"conv.{conv}.{part}"
                    names[f"decoder.{first + block}.{leaf}"] = f"stages.{stage}.blocks.{block}.{leaf}"
        names[f"decoder.{first + BLOCKS + 1}.conv.weight"] = f"stages.{stage}.grow.weight"
        names[f"decoder.{first + BLOCKS + 2}.weight"] = f"stages.{stage}.project.weight"
    return names
