"""Seeded random weight files of the true layouts for RAFT, AMT-S, MUSIQ and AlexNet: tests without downloads.

Every file loads in this package and in the code it was published for. Scales are chosen so that scores vary
with what they are given; they say nothing about quality.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor

from ff_bench import weights
from ff_bench.metrics.networks import amt, musiq, vision

NOISE = 0.002
"""Size of the random part of RAFT's steps."""
SENSITIVITY = 0.0002
"""How strongly RAFT's steps follow the correlations."""
STEP = 0.25
"""Longest step of RAFT, in eighths of the resolution."""
FAINT = 0.05
"""Size of AMT's flows and corrections."""
SHARPNESS = 2.5
"""Size of MUSIQ's queries and keys."""
SPREAD = 15.0
"""Size of MUSIQ's last layer."""

State = Mapping[str, Tensor]
_WIDTHS = (64, 64, 96, 128)
_KERNELS = {"1": (1, 5), "2": (5, 1)}


def write(folder: Path, *, seed: int, names: Collection[str] | None = None) -> list[Path]:
    """Write weight files under the names of the manifest.

    Args:
        folder: Where they go; made if it is not there.
        seed: Same seed, same values, whatever else is written.
        names: Some of `raft_things`, `amt_s`, `musiq_spaq` and `lpips_alexnet`; all if None.

    Returns:
        Where each file is, in the order of the names.

    Raises:
        Unavailable: where a library that knows a layout is not installed.
        ValueError: where a name is not known.
    """
    chosen = list(_MAKERS) if names is None else list(names)
    if unknown := [name for name in chosen if name not in _MAKERS]:
        raise ValueError(f"no layout of {', '.join(unknown)}: known are {', '.join(_MAKERS)}")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in chosen:
        generator = torch.Generator().manual_seed(seed + crc32(name.encode()))
        paths.append(folder / weights.manifest()[name].file)
        torch.save(_MAKERS[name](generator), paths[-1])
    return paths


def _raft(generator: torch.Generator) -> State:
    """The state of princeton-vl/RAFT, as it was saved from several devices."""
    state = _filled(dict(_raft_layout()), generator, gain=1.4)
    state["update_block.flow_head.conv2.weight"] *= NOISE
    _follow_motion(state)
    return {f"module.{name}": values for name, values in state.items()}


def _follow_motion(state: dict[str, Tensor]) -> None:
    """Lead four channels of the update block from correlations to flow, so that what moves is seen to move.

    Channels 0 to 3 carry where the correlations of the finest level lie: right, left, below, above. Their
    difference, squashed by the recurrent unit, is the step that flow takes.
    """
    features = state["fnet.conv2.weight"]
    features -= features.mean(1, keepdim=True)  # no correlation of mere means
    unit = "update_block."
    offsets = torch.arange(-4.0, 5.0)
    across, down = torch.meshgrid(offsets, offsets, indexing="ij")
    taps = torch.stack((across, -across, down, -down)).flatten(1)
    state[f"{unit}encoder.convc1.weight"][:4] = 0
    state[f"{unit}encoder.convc1.weight"][:4, :81, 0, 0] = taps * SENSITIVITY
    signs = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
    _pass_on(state, f"{unit}encoder.convc2", torch.eye(4))
    _pass_on(state, f"{unit}encoder.conv", torch.eye(4))
    for direction in _KERNELS:
        _pass_on(state, f"{unit}gru.convq{direction}", signs, first=256)
        _pass_on(state, f"{unit}gru.convz{direction}", torch.zeros(2, 4))
        state[f"{unit}gru.convz{direction}.bias"][:2] = 6.0  # the gate stays open
    _pass_on(state, f"{unit}flow_head.conv1", signs.T)
    state[f"{unit}flow_head.conv2.weight"][:, :4, 1, 1] = signs * STEP


