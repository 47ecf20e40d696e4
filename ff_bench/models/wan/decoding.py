"""Loads the decoders of a member, and decodes recorded latents again without the transformer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
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


def decode(
    latents: Tensor, member: Member, *, device: torch.device | str, dtype: torch.dtype
) -> Iterator[np.ndarray]:
    """Decode the latents of one video from its beginning, piece by piece.

    Args:
        latents: (F, 16, h, w), normalised.
        member: says which decoder, and where it is.
        device: where to.
        dtype: number format of the decoder.

    Yields:
        (n, 8h, 8w, 3) uint8, 4F - 3 frames in all.

    Raises:
        FileNotFoundError: where the decoder is not on this machine.
    """
    step = decoder(member, device=device, dtype=dtype)
    for part in latents.split(AT_ONCE):
        yield step(part[None])[0].cpu().numpy()


def decoder(member: Member, *, device: torch.device | str, dtype: torch.dtype) -> Decoder:
    """Begin to decode, by the VAE or by the preview decoder where the member says so.

    Raises:
        FileNotFoundError: where it is not on this machine.
    """
    return _loaded(member, str(device), dtype).decoder()


@lru_cache(maxsize=1)
def _loaded(member: Member, device: str, dtype: torch.dtype) -> WanVAE | TaeHV:
    load = load_preview if member.decoder == "taehv" else load_vae
    return load(member, device=device, dtype=dtype)


def load_vae(member: Member, *, device: torch.device | str, dtype: torch.dtype) -> WanVAE:
    """Load the VAE of a member.

    Raises:
        FileNotFoundError: where it is not on this machine.
    """
    from ff_bench.models.wan.vae import WanVAE

    return WanVAE.load(locate(member.vae, what=f"VAE weights of {member.name}"), device, dtype)


def load_preview(member: Member, *, device: torch.device | str, dtype: torch.dtype) -> TaeHV:
    """Load the preview decoder of a member.

    Raises:
        FileNotFoundError: where it is not on this machine.
    """
    from ff_bench.models.wan.preview import TaeHV

    path = locate(member.preview, what=f"preview decoder weights of {member.name}")
    return TaeHV.load(path, device, dtype)
