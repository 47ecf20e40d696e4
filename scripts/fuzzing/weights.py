"""Fuzzed checkpoints: wrong tensors, files that lie about them, folders that name what is outside."""

from __future__ import annotations

import io
import json
import random
import shutil
import struct
import tempfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ff_bench.compose import compose
from ff_bench.models.mini import backbone
from ff_bench.models.mini.network import MiniNetwork, Size
from ff_bench.models.wan import checkpoint, containers, synthesis, text
from ff_bench.models.wan.member import Member
from ff_bench.models.wan.preview import TaeHV
from ff_bench.models.wan.vae import WanVAE
from fuzzing import odd
from fuzzing.judge import Target, Wrong
from fuzzing.readers import Bomb

MINI = Size(dim=16, depth=2, heads=1, head_dim=64, mlp=24, cross=16)
FORMATS = (torch.int64, torch.bool, torch.float64, torch.float16, torch.complex64, torch.uint8)
SHAPES = ((), (0,), (0, 2**40), (1,), (3, 0), (7, 5), (2, 3, 1, 2, 2))
OUTSIDE = (
    "../outside.safetensors",
    "/etc/passwd",
    "..",
    "a/b.safetensors",
    "a\\b",
    "",
    3,
    None,
    "x\0y",
    "gone",
)
SECRET = "outside.safetensors"
"""A sound file beside the folder of an index that must not lead to it."""


# -- tensors that are wrong -------------------------------------------------------------------------------


