"""The same video from the original repository, in a process of its own, and how far it is from ours."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ff_bench.models.wan.files import locate
from ff_bench.models.wan.member import Member
from ff_bench.verify.finding import Finding, judged, skipped
from ff_bench.verify.parts import psnr
from ff_bench.verify.rollouts import Made

CONFIGS = {
    "self_forcing": "configs/self_forcing_dmd.yaml",
    "causal_forcing": "configs/causal_forcing_dmd_chunkwise.yaml",
    "causal_forcing_framewise": "configs/causal_forcing_dmd_framewise.yaml",
    "causal_forcing_2step": "configs/causal_forcing_dmd_framewise_2step.yaml",
    "causal_forcing_1step": "configs/causal_forcing_dmd_framewise_1step.yaml",
}
"""Members whose repository has the layout of Self-Forcing, and its configuration there.

Source: guandeh17/Self-Forcing@33593df, thu-ml/Causal-Forcing@1fc7bbc.
"""
FIRST_CHUNK = 0.1
"""Largest mean difference of the first chunk, in units of its spread. Later chunks are only reported: kernels
round differently, and a rollout makes much of little."""
HOURS = 2

DRIVER = """
import json, sys
import torch
from omegaconf import OmegaConf
from pipeline import CausalInferencePipeline

asked = json.load(open(sys.argv[1]))
torch.set_grad_enabled(False)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
config = OmegaConf.merge(OmegaConf.load("configs/default_config.yaml"), OmegaConf.load(asked["config"]))
pipeline = CausalInferencePipeline(config, device=device)
held = torch.load(asked["checkpoint"], map_location="cpu", weights_only=True, mmap=True)[asked["key"]]
pipeline.generator.load_state_dict({k.replace("_fsdp_wrapped_module.", ""): v for k, v in held.items()})
pipeline = pipeline.to(dtype=torch.bfloat16)
for part in (pipeline.text_encoder, pipeline.generator, pipeline.vae):
    part.to(device=device)
torch.manual_seed(asked["seed"])
noise = torch.randn([1, *asked["shape"]], device=device, dtype=torch.bfloat16)
video, latents = pipeline.inference(noise=noise, text_prompts=[asked["prompt"]], return_latents=True)
pictures = (video[0].float() * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
torch.save({"latents": latents[0].float().cpu(), "pictures": pictures.cpu()}, asked["out"])
"""
"""Our program that runs in their repository, with their imports."""


@dataclass(frozen=True)
class Theirs:
    """What the original made.

    Attributes:
        latents: (F, C, h, w) float32.
        pictures: (T, H, W, 3) uint8.
    """

    latents: Tensor
    pictures: np.ndarray


def python_of(repository: Path) -> str:
    """Return the interpreter of the repository's own environment where it has one, else ours."""
    own = repository / ".venv" / "bin" / "python"
    return str(own) if own.is_file() else sys.executable


def run(repository: Path, made: Made, *, python: str) -> Theirs:
    """Make the same video in the original repository.

    Args:
        repository: a checkout with its own needs met: its packages, its folder of Wan2.1 weights.
        made: ours, with `protocol.noise=upstream`.
        python: interpreter that has its packages.

    Raises:
        RuntimeError: with the last line that it wrote where it failed.
        FileNotFoundError: where our checkpoint is gone.
    """
    member = made.config.model.fields
    assert isinstance(member, Member), member
    spec = {
        "config": CONFIGS[member.name],
        "checkpoint": str(locate(member.checkpoint.source, what=f"weights of {member.name}").resolve()),
        "key": member.checkpoint.key or ("generator_ema" if member.checkpoint.ema else "generator"),
        "shape": list(made.latents.shape), "prompt": made.manifest.identity["prompt"],
        "seed": made.manifest.identity["seed"],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        out, asked, driver = (Path(folder, name) for name in ("out.pt", "asked.json", "driver.py"))
        asked.write_text(json.dumps({**spec, "out": str(out)}), encoding="utf-8")
        driver.write_text(f"import sys\nsys.path.insert(0, {str(repository)!r})\n{DRIVER}", encoding="utf-8")
        done = subprocess.run(
            [python, str(driver), str(asked)], cwd=repository, capture_output=True, text=True,
            timeout=HOURS * 3600, check=False,
        )  # fmt: skip
        if done.returncode or not out.is_file():
            said = [line for line in done.stderr.splitlines() if line.strip()]
            last = said[-1] if said else "it said nothing"
            raise RuntimeError(f"the original ended with code {done.returncode}: {last}")
        held = torch.load(out, weights_only=True)
    return Theirs(held["latents"].float(), held["pictures"].numpy())


def check(made: Made, repository: Path | None, *, python: str | None) -> Iterator[Finding]:
    """Compare a video with the original's: the first chunk is judged, everything is reported."""
    name = "against upstream"
    if repository is None:
        yield skipped(name, "no --upstream DIR was given")
        return
    if made.config.model.name not in CONFIGS:
        yield skipped(name, f"no driver for model={made.config.model.name}: there are {', '.join(CONFIGS)}")
        return
    theirs = run(repository, made, python=python or python_of(repository))
    yield from compare(made, theirs, name)


def compare(made: Made, theirs: Theirs, name: str) -> Iterator[Finding]:
    """Judge how far two videos of one noise are apart."""
    ours = made.latents.float()
    if ours.shape != theirs.latents.shape:
        yield Finding(name, "FAIL", f"ours is {tuple(ours.shape)}, theirs {tuple(theirs.latents.shape)}")
        return
    gap, first = (ours - theirs.latents).abs(), made.config.facts.first_chunk_frames
    spread = float(theirs.latents[:first].std())
    relative = float(gap[:first].mean()) / max(spread, 1e-9)
    pictures = made.frames
    is_close = relative <= FIRST_CHUNK
    yield judged(
        f"{name}: first chunk", is_close,
        f"mean latent difference {float(gap[:first].mean()):.4f}, {relative:.3f} of the spread "
        f"(at most {FIRST_CHUNK}), largest {float(gap[:first].max()):.3f}",
    )  # fmt: skip
    same = pictures.shape == theirs.pictures.shape
    likeness = f"PSNR {psnr(pictures, theirs.pictures):.1f} dB" if same else "pictures of another shape"
    yield judged(
        f"{name}: {len(ours)} frames", same,
        f"mean latent difference {float(gap.mean()):.4f}, largest {float(gap.max()):.3f}, {likeness}",
    )  # fmt: skip
