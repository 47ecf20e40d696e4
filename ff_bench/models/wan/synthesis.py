"""A complete set of files of a member with random weights: the layouts are true, the pictures are noise.

For rehearsals without the released weights: loaders, decoders and commands run on them as on the real ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ff_bench.models.wan import layouts, lora, preview, text, vae_names
from ff_bench.models.wan.checkpoint import write_checkpoint
from ff_bench.models.wan.files import library
from ff_bench.models.wan.member import LATENT_CHANNELS, Member, Source
from ff_bench.models.wan.network import Size, WanNetwork
from ff_bench.models.wan.tensors import renamed

if TYPE_CHECKING:
    from collections.abc import Iterable

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'\"()-"
FFN = {12: 8960, 40: 13824}
"""Hidden channels of the feed-forward part by the number of heads."""
UPDATED = ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "cross_attn.q", "cross_attn.k",
           "cross_attn.v", "cross_attn.o", "ffn.0", "ffn.2")  # fmt: skip
"""Projections of a block that a low-rank update changes."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of every part.

    Attributes:
        network: of the transformer.
        text: fields of a `UMT5Config`.
        vae: channels of its widest pictures.
        preview: channels of its stages.
        rank: of a low-rank update.
        dtype: of the transformer's file.
    """

    network: Size
    text: Mapping[str, int]
    vae: int
    preview: tuple[int, ...]
    rank: int
    dtype: torch.dtype


TINY = Sizes(
    Size(dim=32, heads=2, head_dim=16, layers=2, ffn=64, freq_dim=32, text_dim=24),
    {"vocab_size": 256, "d_model": 24, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 3},
    vae=8, preview=(16, 8, 8, 8), rank=4, dtype=torch.float32,
)  # fmt: skip
TINY_PICTURE = (32, 48)
"""Height and width in pixels that make tests quick."""


def true_sizes(member: Member) -> Sizes:
    """Return the sizes that the released files of a member have."""
    dim = member.heads * member.head_dim
    network = Size(
        dim=dim, heads=member.heads, head_dim=member.head_dim, layers=member.layers,
        ffn=FFN.get(member.heads, dim * 8 // 3),
    )  # fmt: skip
    words = {
        "vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64
    }  # fmt: skip
    dtype = torch.float32 if member.checkpoint.ema else torch.bfloat16
    return Sizes(network, words, vae=96, preview=preview.WIDTHS, rank=256, dtype=dtype)


def write(folder: Path, member: Member, sizes: Sizes, *, diffusers: bool = False, seed: int = 0) -> list[str]:
    """Write the files of a member.

    Args:
        folder: made where it is missing; files get the names that they have on the hub below it.
        member: whose names and layouts are used.
        sizes: `TINY`, or `true_sizes(member)`.
        diffusers: text encoder, VAE and transformer as folders in the way of diffusers.
        seed: of the random weights.

    Returns:
        The words for the command line that point to them, sizes included.
    """
    shared = folder / "Wan2.1-T2V-1.3B"
    paths = {
        "weights": folder / "transformer" if diffusers else _place(folder, member.checkpoint.source),
        "text_encoder": shared / ("text_encoder" if diffusers else "models_t5_umt5-xxl-enc-bf16.pth"),
        "tokenizer": shared / ("tokenizer" if diffusers else "google/umt5-xxl"),
        "vae": shared / ("vae" if diffusers else "Wan2.1_VAE.pth"),
        "preview": folder / "taew2_1.pth",
    }
    if member.checkpoint.lora is not None:
        paths["weights.lora"] = _place(folder, member.checkpoint.lora)
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        write_network(paths["weights"], sizes, "diffusers" if diffusers else layout(member))
        if "weights.lora" in paths:
            write_lora(paths["weights.lora"], sizes)
        write_text_encoder(paths["text_encoder"], sizes.text)
        write_tokenizer(paths["tokenizer"], words=sizes.text["vocab_size"])
        write_vae(paths["vae"], sizes.vae)
        write_preview(paths["preview"], sizes.preview)
    return [f"model={member.name}", *(f"model.{name}.path={path}" for name, path in paths.items()),
            *_size_words(member, sizes.network)]  # fmt: skip


def _place(folder: Path, source: Source) -> Path:
    return folder / (Path(source.repo).name or "weights") / (source.file or "weights.safetensors")


def _size_words(member: Member, size: Size) -> list[str]:
    """Words for sizes that are not the member's own; a tiny model makes tiny pictures."""
    named = {"layers": size.layers, "heads": size.heads, "head_dim": size.head_dim}
    words = [f"model.{key}={value}" for key, value in named.items() if getattr(member, key) != value]
    height, width = TINY_PICTURE
    return [*words, f"model.height={height}", f"model.width={width}"] if words else []


