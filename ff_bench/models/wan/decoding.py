"""Decodes recorded latents again, without loading the transformer."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ff_bench.models.wan.files import locate

if TYPE_CHECKING:
    from ff_bench.models.base import Decoder
    from ff_bench.models.wan.member import Member
    from ff_bench.models.wan.preview import TaeHV
    from ff_bench.models.wan.vae import WanVAE

AT_ONCE = 3
"""Latent frames decoded in one call; the result does not depend on it."""


def decode(latents: Tensor, member: Member, *, device: torch.device | str, dtype: torch.dtype) -> np.ndarray:
    """Decode the latents of one video from its beginning.

    Args:
        latents: (F, 16, h, w), normalised.
        member: says which decoder, and where it is.
        device: where to.
        dtype: number format of the decoder.

    Returns:
        (4F - 3, 8h, 8w, 3) uint8.

    Raises:
        FileNotFoundError: where the decoder is not on this machine.
    """
    step = decoder(member, device=device, dtype=dtype)
    parts = [step(part[None])[0].cpu().numpy() for part in latents.split(AT_ONCE)]
    return np.concatenate(parts)


def decoder(member: Member, *, device: torch.device | str, dtype: torch.dtype) -> Decoder:
    """Begin to decode, by the VAE or by the preview decoder where the member says so.

    Raises:
        FileNotFoundError: where it is not on this machine.
    """
    if member.decoder == "taehv":
        path = locate(member.preview, what=f"preview decoder weights of {member.name}")
        return _preview(path, str(device), dtype).decoder()
    path = locate(member.vae, what=f"VAE weights of {member.name}")
    return _vae(path, str(device), dtype).decoder()


@lru_cache(maxsize=1)
def _vae(path: Path, device: str, dtype: torch.dtype) -> WanVAE:
    from ff_bench.models.wan.vae import WanVAE

    return WanVAE.load(path, device, dtype)


@lru_cache(maxsize=1)
def _preview(path: Path, device: str, dtype: torch.dtype) -> TaeHV:
    from ff_bench.models.wan.preview import TaeHV

    return TaeHV.load(path, device, dtype)
