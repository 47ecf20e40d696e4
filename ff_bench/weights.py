"""Weights of the networks that scores rest on: one manifest, one folder, where each file is and its digest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ff_bench.errors import Unavailable

FOLDER = "FF_BENCH_WEIGHTS"


@dataclass(frozen=True)
class Weight:
    """One file of the manifest.

    Attributes:
        name: What signals call it.
        file: Path below the folder of weights.
    """

    name: str
    file: str


@lru_cache(maxsize=1)
def manifest() -> Mapping[str, Weight]:
    """Return every weight file by name."""
    names = {
        "dino_vitb16": "dino_vitbase16_pretrain.pth",
        "dinov2_vitb14": "dinov2_vitb14_pretrain.pth",
        "clip_vitb32": "ViT-B-32.pt",
        "clip_vitl14": "ViT-L-14.pt",
        "aesthetic_linear": "sa_0_4_vit_l_14_linear.pth",
        "raft_things": "raft-things.pth",
        "amt_s": "amt-s.pth",
        "musiq_spaq": "musiq_spaq_ckpt-358bb6af.pth",
        "viclip": "ViClip-InternVid-10M-FLT.pth",
        "dreamsim_ensemble": "dreamsim_ensemble_checkpoint.zip",
        "lpips_alexnet": "alexnet-owt-7be5be79.pth",
    }
    return {name: Weight(name, file) for name, file in names.items()}


def folder() -> Path:
    """Where weights lie: the environment's `FF_BENCH_WEIGHTS`, else `weights` of the cache folder."""
    named = os.environ.get(FOLDER)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "ff-bench" / "weights"


def path(name: str) -> Path:
    """Return where a weight file is.

    Raises:
        Unavailable: where it is not on this machine, with the command that gets it.
    """
    found = folder() / manifest()[name].file
    if not found.is_file():
        raise Unavailable(f"weights '{name}' are not in {folder()}: ff-bench weights fetch {name}")
    return found
