"""CLIP's picture towers, and the aesthetic score that LAION put on one of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ff_bench.metrics.networks import checkpoints, pixels
from ff_bench.metrics.networks.vision import library
from ff_bench.metrics.signals import CLIPS

SIDE = 224
"""Side of the square that every tower here sees, in pixels."""

HEAD = 64
"""Numbers of an attention head, in all of CLIP's transformers."""


@dataclass(frozen=True)
class Tower:
    """Sizes of a picture tower.

    Attributes:
        patch: Side of a patch, in pixels.
        width: Numbers of a token.
        layers: Blocks.
        features: Numbers of the result.
    """

    patch: int
    width: int
    layers: int
    features: int


B32 = Tower(patch=32, width=768, layers=12, features=512)
L14 = Tower(patch=14, width=1024, layers=24, features=768)


def prepare(frames: Tensor) -> Tensor:
    """Return what CLIP sees by VBench's transform: the middle square, bicubic without filter, normalised.

    Args:
        frames: (T, 3, H, W), 0 to 255. Floating frames keep what the kernel puts outside the range; of 8-bit
            ones it is clamped and rounded.

    Returns:
        (T, 3, 224, 224) float32.
    """
    size = pixels.shorter_side(frames, SIDE)
    images = pixels.resize(frames, size, mode="bicubic", antialias=False)
    return pixels.normalise(pixels.crop(images, SIDE), pixels.CLIP)


def tower(sizes: Tower) -> nn.Module:
    """Build open_clip's picture tower, without values; its parameters have the names of OpenAI's files."""
    parts = library("open_clip.transformer")
    with torch.device("meta"):
        network: nn.Module = parts.VisionTransformer(
            image_size=SIDE,
            patch_size=sizes.patch,
            width=sizes.width,
            layers=sizes.layers,
            heads=sizes.width // HEAD,
            mlp_ratio=4.0,
            output_dim=sizes.features,
            act_layer=parts.QuickGELU,
        )
    fuse(network.transformer)
    return network


def fuse(transformer: Any) -> None:
    """Let open_clip's blocks use torch's fused attention.

    With the batch first, torch takes a path of its own that writes all weights of attention out: half as much
    time again on CPUs, and memory that grows with the square of the tokens.
    """
    transformer.batch_first = False
    for block in transformer.resblocks:
        block.attn.batch_first = False


@lru_cache(maxsize=4)
def _load(sizes: Tower, device: str, file: Path, stamp: int) -> nn.Module:
    """Load a tower once per file, device and version of the file."""
    del stamp
    network = tower(sizes)
    prefix = "visual."
    state = {name: value for name, value in checkpoints.read(file).items() if name.startswith(prefix)}
    state = {name.removeprefix(prefix): value for name, value in state.items()}
    checkpoints.fill(network, state, file=file, device=device)
    return network


@lru_cache(maxsize=2)
def _load_head(features: int, device: str, file: Path, stamp: int) -> nn.Linear:
    """Load LAION's head."""
    del stamp
    head = nn.Linear(features, 1, device="meta")
    checkpoints.fill(head, checkpoints.read(file), file=file, device=device)
    return head


class ClipB32:
    """Features of every frame by CLIP ViT-B/32.

    Source: arXiv:2103.00020, openai/CLIP; background_consistency of Vchitect/VBench@45e79ec.
    Deviates: frames in batches; float32 also on GPUs, where VBench computes in half precision.
    """

    name: ClassVar[str] = "clip_b32"
    version: ClassVar[int] = 1
    weights: ClassVar[tuple[str, ...]] = ("clip_vitb32",)
    libraries: ClassVar[tuple[str, ...]] = ("open_clip",)
    reads: ClassVar[str] = CLIPS
    reads_prompt: ClassVar[bool] = False

    def __init__(self, device: torch.device) -> None:
        """Load the network."""
        self._network = _load(B32, str(device), *checkpoints.located("clip_vitb32"))

    def measure(self, frames: Tensor, *, fps: float, prompt: str, lead: int = 0) -> dict[str, Tensor]:
        """Return `features`, (T, 512) float32 of unit length."""
        del fps, prompt, lead
        with torch.inference_mode():
            return {"features": pixels.batched(self._features, frames)}

    def _features(self, frames: Tensor) -> Tensor:
        return functional.normalize(self._network(prepare(frames.float())), dim=-1)


class Aesthetic:
    """Aesthetic score of every frame: LAION's linear head on CLIP ViT-L/14, tenths of its 1 to 10.

    Source: LAION-AI/aesthetic-predictor; aesthetic_quality of Vchitect/VBench@45e79ec.
    Deviates: float32 also on GPUs, where VBench computes features in half precision.
    """

    name: ClassVar[str] = "aesthetic"
    version: ClassVar[int] = 1
    weights: ClassVar[tuple[str, ...]] = ("clip_vitl14", "aesthetic_linear")
    libraries: ClassVar[tuple[str, ...]] = ("open_clip",)
    reads: ClassVar[str] = CLIPS
    reads_prompt: ClassVar[bool] = False

    def __init__(self, device: torch.device) -> None:
        """Load both networks."""
        self._network = _load(L14, str(device), *checkpoints.located("clip_vitl14"))
        self._head = _load_head(L14.features, str(device), *checkpoints.located("aesthetic_linear"))

    def measure(self, frames: Tensor, *, fps: float, prompt: str, lead: int = 0) -> dict[str, Tensor]:
        """Return `scores`, (T,) float32."""
        del fps, prompt, lead
        with torch.inference_mode():
            return {"scores": pixels.batched(self._scores, frames)}

    def _scores(self, frames: Tensor) -> Tensor:
        features = functional.normalize(self._network(prepare(frames.float())), dim=-1)
        scores: Tensor = self._head(features)[:, 0] / 10
        return scores
