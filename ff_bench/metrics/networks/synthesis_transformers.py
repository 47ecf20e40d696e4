"""Random weights of the true layouts for the transformers: both this package and VBench load these files.

Scores under them mean nothing. They show that two programs compute the same numbers, without any download;
for that the features of different pictures must differ clearly, which the sizes of the values here see to.
"""

from __future__ import annotations

import io
import json
import math
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ff_bench import weights
from ff_bench.metrics.networks import clip, dino, dreamsim, viclip
from ff_bench.metrics.networks.checkpoints import State

SHARPNESS = 2.0
"""Queries and keys are this much larger than values, so that attention picks, not averages."""

RANK = 16


class Draw:
    """Values of parameters, drawn in order from one seeded generator."""

    def __init__(self, seed: int) -> None:
        """Start the generator."""
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float) -> Tensor:
        """Draw normal values of a standard deviation, float32."""
        return torch.randn(*shape, generator=self._generator) * scale

    def linear(self, name: str, outputs: int, inputs: int) -> State:
        """Draw a linear layer that keeps the size of what passes."""
        weight = self.normal(outputs, inputs, scale=inputs**-0.5)
        return {f"{name}.weight": weight, f"{name}.bias": self.normal(outputs, scale=0.1)}

    def attention(self, width: int) -> tuple[Tensor, Tensor]:
        """Draw the joint weight and bias of queries, keys and values."""
        weight = self.normal(3 * width, width, scale=width**-0.5)
        weight[: 2 * width] *= SHARPNESS
        return weight, self.normal(3 * width, scale=0.1)

    def norm(self, name: str, width: int) -> State:
        """Draw a layer norm."""
        return {
            f"{name}.weight": 1 + self.normal(width, scale=0.1),
            f"{name}.bias": self.normal(width, scale=0.1),
        }


