"""The pictures of a finished video: read from its record, or decoded again from its latents."""

from __future__ import annotations

import hashlib
import importlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ff_bench import records, runs, video
from ff_bench.config import RunConfig
from ff_bench.files import checkpoint_sha256
from ff_bench.footage import Footage, Held, Streamed
from ff_bench.runs import Manifest

LOGGER = logging.getLogger(__name__)
DECODERS = {"wan": "ff_bench.models.wan.decoding"}
"""Module of each architecture whose record is latents; its `decode` yields frames piece by piece."""


HELD_BYTES = 1 << 28
"""Frames of a record up to this size are held in memory; larger ones are read block by block."""


def open_footage(folder: Path, manifest: Manifest, config: RunConfig) -> Footage:
    """Return the pictures of a video as they were made.

    Latents are decoded on the device of `config`. Where that is another device or version than the one that
    made them, pictures may differ in their last bits; that is said, and scores are of the pictures seen here.

    Returns:
        The footage. What is read block by block is checked against the manifest after its last block.

    Raises:
        ValueError: where the record is not the one that the manifest names.
        FileNotFoundError: where the decoder is not on this machine.
    """
    record, latents = folder / runs.RECORD, folder / runs.LATENTS
    facts = config.facts
    if record.is_file():
        if manifest.frames * facts.height * facts.width * 3 <= HELD_BYTES:
            frames = video.read_record(record)
            _check(video.frames_sha256(frames), manifest)
            return Held(frames)
        return _streamed(lambda: (frame[None] for frame in video.decode(record)), manifest, config, _check)
    if not latents.is_file():
        raise ValueError(f"video {manifest.video_id} has no record; make it again with save=[record,video]")
    if manifest.digests.get(latents.name, "") != checkpoint_sha256((latents,)):
        raise ValueError(f"record of {manifest.video_id} is not the one that its manifest names: {latents}")
    return _streamed(lambda: _decode(latents, config, manifest.frames), manifest, config, _remark(config))


def read(folder: Path, manifest: Manifest, config: RunConfig) -> np.ndarray:
    """Return all pictures of a video at once, (T, H, W, 3) uint8; for the rest see `open_footage`."""
    return open_footage(folder, manifest, config).frames


Judge = Callable[[str, Manifest], None]
"""What looks at the digest of the frames after the last one."""


def _streamed(
    source: Callable[[], Iterator[np.ndarray]], manifest: Manifest, config: RunConfig, judge: Judge
) -> Streamed:
    def pieces() -> Iterator[np.ndarray]:
        digest = hashlib.sha256()
        for piece in source():
            digest.update(np.ascontiguousarray(piece).data)
            yield piece
        judge(digest.hexdigest(), manifest)

    return Streamed(manifest.frames, (config.facts.height, config.facts.width), pieces)


def _check(digest: str, manifest: Manifest) -> None:
    if digest != manifest.frames_sha256:
        raise ValueError(f"record of {manifest.video_id} does not hold the frames that its manifest names")


def _remark(config: RunConfig) -> Judge:
    def remark(digest: str, manifest: Manifest) -> None:
        if digest != manifest.frames_sha256:
            LOGGER.warning(_other_pictures(manifest, config))

    return remark


def _decode(path: Path, config: RunConfig, count: int) -> Iterator[np.ndarray]:
    """Decode latents piece by piece; the last pieces may reach beyond a video cut to whole seconds."""
    import torch
    from safetensors.torch import load_file

    module: Any = importlib.import_module(DECODERS[config.model.architecture])
    latents = load_file(path)["latents"]
    dtype = getattr(torch, config.dtype)
    left = count
    for piece in module.decode(latents, config.model.fields, device=config.device, dtype=dtype):
        if left > 0:
            yield piece[:left]
        left -= len(piece)


def _other_pictures(manifest: Manifest, config: RunConfig) -> str:
    made = manifest.environment
    there = f"{made.get('hardware', '')} with torch {made.get('versions', {}).get('torch', '')}"
    return (
        f"{manifest.video_id} decodes to other pictures on {records.hardware(config.device)} than where it "
        f"was made ({there}); its scores are of the pictures decoded here"
    )