def _changed(draw: random.Random, sound: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return tensors of which one or two are odd: lacking, too many, of other shapes, formats or numbers."""
    weights: dict[str, Any] = dict(sound)
    for _ in range(draw.choice((0, 1, 1, 1, 2))):
        name = draw.choice(sorted(sound))
        value = weights.pop(name, None)
        kind = draw.randrange(8)
        if kind == 0 or not isinstance(value, Tensor):
            continue
        if kind == 1:
            weights[f"{odd.text(draw)}{name}"] = value
        elif kind == 2:
            more = draw.choice((f"{name}.x", odd.text(draw), f"model.{name}", "blocks.999999999.y"))
            weights |= {name: value, more: value.clone()}
        else:
            weights[name] = _odd(draw, value, kind)
    return weights


def _odd(draw: random.Random, value: Tensor, kind: int) -> Tensor:
    if kind == 3:
        return value.to(draw.choice(FORMATS))
    if kind == 4 and value.numel():
        spoiled = value.float().clone()
        spoiled.view(-1)[draw.randrange(spoiled.numel())] = draw.choice((torch.nan, torch.inf, -torch.inf))
        return spoiled
    if kind == 5:
        return value.reshape(draw.choice(((-1,), (1, -1), (-1, 1), (1, 1, -1))))
    if kind == 6:
        return torch.zeros(draw.choice(SHAPES))
    return draw.choice((torch.cat([value, value]), value[:-1], value[:0]))


# -- files that hold them ---------------------------------------------------------------------------------


def _safetensors(draw: random.Random, weights: Mapping[str, Tensor]) -> bytes:
    """Write a file, and sometimes let its header lie."""
    content = save(
        {name.encode(errors="replace").decode(): value.contiguous() for name, value in weights.items()}
    )
    if draw.random() < 0.85:
        return content
    length = struct.unpack("<Q", content[:8])[0]
    header, data = content[8 : 8 + length], content[8 + length :]
    told = json.loads(header)
    first = next(iter(told))
    kind = draw.randrange(6)
    if kind == 0:
        length = draw.choice((0, 1, length - 1, length + 1, 10**8 - 1, 2**31, 2**63, 2**64 - 1))
        return struct.pack("<Q", length) + header + data
    if kind == 1:
        told = odd.changed(draw, told)
    elif kind == 2:
        begin, end = told[first]["data_offsets"]
        told[first]["data_offsets"] = draw.choice(
            ([begin, end + 4], [begin + 4, end], [-1, end], [end, begin])
        )
    elif kind == 3:
        told[first]["dtype"] = draw.choice(("F4", "F6_E2M3", "F8_E8M0", "U64", "I16", "X", 3, None))
    elif kind == 4:  # one name twice
        header = header.rstrip()[:-1] + b"," + json.dumps({first: told[first]})[1:].encode()
        return struct.pack("<Q", len(header)) + header + data
    header = b"\x80\x04not json" if kind == 5 else json.dumps(told).encode()
    return struct.pack("<Q", len(header)) + header + data


def _pickled(draw: random.Random, weights: Mapping[str, Any]) -> bytes:
    """Pickle tensors, sometimes with code, with names that are none, or few numbers for many."""
    held: dict[Any, Any] = dict(weights)
    kind = draw.randrange(12)
    if kind == 0:
        held[draw.choice(sorted(held))] = draw.choice((Bomb(), 3, None, [1], "x", torch.zeros(2).to_sparse()))
    elif kind == 1:
        name = draw.choice(sorted(held))
        held[name] = torch.zeros(1).expand(2**33, *held[name].shape[1:])
    elif kind == 2:
        held |= {7: torch.zeros(2), None: torch.zeros(2)}
    whole: Any = draw.choice((held, {"generator": held}, {"generator_ema": held, "step": 3}))
    stream = io.BytesIO()
    torch.save(whole, stream, _use_new_zipfile_serialization=draw.random() < 0.7)
    return stream.getvalue()


def _folder(draw: random.Random, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write two shards and an index, which may lead anywhere."""
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    if draw.random() < 0.1:
        parts["b.safetensors"] = names
    for file, own in parts.items():
        (folder / file).write_bytes(_safetensors(draw, {name: weights[name] for name in own}))
    (folder.parent / SECRET).write_bytes(save({"a": weights[names[0]].contiguous()}))
    where: dict[str, Any] = {name: file for file, own in parts.items() for name in own}
    if draw.random() < 0.4:
        where[names[0]] = draw.choice(OUTSIDE)
    content = json.dumps(
        odd.changed(draw, {"weight_map": where}) if draw.random() < 0.2 else {"weight_map": where}
    )
    index = content.encode()
    (folder / "x.safetensors.index.json").write_bytes(
        odd.damaged(draw, index) if draw.random() < 0.2 else index
    )


def _written(draw: random.Random, weights: dict[str, Any], folder: Path) -> Path:
    """Write tensors as some kind of file, under an ending that may be that of another kind."""
    kind = draw.randrange(4)
    if kind == 0:
        inner = folder / "shards"
        shutil.rmtree(inner, ignore_errors=True)
        inner.mkdir()
        _folder(draw, weights, inner)
        return inner
    endings = (
        ("safetensors", "pt", "pth") if draw.random() < 0.1 else ("safetensors",) if kind == 1 else ("pt",)
    )
    path = folder / f"file.{draw.choice(endings)}"
    content = (_safetensors if kind == 1 else _pickled)(draw, weights)
    path.write_bytes(odd.damaged(draw, content) if draw.random() < 0.1 else content)
    return path


# -- what is loaded ---------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _sound() -> dict[str, dict[str, Tensor]]:
    """Make the tensors of every network once."""
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as made:
        torch.manual_seed(0)
        folder = Path(made)
        synthesis.write_network(folder / "network.safetensors", synthesis.TINY, "safetensors")
        synthesis.write_vae(folder / "vae.pth", synthesis.TINY.vae)
        synthesis.write_text_encoder(folder / "text.pth", synthesis.TINY.text)
        synthesis.write_preview(folder / "preview.pth", synthesis.TINY.preview)
        synthesis.write_lora(folder / "lora.pt", synthesis.TINY)
        held = {file.stem: containers.opened(file) for file in folder.iterdir()}
        held["lora"] = held["lora"].get("generator_lora", held["lora"])
        mini = {
            name: torch.randn(value.shape).half() for name, value in MiniNetwork(MINI).state_dict().items()
        }
        copies = {
            part: {name: value.clone() for name, value in containers.tensors(tensors).items()}
            for part, tensors in held.items()
        }
    return {**copies, "mini": mini}


@lru_cache(maxsize=1)
def _member() -> Member:
    size = synthesis.TINY.network
    words = [f"model.{key}={getattr(size, key)}" for key in ("layers", "heads", "head_dim")]
    found = compose(["model=self_forcing", "model.height=32", "model.width=48", *words]).config.model.fields
    assert isinstance(found, Member), found
    return found


def mini(draw: random.Random, folder: Path) -> None:
    """Load the embedded model from two shards."""
    weights = _changed(draw, _sound()["mini"])
    names = sorted(weights)
    shards = [folder / "mini-1.safetensors", folder / "mini-2.safetensors"]
    for number, shard in enumerate(shards):
        own = names if draw.random() < 0.05 else names[number::2]
        content = _safetensors(draw, {name: weights[name] for name in own})
        kind = draw.randrange(24)
        if kind < 2:
            content = b"" if kind else _pickled(draw, {name: weights[name] for name in own})
        shard.write_bytes(content)
    _check(lambda: backbone.load(shards, device="cpu").network.state_dict())


def transformer(draw: random.Random, folder: Path) -> None:
    """Load a transformer of the Wan family, sometimes with a low-rank update."""
    weights, update = _changed(draw, _sound()["network"]), None
    if draw.random() < 0.3:
        update = folder / draw.choice(("lora.pt", "lora.safetensors"))
        changed = _changed(draw, _sound()["lora"])
        if draw.random() < 0.3:
            name = draw.choice(sorted(changed)).partition(".lora_")[0]
            changed[f"{name}.alpha"] = draw.choice((torch.tensor(torch.nan), torch.zeros(3), torch.tensor(4)))
        update.write_bytes(_pickled(draw, changed) if update.suffix == ".pt" else _safetensors(draw, changed))
    path = _written(draw, weights, folder)
    _check(lambda: checkpoint.load_network(
        _member(), path, update, device="cpu", dtype=torch.float32
    ).state_dict())  # fmt: skip


def part(draw: random.Random, folder: Path) -> None:
    """Load a text encoder, a VAE or a preview decoder."""
    kind = draw.choice(("vae", "text", "text", "preview", "preview"))
    path = _written(draw, _changed(draw, _sound()[kind]), folder)
    if path.is_dir() and draw.random() < 0.5:
        told = odd.changed(
            draw, {**synthesis.TINY.text, "latents_mean": [0.0], "feed_forward_proj": "gated-gelu"}
        )
        (path / "config.json").write_text(json.dumps(told), encoding="utf-8")
    loads: dict[str, Callable[[], Mapping[str, Tensor]]] = {
        "vae": lambda: WanVAE.load(path, "cpu", torch.float32).network.state_dict(),
        "preview": lambda: TaeHV.load(path, "cpu", torch.float32).network.state_dict(),
        "text": lambda: text.load_network(
            containers.tensors(containers.opened(path)), path, device="cpu", dtype=torch.float32
        ).state_dict(),
    }
    _check(loads[kind])


def _check(load: Callable[[], Mapping[str, Tensor]]) -> None:
    """Load, and see that what was taken is numbers and that no code ran."""
    try:
        taken = load()
    finally:
        if Path("hacked").exists():
            raise Wrong("a file of weights ran code")
    for name, value in taken.items():
        if value.is_meta or not bool(torch.isfinite(value.float()).all()):
            raise Wrong(f"a network was taken with a {name} that holds no numbers")


TARGETS = (
    Target("mini checkpoints", mini, 3),
    Target("transformers", transformer, 3),
    Target("parts of models", part, 1.5),
)
