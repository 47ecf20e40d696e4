"""What a video starts with, alike for all policies: a file, a lap in full cache, the truth, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ff_bench import files, runs, starts
from ff_bench.config import RunConfig
from ff_bench.errors import UsageError
from ff_bench.models.base import Model
from ff_bench.models.mini.prompt import MiniPrompt
from ff_bench.prompts import PromptSpec
from ff_bench.rollout import Take, rollout
from ff_bench.runs import VideoSpec
from policies.base import Budget, Protocol
from policies.context import Context
from policies.full import Full

FILE = "latents.safetensors"


def length(config: RunConfig, prompt: PromptSpec) -> int:
    """Return the latent frames of the prefix of a prompt, at most the video."""
    if prompt.start is not None:
        given = starts.latent_frames(prompt.start, config.facts)
        if given >= config.length.latent_frames:
            raise UsageError(
                f"length={config.length.asked} is {config.length.latent_frames} latent frames, the start of "
                f"prompt '{prompt.id}' gives {given}: allowed is a longer video"
            )
        return given
    if config.protocol.prefix == "none":
        return 0
    return min(MiniPrompt.parse(prompt.text).prefix_frames(), config.length.latent_frames)


def latents(model: Model, config: RunConfig, group: Sequence[VideoSpec], frames: int) -> Tensor | None:
    """Latents of the prefixes of videos with the same prefix length, made and kept where they are missing.

    Args:
        model: the backbone.
        config: of the videos.
        group: B videos.
        frames: latent frames of their prefixes.

    Returns:
        (B, frames, C, h, w) float32 on the CPU, or None without a prefix.
    """
    if frames == 0:
        return None
    given = [spec.prompt.start for spec in group]
    if given[0] is not None:
        return torch.stack([starts.latents(path, model, frames) for path in given if path is not None])
    if config.protocol.prefix == "truth":
        return torch.stack([model.truth(spec.prompt.text, spec.seed, frames).cpu() for spec in group])
    folders = [_folder(config, spec, frames) for spec in group]
    with ExitStack() as locks:
        for folder in sorted(set(folders)):
            locks.enter_context(runs.lock(folder, wait=True))
        if not all((folder / FILE).is_file() for folder in folders):
            made = _first_laps(model, config, group, frames)
            for folder, one in zip(folders, made, strict=True):
                if not (folder / FILE).is_file():
                    files.sweep_up(folder, deep=False)
                    with runs.temporary(folder / FILE) as part:
                        part.write_bytes(save({"latents": one.contiguous()}))
    return torch.stack([load_file(folder / FILE)["latents"] for folder in folders])


def _first_laps(model: Model, config: RunConfig, group: Sequence[VideoSpec], frames: int) -> Tensor:
    """Generate B prefixes with the full cache at absolute positions."""
    context = Context(
        Full(), model.shape, Budget(None), Protocol(position="absolute"),
        batch=len(group), capacity_tokens=frames * model.shape.frame_tokens,
        dtype=model.dtype, device=config.device,
    )  # fmt: skip
    prompts, seeds = [spec.prompt.text for spec in group], [spec.seed for spec in group]
    take = Take(prompts, seeds, frames, config.steps, decode=False)
    return torch.cat([chunk.latents.float().cpu() for chunk in rollout(model, context, take)], 1)


def _folder(config: RunConfig, spec: VideoSpec, frames: int) -> Path:
    """Folder of one prefix: named by everything that changes its latents."""
    identity: dict[str, Any] = {
        "model": config.model.name, "checkpoint": config.model.checkpoint, "steps": config.steps,
        "dtype": config.dtype, "batch": config.batch, "frames": frames, "prompt": spec.prompt.text,
        "seed": spec.seed,
    }  # fmt: skip
    if config.model.architecture != "mini":  # whose name and checkpoint say all, and whose noise is our own
        identity |= {"model": config.model.identity, "noise": config.protocol.noise}
    name = f"{spec.prompt.id}-s{spec.seed}-{runs.short_hash(identity)}"
    return config.runs_dir / config.model.name / runs.PREFIXES / name
