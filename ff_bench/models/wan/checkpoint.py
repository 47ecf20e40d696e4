"""Reads the transformer's weights from any released file, and writes files of the same kinds.

A file is mapped, not read: each tensor goes once from the disk to where it stays. Whatever is wrong with a
file ends as one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ff_bench.errors import UsageError, shown
from ff_bench.models.numbers import refuse_formats, refuse_infinite
from ff_bench.models.wan import containers, layouts
from ff_bench.models.wan import lora as low_rank
from ff_bench.models.wan.lora import LowRank
from ff_bench.models.wan.member import LATENT_CHANNELS, Checkpoint, Member
from ff_bench.models.wan.network import Size, WanNetwork

USUAL_KEYS = ("generator", "model", "state_dict")
EMA = "generator_ema"
SIZES = {(30, 12): ("1.3B", "self_forcing"), (40, 40): ("14B", "krea_14b"), (30, 24): ("Wan2.2 5B", "")}
"""Layers and heads of the released sizes: what they are called and a model that has them."""


def load_network(
    member: Member, path: Path, lora: Path | None, *, device: torch.device | str, dtype: torch.dtype
) -> WanNetwork:
    """Load a transformer; sizes that the member does not tell are those of the file.

    Args:
        member: which entry of the file is meant, and the layers and heads that it must have.
        path: `.pt`, `.safetensors`, or a folder of safetensors shards.
        lora: file of a low-rank update that is added to the weights, or None.
        device: where to.
        dtype: number format of the weights.

    Raises:
        UsageError: where a file is damaged, holds something else, or is of another size.

    Deviates: a low-rank update is added to the weights in float32 and then rounded, which is quicker;
        LongLive keeps it beside them, y = Wx + b + B(Ax) alpha / r, with three roundings.
    """
    weights = read_weights(path, member.checkpoint)
    size = _checked_size(weights, member, path)
    with torch.device("meta"):
        network = WanNetwork(size)
    shapes = network.state_dict()
    expected = layouts.split(shapes)
    _check_tensors(weights, expected, path)
    updates: dict[str, LowRank] = {}
    if lora is not None:
        updates = low_rank.read(lora)
        low_rank.check_fit(updates, expected, lora)
    placed = {
        target: _assembled(target, like, weights, updates, device=device, dtype=dtype)
        for target, like in shapes.items()
    }
    refuse_infinite(placed, path if lora is None else f"{path} with {lora}")
    network.load_state_dict(placed, assign=True)
    return network.eval().requires_grad_(False)


def read_weights(path: Path, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Read a transformer's tensors by their original names, on the CPU, mapped where that is possible.

    Args:
        path: `.pt`, `.safetensors`, or a folder of safetensors shards.
        checkpoint: which entry of the file is meant.

    Raises:
        UsageError: where the file is damaged or holds something else.
    """
    found = _entry(containers.opened(path), checkpoint, path)
    weights = _split(found, path)
    if layouts.PATCH not in weights or "blocks.0.self_attn.q.weight" not in weights:
        some = ", ".join(sorted(found)[:3])
        raise UsageError(f"{path} holds no transformer of this family, but {shown(some)} ...{_kind(found)}")
    refuse_formats(weights, path)
    return weights


def write_checkpoint(
    path: Path, network: WanNetwork, *, layout: str = "generator_ema", shards: int = 2
) -> None:
    """Write a network as a released file would hold it: the inverse of `load_network`.

    Args:
        path: of the file; of the folder for the layout `diffusers`.
        network: whose weights are written, in their format.
        layout: one of `layouts.LAYOUTS`.
        shards: files of a folder.
    """
    kind = layouts.LAYOUTS[layout]
    weights = layouts.split({name: value.cpu() for name, value in network.state_dict().items()})
    named = {kind.name(name): value.clone() for name, value in weights.items()}
    if kind.container == "pt":
        torch.save(named if kind.key is None else {kind.key: named}, path)
    elif kind.container == "safetensors":
        save_file(named, path)
    else:
        containers.write_folder(path, named, shards=shards)


# -- what is in them --------------------------------------------------------------------------------


def _entry(held: dict[str, Any], checkpoint: Checkpoint, path: Path) -> dict[str, Tensor]:
    """Choose the entry that holds the weights."""
    if checkpoint.key is not None:
        if checkpoint.key not in held:
            known = ", ".join(sorted(held)[:8])
            raise UsageError(f"model.weights.key={checkpoint.key} is no entry of {path}: it has {known}")
        chosen = held[checkpoint.key]
        if not isinstance(chosen, Mapping):
            raise UsageError(f"model.weights.key={checkpoint.key} holds no tensors in {path}: choose another")
        return containers.tensors(chosen)
    order = (EMA, *USUAL_KEYS) if checkpoint.ema else (*USUAL_KEYS, EMA)
    for key in order:
        if isinstance(held.get(key), Mapping):
            return containers.tensors(held[key])
    found = containers.tensors(held)
    if not found:
        known = ", ".join(sorted(held)[:8])
        raise UsageError(
            f"{path} has none of the usual entries ({', '.join(order)}) but {known}: "
            "name one as model.weights.key"
        )
    return found