def _vit(draw: Draw, shape: dino.Shape) -> State:
    """Draw a vision transformer as DINO names it."""
    width, positions = shape.width, (shape.side // shape.patch) ** 2 + 1
    state = {
        "cls_token": draw.normal(1, 1, width, scale=0.5),
        "pos_embed": draw.normal(1, positions, width, scale=0.3),
        "patch_embed.proj.weight": _patches(draw, width, shape.patch),
        "patch_embed.proj.bias": draw.normal(width, scale=0.1),
    }
    for block in range(shape.depth):
        name = f"blocks.{block}"
        weight, bias = draw.attention(width)
        state |= draw.norm(f"{name}.norm1", width) | draw.norm(f"{name}.norm2", width)
        state |= {f"{name}.attn.qkv.weight": weight, f"{name}.attn.qkv.bias": bias}
        state |= draw.linear(f"{name}.attn.proj", width, width)
        state |= draw.linear(f"{name}.mlp.fc1", 4 * width, width)
        state |= draw.linear(f"{name}.mlp.fc2", width, 4 * width)
        if shape.is_scaled:
            state |= {f"{name}.ls{part}.gamma": 1 + draw.normal(width, scale=0.2) for part in (1, 2)}
    return state | draw.norm("norm", width)


def _patches(draw: Draw, width: int, patch: int) -> Tensor:
    """Draw a projection of patches; neighbouring pixels are alike, which adds up."""
    return draw.normal(width, 3, patch, patch, scale=1 / patch)


def _blocks(draw: Draw, name: str, width: int, layers: int) -> State:
    """Draw a transformer as CLIP names it."""
    state: State = {}
    for layer in range(layers):
        block = f"{name}.resblocks.{layer}"
        weight, bias = draw.attention(width)
        state |= {f"{block}.attn.in_proj_weight": weight, f"{block}.attn.in_proj_bias": bias}
        state |= draw.linear(f"{block}.attn.out_proj", width, width)
        state |= draw.norm(f"{block}.ln_1", width) | draw.norm(f"{block}.ln_2", width)
        state |= draw.linear(f"{block}.mlp.c_fc", 4 * width, width)
        state |= draw.linear(f"{block}.mlp.c_proj", width, 4 * width)
    return state


def _tower(draw: Draw, name: str, sizes: clip.Tower) -> State:
    """Draw a picture tower as CLIP names it."""
    positions = (clip.SIDE // sizes.patch) ** 2 + 1
    state = {
        f"{name}.class_embedding": draw.normal(sizes.width, scale=0.5),
        f"{name}.positional_embedding": draw.normal(positions, sizes.width, scale=0.3),
        f"{name}.conv1.weight": _patches(draw, sizes.width, sizes.patch),
        f"{name}.proj": draw.normal(sizes.width, sizes.features, scale=sizes.width**-0.5),
    }
    state |= draw.norm(f"{name}.ln_pre", sizes.width) | draw.norm(f"{name}.ln_post", sizes.width)
    return state | _blocks(draw, f"{name}.transformer", sizes.width, sizes.layers)


def _text(draw: Draw, prefix: str, *, width: int, layers: int, length: int, features: int) -> State:
    """Draw a text tower as CLIP names it; `prefix` ends in a dot or is empty."""
    state = {
        f"{prefix}token_embedding.weight": draw.normal(viclip.FLT.vocabulary, width, scale=1.0),
        f"{prefix}positional_embedding": draw.normal(length, width, scale=0.3),
        f"{prefix}text_projection": draw.normal(width, features, scale=width**-0.5),
    }
    state |= draw.norm(f"{prefix}ln_final", width)
    return state | _blocks(draw, f"{prefix}transformer", width, layers)


def _write_dino(file: Path, draw: Draw) -> None:
    torch.save(_vit(draw, dino.VITB16), file)


def _write_dinov2(file: Path, draw: Draw) -> None:
    mask = {"mask_token": torch.zeros(1, dino.VITB14.width)}
    torch.save(_vit(draw, dino.VITB14) | mask, file)


def _write_clip_b32(file: Path, draw: Draw) -> None:
    _write_clip(file, draw, clip.B32)


def _write_clip_l14(file: Path, draw: Draw) -> None:
    _write_clip(file, draw, clip.L14)


def _write_clip(file: Path, draw: Draw, sizes: clip.Tower) -> None:
    """Write both towers as OpenAI's kind of archive, matrices in half precision."""
    state = _tower(draw, "visual", sizes)
    state |= _text(draw, "", width=sizes.features, layers=12, length=77, features=sizes.features)
    state |= {"logit_scale": torch.tensor(math.log(100.0))}
    halved = ("proj", "projection", "conv1.weight", "in_proj_weight", "in_proj_bias")
    layers = ("out_proj.weight", "out_proj.bias", "c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias")
    state = {name: value.half() if name.endswith(halved + layers) else value for name, value in state.items()}
    constants = {"input_resolution": clip.SIDE, "context_length": 77, "vocab_size": viclip.FLT.vocabulary}
    tree = _Tree(state, {name: torch.tensor(value) for name, value in constants.items()})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        torch.jit.save(torch.jit.trace(tree, torch.ones(1)), str(file))


class _Tree(nn.Module):
    """Parameters under dotted names: what readers of an archive look at, without a computation."""

    def __init__(self, state: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, value in state.items():
            *path, last = name.split(".")
            place: nn.Module = self
            for part in path:
                if not hasattr(place, part):
                    place.add_module(part, nn.Module())
                place = getattr(place, part)
            place.register_parameter(last, nn.Parameter(value, requires_grad=False))
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(self, scale: Tensor) -> Tensor:
        """Return something, as an archive needs a computation."""
        return scale + 1


def _write_aesthetic(file: Path, draw: Draw) -> None:
    features = clip.L14.features
    torch.save({"weight": draw.normal(1, features, scale=3.0), "bias": torch.tensor([5.0])}, file)


def _write_viclip(file: Path, draw: Draw) -> None:
    sizes = viclip.FLT
    name, tower = "vision_encoder", sizes.video
    state = _tower(draw, name, tower)
    state[f"{name}.conv1.weight"] = state[f"{name}.conv1.weight"][:, :, None]
    moments = draw.normal(1, sizes.frames, tower.width, scale=0.3)
    state |= {f"{name}.temporal_positional_embedding": moments, "temp": torch.tensor(0.01)}
    state |= _text(
        draw,
        "text_encoder.",
        width=sizes.width,
        layers=sizes.layers,
        length=sizes.tokens,
        features=tower.features,
    )
    torch.save({"model": state}, file)


def _write_dreamsim(file: Path, draw: Draw) -> None:
    """Write the archive that the library `dreamsim` unpacks; its first file is a head that only it loads."""
    shape = dino.VITB16
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _put(archive, "dino_vitb16_pretrain.pth", {"student": _head(draw, shape.width)})
        for member in dreamsim.MEMBERS[1:]:
            state = _vit(draw, shape) | draw.norm("pos_drop", shape.width)
            state |= {"proj": draw.normal(shape.width, 512, scale=shape.width**-0.5)}
            _put(archive, member.file, {"state_dict": state})
        archive.writestr(f"{dreamsim.ADAPTER}adapter_model.safetensors", save(_adapter(draw, shape)))
        described = {"peft_type": "LORA", "r": RANK, "lora_alpha": 0.5, "lora_dropout": 0.3}
        described |= {"bias": "none", "target_modules": ["qkv"], "inference_mode": True}
        archive.writestr(f"{dreamsim.ADAPTER}adapter_config.json", json.dumps(described))


def _put(archive: zipfile.ZipFile, name: str, content: object) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    archive.writestr(name, buffer.getbuffer())


def _head(draw: Draw, width: int) -> State:
    """Draw the head of DINO's training, whose values reach no feature."""
    name, hidden, inner = "module.head", 2048, 256
    state = draw.linear(f"{name}.mlp.0", hidden, width) | draw.linear(f"{name}.mlp.2", hidden, hidden)
    state |= draw.linear(f"{name}.mlp.4", inner, hidden)
    return state | {f"{name}.last_layer.weight": draw.normal(hidden, inner, scale=0.1)}


def _adapter(draw: Draw, shape: dino.Shape) -> State:
    """Draw the low-rank changes, large enough that leaving them out is seen."""
    state: State = {}
    for member in range(len(dreamsim.MEMBERS)):
        for block in range(shape.depth):
            name = f"base_model.model.extractor_list.{member}.model.blocks.{block}.attn.qkv"
            state[f"{name}.lora_A.weight"] = draw.normal(RANK, shape.width, scale=1.0)
            state[f"{name}.lora_B.weight"] = draw.normal(3 * shape.width, RANK, scale=0.2)
    return state


WRITERS: Mapping[str, Callable[[Path, Draw], None]] = {
    "dino_vitb16": _write_dino,
    "dinov2_vitb14": _write_dinov2,
    "clip_vitb32": _write_clip_b32,
    "clip_vitl14": _write_clip_l14,
    "aesthetic_linear": _write_aesthetic,
    "viclip": _write_viclip,
    "dreamsim_ensemble": _write_dreamsim,
}


def write(folder: Path, *, seed: int, names: Collection[str] | None = None) -> list[Path]:
    """Write weight files of the manifest with random values.

    Args:
        folder: Where they go, under the manifest's names; made where it is not there.
        seed: Of the values; a file has the same values whichever others are written.
        names: Which of `WRITERS`; all by default.

    Returns:
        The files, in the order of `WRITERS`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for number, (name, writer) in enumerate(WRITERS.items()):
        if names is None or name in names:
            files.append(folder / weights.manifest()[name].file)
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            writer(files[-1], Draw(1000 * seed + number))
    return files
