"""Checks of generated videos: a training window with the original's noise, a long rollout, time and cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from statistics import median
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ff_bench import pictures, pipeline, records, runs, video
from ff_bench.config import RunConfig
from ff_bench.footage import Held
from ff_bench.metrics import passes
from ff_bench.metrics.shelf import Shelf
from ff_bench.plan import duration, size
from ff_bench.runs import Manifest
from ff_bench.verify.finding import Finding, judged

DARK = 4 / 255
"""Brightness below which a picture is black."""
FLAT = 1 / 255
"""Contrast below which a picture shows nothing."""
NOTHING = 1e-3
"""Spread of latents below which they are no video."""
STILL = 0.05 / 255
"""Difference of neighbouring pictures below which the video stands still."""
TOLERATED_SECONDS = 1.0
METHODS, PROMPTS, LENGTHS = 3, 128, (30, 60)
"""Table 1 of Future Forcing (arXiv 2605.30083): methods per model, and seconds. The paper does not state how
many prompts; 128 is the usual set."""


@dataclass(frozen=True)
class Made:
    """A finished video of a check.

    Attributes:
        config: of its run, with its device.
        manifest: of the video.
        latents: (F, C, h, w), as recorded.
        trace: one entry per chunk.
    """

    config: RunConfig
    manifest: Manifest
    latents: Tensor
    trace: Sequence[dict[str, Any]]

    @cached_property
    def frames(self) -> np.ndarray:
        """Its pictures (T, H, W, 3) uint8, decoded again from the record."""
        spec = runs.videos(self.config)[0]
        return pictures.read(spec.folder, self.manifest, self.config)


def make(config: RunConfig) -> Made:
    """Generate the one video of a configuration, unless it is finished.

    Raises:
        RuntimeError: with the sentence of the failure.
        UsageError: where a file is missing.
    """
    outcome = pipeline.execute([config])
    spec = runs.videos(config)[0]
    manifest = runs.read_manifest(spec.folder)
    if outcome.failures or manifest is None:
        raise RuntimeError("; ".join(outcome.failures) or f"nothing was written to {spec.folder}")
    latents = load_file(spec.folder / runs.LATENTS)["latents"]
    return Made(config, manifest, latents, records.read(spec.folder / runs.TRACE))


def check_window(made: Made, name: str) -> Iterator[Finding]:
    """Judge a short video by its latents."""
    latents = made.latents.float()
    is_finite = bool(latents.isfinite().all())
    mean, spread = float(latents.mean()), float(latents.std())
    told = "" if is_finite else "not finite, "
    rule = f"context rule {made.config.policy.rule or made.config.policy.label}"
    seen = f"{told}{len(latents)} latent frames, mean {mean:+.3f}, spread {spread:.3f}, {rule}"
    yield judged(name, is_finite and spread > NOTHING, seen)


def check_long(made: Made, name: str) -> Iterator[Finding]:
    """Judge a long video: numbers that are not finite, black, empty or frozen pictures."""
    is_finite = bool(torch.isfinite(made.latents.float()).all())
    seconds = made.manifest.frames / made.manifest.fps
    seen = f"{len(made.latents)} latent frames, {seconds:.1f} s of video"
    yield judged(f"{name}: finite", is_finite, seen)
    frames = made.frames
    same = video.frames_sha256(frames) == made.manifest.frames_sha256
    yield judged(
        f"{name}: record", same,
        "decodes to the pictures that were made" if same else "decodes to other pictures than were made",
    )  # fmt: skip
    yield from judge_pictures(frames, made.manifest.fps, name)


def judge_pictures(frames: np.ndarray, fps: float, name: str) -> Iterator[Finding]:
    """Look for a second or more that is black, empty or frozen.

    Args:
        frames: (T, H, W, 3) uint8.
        fps: pictures per second.
        name: in front of the findings.
    """
    shelf = Shelf(None, "")
    passes.measure(Held(frames), ["frames/levels", "frames/difference"], shelf, fps=fps, device="cpu")
    levels, change = shelf.get("frames/levels"), shelf.get("frames/difference")["change"]
    problems = {
        "black": levels["brightness"] < DARK,
        "empty": levels["contrast"] < FLAT,
        "frozen": change[1:] < STILL,
    }
    for problem, marks in problems.items():
        longest = longest_run(marks) / fps
        seen = f"longest stretch {longest:.2f} s, {int(marks.sum())} of {len(frames)} pictures"
        yield judged(f"{name}: not {problem}", longest < TOLERATED_SECONDS, seen)


def longest_run(marks: np.ndarray) -> int:
    """Return the length of the longest run of True."""
    return max((len(list(run)) for is_marked, run in groupby(marks.tolist()) if is_marked), default=0)


def check_cost(made: Made) -> Iterator[Finding]:
    """Tell time and memory of a video, and what the paper's first table would take at this rate."""
    steady = [line for line in made.trace if not line["prefix"]]
    steady = steady[len(steady) // 3 :] or steady
    chunk = median(line["seconds"] for line in steady)
    decode = median(line["decode_seconds"] for line in steady)
    known, manifest = made.config.facts, made.manifest
    pictures_made = known.chunk_frames * known.temporal_stride
    held = max(float(line["kv_bytes"]) for line in steady)
    peak = "unknown" if manifest.peak_bytes is None else size(manifest.peak_bytes)
    place = records.hardware(made.config.device)
    yield Finding(
        "time and memory", "PASS",
        f"{pictures_made / chunk:.2f} pictures/s, {chunk:.2f} s a chunk of which {decode:.2f} s decode, "
        f"keys and values {size(held)}, peak {peak}, {place}",
    )  # fmt: skip
    rate = chunk * known.fps / pictures_made
    asked = METHODS * PROMPTS * sum(LENGTHS)
    count = METHODS * PROMPTS * len(LENGTHS)
    yield Finding(
        "cost of Table 1", "PASS",
        f"about {duration(rate * asked)} for this model's part: {count} videos, {METHODS} methods x "
        f"{PROMPTS} prompts (the paper states no number) x 30 s and 60 s",
    )  # fmt: skip
