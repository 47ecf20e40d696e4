"""DreamSim: features whose cosine follows how alike people find two pictures."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ff_bench.metrics.networks import checkpoints, dino, pixels
from ff_bench.metrics.networks.checkpoints import State
from ff_bench.metrics.networks.vision import library
from ff_bench.metrics.signals import HEADS

SIDE = 224
ADAPTER = "ensemble_lora/"
_LOW_RANK = re.compile(r".*extractor_list\.(\d+)\.model\.(.+)\.lora_A\.weight")


@dataclass(frozen=True)
class Member:
    """One network of the ensemble.

    Attributes:
        file: Its file in the archive; empty for DINO, whose published file is used.
        activation: Of its blocks, in `open_clip.transformer` or `torch.nn`; empty for timm's own.
    """

    file: str
    activation: str = ""


MEMBERS = (
    Member(""),
    Member("clip_vitb16_pretrain.pth.tar", "QuickGELU"),
    Member("open_clip_vitb16_pretrain.pth.tar"),
)
"""In the order in which their features are joined and in which the adapter counts them."""


class Ensemble(nn.Module):
    """DINO, CLIP and OpenCLIP ViT-B/16, each fine-tuned; their features joined and centred."""

    def __init__(self, states: list[State], *, file: Path, device: str) -> None:
        """Fill the three trunks.

        Args:
            states: Of `MEMBERS`, the adapter merged; CLIP's kind also holds `proj`, (C, D).
            file: Where they are from, for errors.
            device: Where they go.
        """
        super().__init__()
        projections = [state.pop("proj", None) for state in states]
        self.trunks = nn.ModuleList(_trunk(member) for member in MEMBERS)
        for network, state in zip(self.trunks, states, strict=True):
            checkpoints.fill(network, _renamed(state), file=file, device=device)
        self.projections = [matrix.to(device) for matrix in projections if matrix is not None]

    def forward(self, images: Tensor) -> Tensor:
        """Map pictures in [0, 255], (B, 3, 224, 224) float32, to features of unit length, (B, D)."""
        own, *others = self.trunks
        # DINO gives the class token before its last norm, CLIP's kind after it and projected
        found = [dino.tokens(own, pixels.normalise(images, pixels.IMAGENET))[:, 0]]
        images = pixels.normalise(images, pixels.CLIP)
        for network, projection in zip(others, self.projections, strict=True):
            closing: Any = network.norm
            found.append(closing(dino.tokens(network, images)[:, 0]) @ projection)
        joined = torch.cat(found, dim=-1)
        return functional.normalize(joined - joined.mean(-1, keepdim=True), dim=-1)


def _trunk(member: Member) -> nn.Module:
    """Build one trunk without values; CLIP's kind norms its tokens first and has its own epsilon."""
    network: Any = dino.trunk(dino.VITB16)
    if not member.file:
        return network  # type: ignore[no-any-return]
    network.norm_pre = nn.LayerNorm(dino.VITB16.width, device="meta")
    for part in network.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = 1e-5
    if member.activation:
        for block in network.blocks:
            block.mlp.act = getattr(library("open_clip.transformer"), member.activation)()
    return network  # type: ignore[no-any-return]


def _renamed(state: State) -> State:
    """Name the first norm as timm does: the files keep it where DINO has a dropout."""
    return {name.replace("pos_drop.", "norm_pre."): value for name, value in state.items()}


def merged(states: list[State], adapter: Mapping[str, Tensor], alpha: float) -> list[State]:
    """Add the low-rank changes of the fine-tuning to the matrices that they change.

    Args:
        states: Of `MEMBERS`.
        adapter: Of every changed matrix, `lora_A` (rank, in) and `lora_B` (out, rank), by peft's names.
        alpha: A change counts alpha / rank.

    Raises:
        KeyError: where the adapter changes what is not there.
        ValueError: where it changes nothing.
    """
    changed = 0
    for name, down in adapter.items():
        found = _LOW_RANK.fullmatch(name)
        if not found:
            continue
        state, matrix = states[int(found[1])], f"{found[2]}.weight"
        up = adapter[name.replace("lora_A", "lora_B")]
        change = alpha / len(down) * (up.double() @ down.double())
        state[matrix] = (state[matrix].double() + change).float()
        changed += 1
    if not changed:
        raise ValueError("its adapter changes nothing")
    return states


def _adapter(archive: zipfile.ZipFile) -> tuple[State, float]:
    """Read the adapter, in either form that peft writes, and its alpha."""
    alpha = float(json.loads(archive.read(f"{ADAPTER}adapter_config.json"))["lora_alpha"])
    name = f"{ADAPTER}adapter_model.safetensors"
    if name in archive.namelist():
        from safetensors.torch import load

        return checkpoints.tensors(load(archive.read(name))), alpha
    return _tensors(archive, f"{ADAPTER}adapter_model.bin"), alpha


def _tensors(archive: zipfile.ZipFile, name: str, *inside: str) -> State:
    """Read a file of tensors inside the archive."""
    content = io.BytesIO(archive.read(name))
    return checkpoints.tensors(torch.load(content, map_location="cpu", weights_only=True), *inside)


@lru_cache(maxsize=2)
def _load(device: str, file: Path, stamp: int, own: Path, own_stamp: int) -> Ensemble:
    """Load the ensemble once per pair of files, device and version of the files."""
    del stamp, own_stamp
    first = checkpoints.read(own)
    try:
        with zipfile.ZipFile(file) as archive:
            others = [_tensors(archive, member.file, "state_dict") for member in MEMBERS if member.file]
            adapter, alpha = _adapter(archive)
        states = merged([first, *others], adapter, alpha)
    except checkpoints.UNREADABLE as error:
        raise checkpoints.unreadable(file, error) from error
    return Ensemble(states, file=file, device=device)


class DreamSim:
    """Features of the first frame of every clip by the DreamSim ensemble, on frames squeezed to a square.

    Source: arXiv:2306.09344, ssundaram21/dreamsim 0.2.1; background_consistency between clips of VBench-Long,
        Vchitect/VBench@45e79ec.
    Deviates: the low-rank adapters are added to the weights once, not to every product (rounding only).
    """

    name: ClassVar[str] = "dreamsim"
    version: ClassVar[int] = 1
    weights: ClassVar[tuple[str, ...]] = ("dreamsim_ensemble", "dino_vitb16")
    libraries: ClassVar[tuple[str, ...]] = ("timm", "open_clip")
    reads: ClassVar[str] = HEADS
    reads_prompt: ClassVar[bool] = False

    def __init__(self, device: torch.device) -> None:
        """Load the networks."""
        files = (*checkpoints.located("dreamsim_ensemble"), *checkpoints.located("dino_vitb16"))
        self._network = _load(str(device), *files)

    def measure(self, frames: Tensor, *, fps: float, prompt: str, lead: int = 0) -> dict[str, Tensor]:
        """Return `features`, (T, 1792) float32 of unit length."""
        del fps, prompt, lead
        with torch.inference_mode():
            return {"features": pixels.batched(self._features, frames)}

    def _features(self, frames: Tensor) -> Tensor:
        images = pixels.resize(frames.float(), (SIDE, SIDE), mode="bicubic", antialias=True)
        features: Tensor = self._network(images)
        return features
