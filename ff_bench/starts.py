"""Files that a video starts from: a picture, a clip, or first latents."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ff_bench import video_kinds
from ff_bench.errors import UsageError
from ff_bench.models.base import Model
from ff_bench.models.facts import ModelFacts

LATENTS = "latents"


def latent_frames(path: Path, facts: ModelFacts) -> int:
    """Return how many latent frames of a video a file gives: whole chunks, the rest of a clip is cut off.

    Raises:
        UsageError: where the file cannot be read, or gives less than one chunk.
    """
    held = (
        len(_latents(path)) if path.suffix == ".safetensors" else _encoded(len(_pictures(path, facts)), facts)
    )
    sizes = [facts.first_chunk_frames]
    while sum(sizes) + facts.chunk_frames <= held:
        sizes.append(facts.chunk_frames)
    if sum(sizes) > held:
        raise UsageError(
            f"start={path} gives {held} latent frames, allowed are whole chunks from "
            f"{facts.first_chunk_frames} on"
            + ("; a single picture needs model.first_chunk_frames=1" if held == 1 else "")
        )
    return sum(sizes)


def latents(path: Path, model: Model, frames: int) -> Tensor:
    """Return the first ``frames`` latent frames (F, C, h, w) float32 that a file gives.

    Raises:
        UsageError: where the file cannot be read or does not fit the model.
    """
    if path.suffix != ".safetensors":
        facts = model.facts
        pictures = _pictures(path, facts)[: facts.decoded_frames(frames)]
        return model.encode_frames(torch.from_numpy(pictures)).float().cpu()
    found = _latents(path)
    if tuple(found.shape[1:]) != model.latent_shape:
        raise UsageError(
            f"start={path} holds latents of {tuple(found.shape[1:])}, allowed are {model.latent_shape} of "
            f"model={model.facts.name}"
        )
    return found[:frames].float()


def _encoded(pictures: int, facts: ModelFacts) -> int:
    """Return how many latent frames so many pictures make."""
    return 1 + (pictures - facts.first_stride) // facts.temporal_stride if pictures else 0


def _latents(path: Path) -> Tensor:
    try:
        with safe_open(path, "pt") as file:
            found: Tensor = file.get_tensor(LATENTS)
    except (SafetensorError, OSError, LookupError) as error:
        raise UsageError(f"start={path} holds no tensor '{LATENTS}' (F, C, h, w): {error}") from None
    found = found[0] if found.ndim == 5 and len(found) == 1 else found
    if found.ndim != 4 or not found.is_floating_point():
        kind = str(found.dtype).removeprefix("torch.")
        raise UsageError(f"start={path} holds {kind} {tuple(found.shape)}, allowed are floats (F, C, h, w)")
    if not bool(torch.isfinite(found).all()):
        raise UsageError(f"start={path} holds latents that are not finite")
    return found


@lru_cache(maxsize=1)
def _pictures(path: Path, facts: ModelFacts) -> np.ndarray:
    """Decode pictures, cut to the model's shape around the middle and scaled, (T, H, W, 3) uint8.

    Kept for the next call: the length of a start is asked for before its latents.
    """
    import av

    try:
        with av.open(str(path), options=video_kinds.STARTS) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.FFmpegError, OSError, IndexError, ValueError) as error:
        raise UsageError(f"start={path} cannot be read as a picture or clip: {error}") from None
    if not frames:
        raise UsageError(f"start={path} cannot be read as a picture or clip: it holds no frame")
    return np.stack([_fitted(frame, facts) for frame in frames])


def _fitted(frame: np.ndarray, facts: ModelFacts) -> np.ndarray:
    import av

    height, width = frame.shape[:2]
    scale = min(height / facts.height, width / facts.width)
    high, wide = round(facts.height * scale), round(facts.width * scale)
    top, left = (height - high) // 2, (width - wide) // 2
    cut = np.ascontiguousarray(frame[top : top + high, left : left + wide])
    picture = av.VideoFrame.from_ndarray(cut, format="rgb24")
    return picture.reformat(facts.width, facts.height, interpolation="BICUBIC").to_ndarray(format="rgb24")