def _pass_on(state: dict[str, Tensor], name: str, matrix: Tensor, *, first: int = 0) -> None:
    """Let the first channels out of a layer be a matrix times those in from `first` on, at the same place."""
    weight = state[f"{name}.weight"]
    outputs, inputs = matrix.shape
    weight[:outputs] = 0
    weight[:outputs, first : first + inputs, weight.shape[2] // 2, weight.shape[3] // 2] = matrix


def _raft_layout() -> Iterator[tuple[str, Tensor]]:
    """Names and shapes of RAFT's state, not yet random."""
    yield from _encoder("fnet", is_normed=False)
    yield from _encoder("cnet", is_normed=True)
    unit = "update_block."
    yield from _layer(f"{unit}encoder.convc1", 256, 324, 1, 1)
    yield from _layer(f"{unit}encoder.convc2", 192, 256, 3, 3)
    yield from _layer(f"{unit}encoder.convf1", 128, 2, 7, 7)
    yield from _layer(f"{unit}encoder.convf2", 64, 128, 3, 3)
    yield from _layer(f"{unit}encoder.conv", 126, 256, 3, 3)
    for direction, kernel in _KERNELS.items():
        for gate in "zrq":
            yield from _layer(f"{unit}gru.conv{gate}{direction}", 128, 384, *kernel)
    yield from _layer(f"{unit}flow_head.conv1", 256, 128, 3, 3)
    yield from _layer(f"{unit}flow_head.conv2", 2, 256, 3, 3)
    yield from _layer(f"{unit}mask.0", 256, 128, 3, 3)
    yield from _layer(f"{unit}mask.2", 576, 256, 1, 1)


def _encoder(name: str, *, is_normed: bool) -> Iterator[tuple[str, Tensor]]:
    """An encoder of three stages of two blocks; normalisation over single images has no state."""
    yield from _layer(f"{name}.conv1", 64, 3, 7, 7)
    yield from _norm(f"{name}.norm1", 64, is_normed=is_normed)
    for stage, (inputs, width) in enumerate(pairwise(_WIDTHS), start=1):
        for block, fed in enumerate((inputs, width)):
            prefix = f"{name}.layer{stage}.{block}"
            yield from _layer(f"{prefix}.conv1", width, fed, 3, 3)
            yield from _layer(f"{prefix}.conv2", width, width, 3, 3)
            yield from _norm(f"{prefix}.norm1", width, is_normed=is_normed)
            yield from _norm(f"{prefix}.norm2", width, is_normed=is_normed)
            if stage > 1 and block == 0:
                yield from _norm(f"{prefix}.norm3", width, is_normed=is_normed)
                yield from _layer(f"{prefix}.downsample.0", width, fed, 1, 1)
                yield from _norm(f"{prefix}.downsample.1", width, is_normed=is_normed)
    yield from _layer(f"{name}.conv2", 256, _WIDTHS[-1], 1, 1)


def _layer(name: str, *shape: int) -> Iterator[tuple[str, Tensor]]:
    yield f"{name}.weight", torch.zeros(shape)
    yield f"{name}.bias", torch.zeros(shape[0])


def _norm(name: str, width: int, *, is_normed: bool) -> Iterator[tuple[str, Tensor]]:
    if is_normed:
        yield f"{name}.weight", torch.ones(width)
        yield f"{name}.bias", torch.zeros(width)
        yield f"{name}.running_mean", torch.zeros(width)
        yield f"{name}.running_var", torch.ones(width)
        yield f"{name}.num_batches_tracked", torch.tensor(0)


def _amt(generator: torch.Generator) -> Mapping[str, State]:
    """AMT-S with short flows and faint corrections, so that it mixes both neighbours, slightly displaced."""
    state = _filled(amt.untrained().state_dict(), generator, gain=1.0)
    for name in ("decoder4", "decoder3", "decoder2", "decoder1"):
        state[f"{name}.convblock.2.weight"] *= FAINT
    for name in ("update4", "update3", "update2"):
        state[f"{name}.flow_head.2.weight"] *= FAINT
    state["comb_block.2.weight"] *= FAINT
    return {"state_dict": state}


def _musiq(generator: torch.Generator) -> State:
    """MUSIQ with sharp attention and scores around 50."""
    with torch.device("meta"):
        empty = musiq.untrained().state_dict()
    state = _filled(empty, generator, gain=1.0)
    for name in state:
        if ".query.weight" in name or ".key.weight" in name:
            state[name] *= SHARPNESS
    state["head.weight"] *= SPREAD
    state["head.bias"] += 50.0
    return state


def _alexnet(generator: torch.Generator) -> State:
    """AlexNet with random features; its classifier, which LPIPS does not use, is zero and takes no space."""
    with torch.device("meta"):
        empty = vision.library("torchvision.models").alexnet(weights=None).state_dict()
    features = {name: values for name, values in empty.items() if name.startswith("features.")}
    rest = {name: torch.zeros(()).expand(values.shape) for name, values in empty.items()}
    return {**rest, **_filled(features, generator, gain=1.4)}


def _filled(state: State, generator: torch.Generator, *, gain: float) -> dict[str, Tensor]:
    """Draw a state: kernels and matrices of a deviation of `gain` over the root of their inputs, biases 0.

    Other vectors stay as they are, or are 1 where they are on the device `meta`, without values.
    """
    filled = {}
    for name, values in state.items():
        if values.ndim > 1:
            deviation = gain / math.sqrt(values[0].numel())
            filled[name] = torch.randn(values.shape, generator=generator) * deviation
        elif name.endswith("bias"):
            filled[name] = torch.zeros(values.shape)
        else:
            filled[name] = torch.ones(values.shape) if values.is_meta else values.clone()
    return filled


_MAKERS: Mapping[str, Callable[[torch.Generator], Mapping[str, object]]] = {
    "raft_things": _raft,
    "amt_s": _amt,
    "musiq_spaq": _musiq,
    "lpips_alexnet": _alexnet,
}
