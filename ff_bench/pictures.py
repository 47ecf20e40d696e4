"""The pictures of a finished video: read from its record, or decoded again from its latents."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

import numpy as np

from ff_bench import records, runs, video
from ff_bench.config import RunConfig
from ff_bench.files import checkpoint_sha256
from ff_bench.runs import Manifest

LOGGER = logging.getLogger(__name__)
DECODERS = {"wan": "ff_bench.models.wan.decoding"}
"""Module of each architecture whose record is latents; it has `decode`."""


def read(folder: Path, manifest: Manifest, config: RunConfig) -> np.ndarray:
    """Return the pictures of a video as they were made, (T, H, W, 3) uint8.

    Latents are decoded on the device of `config`. Where that is another device or version than the one that
    made them, pictures may differ in their last bits; that is said, and scores are of the pictures seen here.

    Raises:
        ValueError: where the record is not the one that the manifest names.
        FileNotFoundError: where the decoder is not on this machine.
    """
    if (folder / runs.RECORD).is_file():
        frames = video.read_record(folder / runs.RECORD)
        if video.frames_sha256(frames) != manifest.frames_sha256:
            raise ValueError(
                f"record of {manifest.video_id} does not hold the frames that its manifest names"
            )
        return frames
    path = folder / runs.LATENTS
    if not path.is_file():
        raise ValueError(f"video {manifest.video_id} has no record; make it again with save=[record,video]")
    if manifest.digests.get(path.name, "") != checkpoint_sha256((path,)):
        raise ValueError(f"record of {manifest.video_id} is not the one that its manifest names: {path}")
    frames = _decode(path, config)[: manifest.frames]
    if len(frames) != manifest.frames:
        raise ValueError(
            f"record of {manifest.video_id} decodes to {len(frames)} frames, not {manifest.frames}"
        )
    if video.frames_sha256(frames) != manifest.frames_sha256:
        LOGGER.warning(_other_pictures(manifest, config))
    return frames


def _decode(path: Path, config: RunConfig) -> np.ndarray:
    import torch
    from safetensors.torch import load_file

    module: Any = importlib.import_module(DECODERS[config.model.architecture])
    latents = load_file(path)["latents"]
    dtype = getattr(torch, config.dtype)
    frames: np.ndarray = module.decode(latents, config.model.fields, device=config.device, dtype=dtype)
    return frames


def _other_pictures(manifest: Manifest, config: RunConfig) -> str:
    made = manifest.environment
    there = f"{made.get('hardware', '')} with torch {made.get('versions', {}).get('torch', '')}"
    return (
        f"{manifest.video_id} decodes to other pictures on {records.hardware(config.device)} than where it "
        f"was made ({there}); its scores are of the pictures decoded here"
    )
