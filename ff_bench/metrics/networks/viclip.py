"""ViCLIP: how well a clip fits its prompt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ff_bench.errors import Unavailable
from ff_bench.metrics.networks import checkpoints
from ff_bench.metrics.networks.clip import HEAD, SIDE, Tower, fuse, prepare
from ff_bench.metrics.networks.vision import library
from ff_bench.metrics.signals import CLIPS


@dataclass(frozen=True)
class Sizes:
    """Sizes of the two towers.

    Attributes:
        frames: Pictures of a clip.
        tokens: Longest text, its two marks counted; what is longer is cut.
        vocabulary: Words of the tokenizer.
        video: The tower of pictures.
        width: Numbers of a text token.
        layers: Blocks of the tower of texts.
    """

    frames: int
    tokens: int
    vocabulary: int
    video: Tower
    width: int
    layers: int


FLT = Sizes(
    frames=8,
    tokens=32,
    vocabulary=49408,
    video=Tower(patch=14, width=1024, layers=24, features=768),
    width=768,
    layers=12,
)


class Video(nn.Module):
    """Tower of clips: all patches of all pictures attend to each other and to one class token."""

    def __init__(self, sizes: Sizes) -> None:
        """Build it under the names of the checkpoint."""
        super().__init__()
        tower = sizes.video
        kernel = (1, tower.patch, tower.patch)
        self.conv1 = nn.Conv3d(3, tower.width, kernel, kernel, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(tower.width))
        self.positional_embedding = nn.Parameter(torch.empty((SIDE // tower.patch) ** 2 + 1, tower.width))
        self.temporal_positional_embedding = nn.Parameter(torch.empty(1, sizes.frames, tower.width))
        self.ln_pre = nn.LayerNorm(tower.width)
        self.transformer = _blocks(tower.width, tower.layers)
        self.ln_post = nn.LayerNorm(tower.width)
        self.proj = nn.Parameter(torch.empty(tower.width, tower.features))

    def forward(self, clips: Tensor) -> Tensor:
        """Map clips, (B, F, 3, 224, 224) float32, to features, (B, C)."""
        patches = self.conv1(clips.transpose(1, 2)).flatten(3).permute(0, 3, 2, 1)  # (B, patches, F, width)
        patches = patches + self.positional_embedding[1:, None] + self.temporal_positional_embedding
        first = (self.class_embedding + self.positional_embedding[0]).expand(len(clips), 1, -1)
        sequence = torch.cat([first, patches.flatten(1, 2)], dim=1)
        sequence = self.transformer(self.ln_pre(sequence))
        features: Tensor = self.ln_post(sequence[:, 0]) @ self.proj
        return features


class Text(nn.Module):
    """Tower of texts: the feature is that of the closing mark."""

    def __init__(self, sizes: Sizes) -> None:
        """Build it under the names of the checkpoint."""
        super().__init__()
        self.token_embedding = nn.Embedding(sizes.vocabulary, sizes.width)
        self.positional_embedding = nn.Parameter(torch.empty(sizes.tokens, sizes.width))
        self.transformer = _blocks(sizes.width, sizes.layers)
        self.ln_final = nn.LayerNorm(sizes.width)
        self.text_projection = nn.Parameter(torch.empty(sizes.width, sizes.video.features))

    def forward(self, words: Tensor) -> Tensor:
        """Map texts, (B, 32) int64, to features, (B, C)."""
        length = words.shape[1]
        later = torch.full((length, length), float("-inf"), device=words.device).triu(1)
        sequence = self.token_embedding(words) + self.positional_embedding
        sequence = self.ln_final(self.transformer(sequence, attn_mask=later))
        closing = words.argmax(-1)  # the closing mark has the highest number
        features: Tensor = sequence[torch.arange(len(words), device=words.device), closing]
        return features @ self.text_projection


class Network(nn.Module):
    """Both towers, as the checkpoint names them."""

    def __init__(self, sizes: Sizes) -> None:
        """Build it under the names of the checkpoint."""
        super().__init__()
        self.vision_encoder = Video(sizes)
        self.text_encoder = Text(sizes)
        self.temp = nn.Parameter(torch.empty([]))  # temperature of training, unused here


def _blocks(width: int, layers: int) -> nn.Module:
    parts = library("open_clip.transformer")
    built: nn.Module = parts.Transformer(width, layers, width // HEAD, act_layer=parts.QuickGELU)
    fuse(built)
    return built


def middles(length: int, count: int) -> list[int]:
    """Return the frame in the middle of each of `count` even intervals.

    A middle between two frames is the earlier; a clip with fewer frames gives all, then its last again.
    """
    taken = min(count, length)
    bounds = [int(length * index / taken) for index in range(taken)] + [length]
    found = [(start + stop - 1) // 2 for start, stop in pairwise(bounds)]
    return found + [found[-1]] * (count - taken)


def words(prompt: str, length: int) -> Tensor:
    """Return a text as CLIP's byte-pair tokens, (1, length) int64, cut where it is longer."""
    tokenizer: Any = _tokenizer()
    found: Tensor = tokenizer([prompt], context_length=length)
    return found


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    return library("open_clip.tokenizer").SimpleTokenizer()


@lru_cache(maxsize=2)
def _load(sizes: Sizes, device: str, file: Path, stamp: int) -> Network:
    """Load the network once per file, device and version of the file."""
    del stamp
    with torch.device("meta"):
        network = Network(sizes)
    checkpoints.fill(network, checkpoints.read(file, "model"), file=file, device=device)
    return network


class ViClip:
    """Cosine of a clip and its prompt by ViCLIP, on the middles of eight even intervals.

    Source: arXiv:2307.06942, OpenGVLab/ViCLIP (InternVid-10M-FLT); overall_consistency of
        Vchitect/VBench@45e79ec, which resizes the 8-bit frames, so that they are rounded again.
    Deviates: in nothing that changes a number; texts are encoded once per prompt.
    """

    name: ClassVar[str] = "viclip"
    version: ClassVar[int] = 1
    weights: ClassVar[tuple[str, ...]] = ("viclip",)
    libraries: ClassVar[tuple[str, ...]] = ("open_clip",)
    reads: ClassVar[str] = CLIPS
    reads_prompt: ClassVar[bool] = True

    def __init__(self, device: torch.device) -> None:
        """Load the network."""
        self._network = _load(FLT, str(device), *checkpoints.located("viclip"))
        self._device = device
        self._texts: dict[str, Tensor] = {}

    def measure(self, frames: Tensor, *, fps: float, prompt: str, lead: int = 0) -> dict[str, Tensor]:
        """Return `similarity`, (1,) float32.

        Raises:
            Unavailable: where the prompt is empty.
        """
        del fps, lead
        if not prompt.strip():
            raise Unavailable("no prompt is known for this video, and ViCLIP compares a clip with its prompt")
        with torch.inference_mode():
            clip = prepare(frames[middles(len(frames), FLT.frames)])
            video = functional.normalize(self._network.vision_encoder(clip[None]), dim=-1)
            return {"similarity": (video @ self._text(prompt).T)[:, 0]}

    def _text(self, prompt: str) -> Tensor:
        if prompt not in self._texts:
            tokens = words(prompt, FLT.tokens).to(self._device)
            self._texts[prompt] = functional.normalize(self._network.text_encoder(tokens), dim=-1)
        return self._texts[prompt]