def resized(member: Member, words: Iterable[str]) -> Member:
    """Apply the words that `write` returned to a member, for code that composes no configuration."""
    found = dict(word.removeprefix("model.").split("=", 1) for word in words)
    paths = {key.removesuffix(".path"): value for key, value in found.items() if key.endswith(".path")}
    sizes: dict[str, Any] = {
        key: int(found[key]) for key in ("layers", "heads", "head_dim", "height", "width") if key in found
    }
    checkpoint, update = member.checkpoint, member.checkpoint.lora
    return replace(
        member,
        checkpoint=replace(
            checkpoint,
            source=replace(checkpoint.source, path=paths["weights"]),
            lora=None if update is None else replace(update, path=paths["weights.lora"]),
        ),
        text_encoder=replace(member.text_encoder, path=paths["text_encoder"]),
        tokenizer=replace(member.tokenizer, path=paths["tokenizer"]),
        vae=replace(member.vae, path=paths["vae"]),
        preview=replace(member.preview, path=paths["preview"]),
        **sizes,
    )


def layout(member: Member) -> str:
    """Return the layout of `layouts.LAYOUTS` that the released file of a member has."""
    source = member.checkpoint.source
    if source.file.endswith(".safetensors"):
        found = "safetensors_model"
    elif member.checkpoint.ema:
        found = "generator_ema_fsdp" if "infinite" in member.name else "generator_ema"
    else:
        found = "generator"
    assert found in layouts.LAYOUTS, found
    return found


def write_network(path: Path, sizes: Sizes, kind: str) -> None:
    """Write a transformer with the random weights that torch gives its layers."""
    write_checkpoint(path, WanNetwork(sizes.network).to(sizes.dtype), layout=kind)


def write_lora(path: Path, sizes: Sizes) -> None:
    """Write a low-rank update of every projection."""
    size, updates = sizes.network, {}
    for layer in range(size.layers):
        for name in UPDATED:
            wide = size.ffn if name == "ffn.2" else size.dim
            high = size.ffn if name == "ffn.0" else size.dim
            down, up = torch.randn(sizes.rank, wide) / wide, torch.randn(high, sizes.rank) / sizes.rank
            update = lora.LowRank(down.to(sizes.dtype), up.to(sizes.dtype), scale=1.0)
            updates[f"blocks.{layer}.{name}.weight"] = update
    lora.write(path, updates)


def write_text_encoder(path: Path, fields: Mapping[str, int]) -> None:
    """Write a UMT5 encoder in bfloat16: the original file for a `.pth`, else a folder of two shards."""
    transformers = library("transformers", purpose="the text encoder needs")
    config = transformers.UMT5Config(**fields)
    with torch.device("meta"):
        empty = transformers.UMT5EncoderModel(config).state_dict()
    shapes = {name: value.shape for name, value in empty.items() if name != text.TIED}
    weights = {name: _random(name, shape, torch.bfloat16) for name, shape in shapes.items()}
    if path.suffix == ".pth":
        back = {new: old for old, new in text.original_names(config.num_layers).items()}
        torch.save(renamed(weights, back), path)
        return
    path.mkdir(parents=True, exist_ok=True)
    parts = [f"model-{number:05d}-of-00002.safetensors" for number in (1, 2)]
    where = {name: parts[index % 2] for index, name in enumerate(sorted(weights))}
    for part in parts:
        save_file({name: value for name, value in weights.items() if where[name] == part}, path / part)
    _write_json(path / "model.safetensors.index.json", {"weight_map": where})
    _write_json(path / "config.json", {**config.to_dict(), "architectures": ["UMT5EncoderModel"]})


def _random(name: str, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Norms are ones; everything else keeps the size of what goes through it."""
    if "norm" in name:
        return torch.ones(shape, dtype=dtype)
    scale = 1.0 if "shared" in name else 1 / math.sqrt(shape[-1])
    return torch.randn(shape, dtype=dtype) * scale


def write_tokenizer(folder: Path, *, words: int) -> None:
    """Write a tokenizer of single letters, with the special tokens and the end token of UMT5."""
    tokenizers = library("tokenizers", purpose="the tokenizer needs")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0 - index / 100) for index, letter in enumerate(LETTERS)]
    assert len(pieces) <= words, (len(pieces), words)
    made = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=2))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", "pad_token": "<pad>"})


def write_vae(path: Path, width: int) -> None:
    """Write a VAE: the original file for a `.pth`, else a folder in the way of diffusers."""
    diffusers = library("diffusers", purpose="the VAE needs")
    network = diffusers.AutoencoderKLWan(base_dim=width, z_dim=LATENT_CHANNELS)
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    if path.suffix == ".pth":
        torch.save(renamed(weights, {new: old for old, new in vae_names.original_names().items()}), path)
        return
    path.mkdir(parents=True, exist_ok=True)
    save_file(weights, path / "diffusion_pytorch_model.safetensors")
    _write_json(path / "config.json", {"_class_name": "AutoencoderKLWan", **dict(network.config)})


def write_preview(path: Path, widths: tuple[int, ...]) -> None:
    """Write a preview decoder; its encoder's half is left out but for one tensor."""
    network = preview.PreviewNetwork(widths)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    nn.init.constant_(network.exit.bias, 0.5)  # type: ignore[arg-type]
    back = {new: old for old, new in preview.original_names().items()}
    weights = renamed({name: value.half() for name, value in network.state_dict().items()}, back)
    torch.save({**weights, "encoder.0.weight": torch.zeros(64, 3, 3, 3, dtype=torch.half)}, path)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, default=str), encoding="utf-8")
