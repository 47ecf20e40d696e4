"""Names of tensors in released files, as maps that can be undone.

*Original* names are those of Wan-Video/Wan2.1, one tensor per projection; each file is brought to them first.
The network fuses projections that share their input, so that a third set of names is its own.

    released file          container                              names
    self_forcing           .pt, entry `generator_ema`             original behind `model.`, fp32
    rolling_forcing        .pt, entry `generator_ema`             original behind `model.`
    infinite_forcing       .pt, entry `generator_ema`             original behind `model.`, wrappers of FSDP
    reward_forcing         .pt, entry `generator_ema`             original behind `model.`
    causal_forcing         .pt, entry `generator`                 original behind `model.`
    causvid                .pt, entry `generator`                 original behind `model.`
    longlive               .pt, entry `generator`, and LoRA       original; LoRA in the names of PEFT
    krea_14b               .safetensors                           original behind `model.`
    Wan2.1 itself          .safetensors                           original
    ports                  folder of sharded .safetensors         diffusers

Source: huggingface/diffusers@58eb52c0 scripts/convert_wan_to_diffusers.py for the names of diffusers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

WRAPPERS = frozenset(
    {"base_model", "model", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod"}
)
"""Parts of a name that training tools put in; no tensor of the family has such a part of its own."""
FSDP = "_fsdp_wrapped_module."
PATCH = "patch_embedding.weight"
BLOCK = re.compile(r"(blocks\.\d+\.)(.+)")
LORA = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")

FUSED = {
    "self_attn.qkv": ("self_attn.q", "self_attn.k", "self_attn.v"),
    "cross_attn.kv": ("cross_attn.k", "cross_attn.v"),
}
"""Projections of the network, and those of the files that they are made of, in order."""
GLOBAL_NAMES = {
    "patch_embedding": "patch_embedding",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.modulation": "scale_shift_table",
    "head.head": "proj_out",
}
"""Original name to that of diffusers, outside of the blocks."""
BLOCK_NAMES = {
    "modulation": "scale_shift_table",
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    **{
        f"{ours}.{part}": f"{theirs}.{name}"
        for ours, theirs in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for part, name in (
            ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"),
            ("norm_q", "norm_q"), ("norm_k", "norm_k"),
        )
    },
    "self_attn.qkv": "attn1.to_qkv",
    "cross_attn.kv": "attn2.to_kv",
}  # fmt: skip
"""Original name to that of diffusers, behind `blocks.N.`."""
ALIASES = {"self_attn.to_qkv": "self_attn.qkv", "cross_attn.to_kv": "cross_attn.kv"}


@dataclass(frozen=True)
class Layout:
    """How a file holds the weights.

    Attributes:
        container: `pt`, `safetensors`, or `folder` of safetensors shards with their index.
        key: entry of a `pt` that holds the weights; None where it is the weights.
        prefix: in front of every name.
        is_wrapped: whether every block carries the name of its FSDP wrapper.
        is_diffusers: whether names are those of diffusers.
    """

    container: str
    key: str | None = None
    prefix: str = ""
    is_wrapped: bool = False
    is_diffusers: bool = False

    def name(self, original: str) -> str:
        """Return the name in the file of an original one."""
        name = to_diffusers(original) if self.is_diffusers else original
        return self.prefix + (BLOCK.sub(rf"\g<1>{FSDP}\g<2>", name) if self.is_wrapped else name)


LAYOUTS = {
    "generator_ema": Layout("pt", key="generator_ema", prefix="model."),
    "generator_ema_fsdp": Layout("pt", key="generator_ema", prefix=f"model.{FSDP}", is_wrapped=True),
    "generator": Layout("pt", key="generator", prefix="model."),
    "safetensors": Layout("safetensors"),
    "safetensors_model": Layout("safetensors", prefix="model."),
    "diffusers": Layout("folder", is_diffusers=True),
}
"""Every layout that is written; all of them, and mixtures, are read."""


def to_diffusers(name: str) -> str:
    """Turn an original name into that of diffusers; one that it does not know stays."""
    return _renamed(name, GLOBAL_NAMES, BLOCK_NAMES)


def from_diffusers(name: str) -> str:
    """Undo `to_diffusers`."""
    return _renamed(name, _turned(GLOBAL_NAMES), _turned(BLOCK_NAMES))


def unwrapped(name: str) -> str:
    """Drop the parts of a name that training tools put in, and write fused projections in one way."""
    bare = ".".join(part for part in name.split(".") if part not in WRAPPERS)
    return _renamed(bare, {}, ALIASES)


def original_names(names: Mapping[str, object]) -> dict[str, str]:
    """Map the original name of each tensor of a file to its name there."""
    found = {unwrapped(name): name for name in names}
    is_diffusers = any(name.startswith(("condition_embedder.", "blocks.0.attn1.")) for name in found)
    return {from_diffusers(name): there for name, there in found.items()} if is_diffusers else found


def parts(name: str) -> tuple[str, ...]:
    """Return the original names that make a tensor of the network, in order along its first axis."""
    for whole, pieces in FUSED.items():
        if f".{whole}." in name:
            return tuple(name.replace(whole, piece) for piece in pieces)
    return (name,)


def fused(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn weights by their original names into those of the network."""
    wholes = {piece: whole for whole, pieces in FUSED.items() for piece in pieces}
    out: dict[str, Tensor] = {}
    for name, value in weights.items():
        module = re.fullmatch(r"blocks\.\d+\.(.+)\.(?:weight|bias)", name)
        whole = wholes.get(module[1]) if module else None
        if module is None or whole is None:
            out[name] = value.flatten(1) if name == PATCH else value
        elif (target := name.replace(module[1], whole)) not in out:
            out[target] = torch.cat([weights[piece] for piece in parts(target)])
    return out


def split(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `fused`, without copies; names that are original already stay."""
    out: dict[str, Tensor] = {}
    for name, value in weights.items():
        pieces = parts(name)
        shaped = value.view(len(value), -1, 1, 2, 2) if name == PATCH and value.ndim == 2 else value
        out |= dict(zip(pieces, shaped.chunk(len(pieces)) if len(pieces) > 1 else (shaped,), strict=True))
    return out


def lora_pair(name: str) -> tuple[str, str] | None:
    """Split the name of a low-rank tensor into its original weight and `A` or `B`; None for other names."""
    found = LORA.fullmatch(name)
    return (f"{unwrapped(found[1])}.weight", found[2]) if found else None


def lora_name(weight: str, side: str) -> str:
    """Undo `lora_pair`, in the names of PEFT."""
    return f"base_model.model.{weight.removesuffix('.weight')}.lora_{side}.weight"


def _renamed(name: str, outside: Mapping[str, str], inside: Mapping[str, str]) -> str:
    """Look a module up, with or without its last part (`weight`, `bias`)."""
    block = BLOCK.fullmatch(name)
    front, rest, table = (block[1], block[2], inside) if block else ("", name, outside)
    if rest in table:
        return front + table[rest]
    module, dot, leaf = rest.rpartition(".")
    return front + table.get(module, module) + dot + leaf


def _turned(table: Mapping[str, str]) -> dict[str, str]:
    return {there: here for here, there in table.items()}