def _split(found: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Name the tensors of a file as the original does, fused ones cut into their parts."""
    names = layouts.original_names(found)
    if len(names) < len(found):
        twice = sorted(found.keys() - set(names.values()))[0]
        raise UsageError(f"{path} does not fit: {shown(twice)} is there a second time by another name")
    try:
        return layouts.split({original: found[there] for original, there in names.items()})
    except (RuntimeError, ValueError, TypeError):
        raise UsageError(f"{path} does not fit: a fused projection in it cannot be cut into parts") from None


def _kind(found: Mapping[str, Tensor]) -> str:
    """Say what a file of other names may be."""
    names = " ".join(found)
    if "token_embedding" in names or "shared.weight" in names:
        return "; it looks like a text encoder (model.text_encoder)"
    if "decoder." in names or "encoder." in names:
        return "; it looks like a VAE (model.vae)"
    if "lora_A" in names:
        return "; it looks like a low-rank update (model.weights.lora)"
    return ""


def size_of(weights: Mapping[str, Tensor], *, head_dim: int) -> Size:
    """Read the dimensions off tensors by their original names.

    Args:
        weights: of one transformer.
        head_dim: channels of a head, which no tensor tells.

    Raises:
        KeyError: where there is no such tensor.
        IndexError: where a tensor lacks an axis.
        ValueError: where heads of `head_dim` channels do not fill the tokens.
    """
    patch = weights[layouts.PATCH].shape
    blocks = {int(name.split(".")[1]) for name in weights if layouts.BLOCK.fullmatch(name)}
    return Size(
        dim=patch[0],
        heads=patch[0] // head_dim,
        head_dim=head_dim,
        layers=1 + max(blocks),
        ffn=weights["blocks.0.ffn.0.weight"].shape[0],
        freq_dim=weights["time_embedding.0.weight"].shape[1],
        text_dim=weights["text_embedding.0.weight"].shape[1],
        in_channels=patch[1],
    )


def _checked_size(weights: Mapping[str, Tensor], member: Member, path: Path) -> Size:
    """Return the size of the transformer of a file, which must be the member's."""
    try:
        found = size_of(weights, head_dim=member.head_dim)
    except KeyError as error:
        raise UsageError(f"{path} is incomplete: there is no tensor {error.args[0]}") from None
    except (ValueError, IndexError):
        raise UsageError(
            f"{path} does not fit: its {layouts.PATCH} is {tuple(weights[layouts.PATCH].shape)}, while heads "
            f"of model={member.name} have {member.head_dim} channels"
        ) from None
    if found.in_channels != LATENT_CHANNELS:
        raise UsageError(
            f"{path} does not fit: its latents have {found.in_channels} channels, those of "
            f"model={member.name} {LATENT_CHANNELS}"
        )
    if (found.layers, found.heads) == (member.layers, member.heads):
        return found
    told, other = SIZES.get((found.layers, found.heads), ("another size", ""))
    hint = f"choose model={other} or another file" if other else "choose another file (model.weights)"
    raise UsageError(
        f"{path} holds {found.layers} layers x {found.heads} heads ({told}); model={member.name} is declared "
        f"with {member.layers} x {member.heads}: {hint}"
    )


def _check_tensors(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Raise unless names and shapes are exactly those expected."""
    lacking, foreign = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if lacking:
        raise UsageError(
            f"{path} is incomplete: {len(lacking)} of {len(expected)} tensors are missing, the first is "
            f"{lacking[0]}"
        )
    if foreign:
        raise UsageError(
            f"{path} does not fit: {len(foreign)} of its tensors are not of the network, the first is "
            f"{shown(foreign[0])}"
        )
    wrong = sorted(name for name, value in weights.items() if value.shape != expected[name].shape)
    if wrong:
        first = wrong[0]
        raise UsageError(
            f"{path} does not fit: {len(wrong)} tensors are of another shape, the first is {first}, expected "
            f"{tuple(expected[first].shape)}, found {tuple(weights[first].shape)}"
        )


def _assembled(
    target: str,
    like: Tensor,
    weights: Mapping[str, Tensor],
    updates: Mapping[str, LowRank],
    *,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Tensor:
    """Make one tensor of the network where it stays, from the tensors of the file."""
    out = torch.empty(like.shape, device=device, dtype=dtype)
    pieces = layouts.parts(target)
    for name, slot in zip(pieces, out.chunk(len(pieces)), strict=True):
        value = weights[name].reshape(slot.shape)
        slot.copy_(updates[name].added_to(value.to(device)) if name in updates else value)
    return out
