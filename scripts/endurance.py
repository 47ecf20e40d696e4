"""Roll a model out for thousands of chunks at a fixed budget: do time and memory per chunk stay as they are?

Frames are made and let go; what a chunk leaves are its numbers. Positions soon lie beyond every table of the
originals (1024 latent frames) and beyond what the model saw in training, so that pictures mean nothing here.
`--model tiny` has the embedded model's grid and schedule and random projections for a network, for a CPU;
`mini` is the real one. Per policy: processor seconds of a chunk (wall seconds on a GPU), resident memory,
memory of tensors on a GPU, keys and values, what the policy holds, the chunk's line in the trace, open files,
Python objects. Slopes are Theil-Sen over medians of a hundred blocks, with a 95 % interval, in per cent over
the whole run. Ctrl-C ends a policy early and tells what was measured until then.

    python scripts/endurance.py --chunks 10000                      # tiny, four policies, CPU
    python scripts/endurance.py --chunks 10000 --model mini --device cuda --policies h2o --budget 1k

    python scripts/endurance.py --read a.npz b.npz                  # draw and tell what --values has kept

It draws time and memory against chunks (`--figure`) and writes one JSON document as its last line.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor
from torch.nn import functional

from ff_bench import generate, runs
from ff_bench.compose import compose
from ff_bench.config import RunConfig
from ff_bench.models.base import Attend, Decoder, Model
from ff_bench.models.mini.backbone import Mini, folded
from ff_bench.models.mini.motion import GRID
from ff_bench.models.mini.network import MiniNetwork, Size
from ff_bench.rollout import rollout

POLICIES = ("sliding_window", "streaming_llm", "h2o", "future_forcing")
COLUMNS = (
    "seconds", "wall_seconds", "resident_bytes", "device_bytes", "kv_bytes", "state_bytes", "trace_bytes",
    "open_files", "python_blocks", "max_distance",
)  # fmt: skip
BLOCKS = 100
"""Medians that a slope is drawn through."""
WARM_UP = 0.05
"""Share of a run that is left out of slopes and ranges: the cache fills, allocators settle."""
SIZE = Size(dim=32, depth=2, heads=1, head_dim=64, mlp=64, cross=16)
CHANNELS = 4
"""Of a latent frame of the tiny model."""


@dataclass(frozen=True)
class Course:
    """What one policy did.

    Attributes:
        policy: its name.
        values: (chunks, columns) fp64, columns as in `COLUMNS`.
    """

    policy: str
    values: np.ndarray

    def column(self, name: str) -> np.ndarray:
        """Return one column without its warm-up, (chunks,)."""
        settled: np.ndarray = self.values[int(len(self.values) * WARM_UP) :, COLUMNS.index(name)]
        return settled

    def slope(self, name: str) -> list[float]:
        """Return the change over the whole run in per cent of the median: estimate, lower and upper end."""
        column = self.column(name)
        medians = [float(np.median(block)) for block in np.array_split(column, min(BLOCKS, len(column)))]
        middle = float(np.median(column))
        if middle == 0:
            return [0.0, 0.0, 0.0]
        found = stats.theilslopes(medians, np.linspace(0, 1 - WARM_UP, len(medians)))
        return [round(100 * float(part) / middle, 2) for part in (found[0], found[2], found[3])]


class Tiny(Mini):
    """The embedded model's grid and schedule around two layers of random projections with one head.

    Everything of a rollout runs but the network, which a CPU would spend its time on.
    """

    def __init__(self) -> None:
        """Draw the projections."""
        super().__init__(MiniNetwork(SIZE), checkpoint="random")
        self.latent_shape = (CHANNELS, GRID, GRID)
        generator = torch.Generator().manual_seed(0)
        size = (SIZE.depth, 3, CHANNELS, SIZE.head_dim)
        self.inward = torch.randn(size, generator=generator)
        self.outward = torch.randn(SIZE.head_dim, CHANNELS, generator=generator) / SIZE.head_dim**0.5

    def denoise(
        self,
        latent: Tensor,
        noise: Tensor,
        conditioning: object,
        attend: Attend,
        *,
        first_frame: int,
        cache_only: bool = False,
    ) -> Tensor:
        """See `Model.denoise`."""
        tokens = latent.flatten(3).transpose(2, 3).flatten(1, 2)  # (B, N, C)
        for layer, parts in enumerate(self.inward):
            normal = functional.rms_norm(tokens, (CHANNELS,))[:, None]  # (B, 1, N, C)
            queries, keys, values = (normal @ part for part in parts)
            tokens = tokens + attend(layer, queries, keys, values)[:, 0] @ self.outward
        return folded(functional.rms_norm(tokens, (CHANNELS,)), latent.shape[1])

    def decoder(self) -> Decoder:
        """Show latents as grey pictures of their own size, four for each."""
        return grey


def grey(latents: Tensor) -> Tensor:
    """Turn latents (B, F, C, h, w) into pictures (B, 4 F, h, w, 3) uint8."""
    level = ((latents[:, :, 0].clamp(-1, 1) + 1) * 127.5).byte()
    return level.repeat_interleave(4, 1)[..., None].expand(*[-1] * 4, 3)


def configured(policy: str, options: argparse.Namespace) -> RunConfig:
    """Return the configuration of one policy, as a command line would."""
    words = [
        f"policy={policy}", f"budget={options.budget}", "prompts=orbit", "limit=1", "protocol.prefix=none",
        f"length={options.chunks * 3}f", f"steps={options.steps}", f"device={options.device}",
    ]  # fmt: skip
    return compose(words).config


def measured(model: Model, config: RunConfig) -> Course:
    """Roll one policy out, holding nothing but numbers."""
    (spec, *_) = runs.videos(config)
    take = generate.make_take(model, config, [spec], None)
    context = generate.make_context(model, config, take)
    chunks = config.length.latent_frames // model.shape.chunk_frames
    values = np.zeros((chunks, len(COLUMNS)))
    began = _clock(config.device)
    done = 0
    with suppress(KeyboardInterrupt):  # what was measured until then is told
        for chunk in rollout(model, context, take):
            line = json.dumps(generate.trace_of(chunk, 0, 1))
            ended = _clock(config.device)
            summary = chunk.summary
            values[chunk.number] = (
                ended - began, chunk.seconds + chunk.decode_seconds, _resident_bytes(),
                _device_bytes(config.device), summary["kv_bytes"], summary["state_bytes"], len(line),
                len(os.listdir("/proc/self/fd")), sys.getallocatedblocks(), summary["max_distance"],
            )  # fmt: skip
            done = chunk.number + 1
            if chunk.number % max(1, chunks // 10) == 0:
                _say(config.policy.name, chunk.number, values[chunk.number])
            began = _clock(config.device)
    return Course(config.policy.name, values[:done])


def _say(policy: str, chunk: int, values: np.ndarray) -> None:
    print(
        f"{policy:16s} chunk {chunk:6d}  {1e3 * values[0]:7.1f} ms  {values[2] / 2**20:7.1f} MiB resident",
        flush=True,
    )


def told(course: Course) -> dict[str, Any]:
    """Return the numbers of one policy."""
    ranges = {
        name: [float(course.column(name).min()), float(course.column(name).max())]
        for name in COLUMNS[2:]
    }  # fmt: skip
    return {
        "policy": course.policy,
        "median_ms": round(1e3 * float(np.median(course.column("seconds"))), 3),
        "slopes_percent": {name: course.slope(name) for name in ("seconds", "resident_bytes", "trace_bytes")},
        "ranges": ranges,
    }


def drawn(courses: list[Course], device: str) -> Figure:
    """Draw time and memory of a chunk against its number."""
    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    time_panel, memory_panel = figure.subplots(1, 2)
    memory = "resident_bytes" if device == "cpu" else "device_bytes"
    for course in courses:
        for panel, name, scale in ((time_panel, "seconds", 1e3), (memory_panel, memory, 2**-20)):
            blocks = np.array_split(course.values[:, COLUMNS.index(name)], min(BLOCKS, len(course.values)))
            centres = (np.arange(len(blocks)) + 0.5) * len(course.values) / len(blocks)
            medians = [float(np.median(block)) * scale for block in blocks]
            panel.plot(centres, medians, linewidth=1, label=course.policy)
    clock = "processor" if device == "cpu" else "wall"
    time_panel.set_ylabel(f"{clock} time of a chunk, ms")
    memory_panel.set_ylabel("resident memory, MiB" if device == "cpu" else "memory of tensors, MiB")
    for panel in (time_panel, memory_panel):
        panel.set_xlabel("chunk")
        panel.set_ylim(0, 1.15 * panel.get_ylim()[1])
        panel.grid(visible=True, linewidth=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    memory_panel.legend(fontsize=7, frameon=False, loc="lower right")
    return figure


def courses_of(options: argparse.Namespace) -> Iterator[Course]:
    """Read what was measured before, or measure each policy in turn."""
    for path in options.read:
        with np.load(path) as kept:
            for name in kept.files:
                yield Course(name, kept[name])
    for policy in () if options.read else options.policies:
        config = configured(policy, options)
        model: Model = (
            Tiny()
            if options.model == "tiny"
            else generate.load_model(config.model, config.device, config.dtype)
        )
        gc.collect()
        yield measured(model, config)


def _clock(device: str) -> float:
    return time.process_time() if device == "cpu" else time.perf_counter()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _device_bytes(device: str) -> int:
    return 0 if device == "cpu" else int(torch.cuda.memory_allocated(device))


def main() -> None:
    """Measure, draw and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--model", choices=["tiny", "mini"], default="tiny")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument("--budget", default="8f", help="as on the command line of ff-bench")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--figure", type=Path, default=Path("endurance.png"))
    parser.add_argument("--values", type=Path, help="keep all numbers in this .npz")
    parser.add_argument("--read", type=Path, nargs="+", default=[], help="measure nothing, read such files")
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)
    courses = list(courses_of(options))
    drawn(courses, options.device).savefig(options.figure, dpi=110)
    if options.values:
        kept: dict[str, Any] = {course.policy: course.values for course in courses}
        np.savez_compressed(options.values, **kept)
    document = {
        "torch": torch.__version__, "device": options.device, "model": options.model,
        "chunks": max(len(course.values) for course in courses), "budget": options.budget,
        "steps": options.steps,
        "results": [told(course) for course in courses],
    }  # fmt: skip
    print(json.dumps(document))


if __name__ == "__main__":
    main()
