"""Noise that depends on (prompt, seed, chunk, step) and on nothing else.

Not on the policy, the batch, the order, the device or the length of the video: policies are compared on the
same draws, and a longer video begins as the shorter one does. Drawn on the CPU in float32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def noise_seed(prompt: str, seed: int, *, chunk: int, step: int) -> int:
    """Name one draw by 63 bits."""
    digest = hashlib.sha256(f"noise\0{prompt}\0{seed}\0{chunk}\0{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draw(prompt: str, seed: int, *, chunk: int, step: int, shape: Sequence[int]) -> Tensor:
    """Draw standard normal noise, float32 on the CPU.

    Args:
        prompt: text of the video's prompt.
        seed: of the video.
        chunk: number of the chunk.
        step: 0 for what denoising starts from, s for what a model takes after its noisy pass s.
        shape: of one video's chunk.
    """
    generator = torch.Generator().manual_seed(noise_seed(prompt, seed, chunk=chunk, step=step))
    return torch.randn(tuple(shape), generator=generator)
