"""DINO and DINOv2: what a picture shows, as one vector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ff_bench.metrics.networks import checkpoints, pixels
from ff_bench.metrics.networks.vision import library
from ff_bench.metrics.signals import CLIPS, HEADS


@dataclass(frozen=True)
class Shape:
    """Sizes of a vision transformer.

    Attributes:
        patch: Side of a patch, in pixels.
        side: Side of the square pictures it was trained on, in pixels; fixes how many positions it learned.
        width: Numbers of a token.
        depth: Blocks.
        heads: Heads of attention.
        is_scaled: Whether each branch of a block ends in a learned scale (DINOv2).
    """

    patch: int
    side: int
    width: int = 768
    depth: int = 12
    heads: int = 12
    is_scaled: bool = False


VITB16 = Shape(patch=16, side=224)
VITB14 = Shape(patch=14, side=518, is_scaled=True)


def trunk(shape: Shape) -> nn.Module:
    """Build timm's vision transformer, without values; its parameters have the names of DINO's files."""
    with torch.device("meta"):
        network: nn.Module = library("timm.models.vision_transformer").VisionTransformer(
            img_size=shape.side,
            patch_size=shape.patch,
            embed_dim=shape.width,
            depth=shape.depth,
            num_heads=shape.heads,
            init_values=1.0 if shape.is_scaled else None,
            num_classes=0,
            weight_init="skip",
        )
    return network


def positions(embedding: Tensor, height: int, width: int, patch: int) -> Tensor:
    """Return one position per token for pictures of any size, by DINO's rule.

    The learned grid is scaled bicubically by a factor a tenth of a patch too large, which shifts every sample
    a little; libraries that scale to a size instead give other features.

    Args:
        embedding: (1, 1 + N, C): of the class token, then of a square grid.
        height: Of the pictures, in pixels.
        width: Of the pictures, in pixels.
        patch: Side of a patch, in pixels.

    Returns:
        (1, 1 + height // patch * (width // patch), C).
    """
    learned = embedding.shape[1] - 1
    rows, columns = height // patch, width // patch
    if rows * columns == learned and height == width:
        return embedding
    side = math.isqrt(learned)
    grid = embedding[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = ((rows + 0.1) / side, (columns + 0.1) / side)
    grid = functional.interpolate(grid, scale_factor=scale, mode="bicubic")  # (1, C, rows, columns)
    return torch.cat([embedding[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


def tokens(network: Any, images: Tensor) -> Tensor:
    """Run all blocks, without the last norm.

    Args:
        network: From `trunk`, with values.
        images: (B, 3, H, W) float32, normalised; pixels beyond the last whole patch are not seen.

    Returns:
        (B, 1 + patches, C), the class token first.
    """
    projection: nn.Conv2d = network.patch_embed.proj
    patches = projection(images).flatten(2).transpose(1, 2)
    sequence = torch.cat([network.cls_token.expand(len(images), -1, -1), patches], dim=1)
    height, width = images.shape[-2:]
    sequence = sequence + positions(network.pos_embed, height, width, projection.kernel_size[0])
    sequence = network.norm_pre(sequence)
    found: Tensor = network.blocks(sequence)
    return found


def features(network: Any, images: Tensor) -> Tensor:
    """Return the normed class token of each picture, L2-normalised, (B, C)."""
    found: Tensor = network.norm(tokens(network, images))[:, 0]
    return functional.normalize(found, dim=-1)


@lru_cache(maxsize=4)
def _load(shape: Shape, device: str, file: Path, stamp: int) -> nn.Module:
    """Load a trunk once per file, device and version of the file."""
    del stamp
    network = trunk(shape)
    state: Mapping[str, Tensor] = checkpoints.read(file)
    unused = {"mask_token"}  # of DINOv2's training
    state = {name: value for name, value in state.items() if name not in unused}
    checkpoints.fill(network, state, file=file, device=device)
    return network


class Dino:
    """Features of every frame by DINO ViT-B/16, on whole frames: the shorter side is 224, nothing is cut off.

    Source: arXiv:2104.14294, facebookresearch/dino; subject_consistency of Vchitect/VBench@45e79ec.
    Deviates: frames in batches.
    """

    name: ClassVar[str] = "dino"
    version: ClassVar[int] = 1
    weights: ClassVar[tuple[str, ...]] = ("dino_vitb16",)
    libraries: ClassVar[tuple[str, ...]] = ("timm",)
    reads: ClassVar[str] = CLIPS
    reads_prompt: ClassVar[bool] = False

    def __init__(self, device: torch.device) -> None:
        """Load the network."""
        self._network = _load(VITB16, str(device), *checkpoints.located("dino_vitb16"))

    def measure(self, frames: Tensor, *, fps: float, prompt: str, lead: int = 0) -> dict[str, Tensor]:
        """Return `features`, (T, 768) float32 of unit length."""
        del fps, prompt, lead
        with torch.inference_mode():
            return {"features": pixels.batched(self._features, frames)}

    def _features(self, frames: Tensor) -> Tensor:
        size = pixels.shorter_side(frames, VITB16.side)
        images = pixels.resize(frames.float(), size, mode="bilinear", antialias=False)
        return features(self._network, pixels.normalise(images, pixels.IMAGENET))


class DinoV2:
    """Features of the first frame of every clip by DINOv2 ViT-B/14, on 224 in the middle of 256 pixels.

    Source: arXiv:2304.07193, facebookresearch/dinov2; subject_consistency between clips of VBench-Long,
        Vchitect/VBench@45e79ec.
    Deviates: frames in batches.
    """

    name: ClassVar[str] = "dinov2"
    version: ClassVar[int] = 1
    weights: ClassVar[tuple[str, ...]] = ("dinov2_vitb14",)
    libraries: ClassVar[tuple[str, ...]] = ("timm",)
    reads: ClassVar[str] = HEADS
    reads_prompt: ClassVar[bool] = False

    def __init__(self, device: torch.device) -> None:
        """Load the network."""
        self._network = _load(VITB14, str(device), *checkpoints.located("dinov2_vitb14"))

    def measure(self, frames: Tensor, *, fps: float, prompt: str, lead: int = 0) -> dict[str, Tensor]:
        """Return `features`, (T, 768) float32 of unit length."""
        del fps, prompt, lead
        with torch.inference_mode():
            return {"features": pixels.batched(self._features, frames)}

    def _features(self, frames: Tensor) -> Tensor:
        size = pixels.shorter_side(frames, 256)
        images = pixels.crop(pixels.resize(frames.float(), size, mode="bicubic", antialias=True), 224)
        return features(self._network, pixels.normalise(images, pixels.IMAGENET))
