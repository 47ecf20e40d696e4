"""Which cells of the panorama a token of `mini` shows: coverage, known from the prompt alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ff_bench.models.mini.motion import GRID, PATCH
from ff_bench.models.mini.prompt import FRAMES_PER_LATENT, MiniPrompt
from ff_bench.models.mini.world import places


@dataclass(frozen=True)
class Cells:
    """Cells of the world, one patch wide and high, each version of a place its own.

    Attributes:
        of_token: (T,) int64, the cell in the middle of each token.
        count: how many cells there are.
        last_seen: (cells,) int64, the last token that shows each.
    """

    of_token: Tensor
    count: int
    last_seen: Tensor


def cells_of(prompt: str, latent_frames: int, device: str) -> Cells:
    """Return the cells of a `mini` video.

    Args:
        prompt: its text.
        latent_frames: length.
        device: where the result stands.
    """
    shown = places(MiniPrompt.parse(prompt), latent_frames * FRAMES_PER_LATENT)  # (frames, VIEW)
    middle = shown[FRAMES_PER_LATENT // 2 :: FRAMES_PER_LATENT, PATCH // 2 :: PATCH] // PATCH  # (F, GRID)
    by_row = middle[:, None, :] * GRID + torch.arange(GRID)[:, None]  # (F, rows, columns)
    _, numbered = by_row.flatten().unique(return_inverse=True)
    count = int(numbered.max()) + 1
    last = torch.zeros(count, dtype=torch.int64).scatter_reduce_(
        0, numbered, torch.arange(len(numbered)), "amax"
    )
    return Cells(numbered.to(device), count, last.to(device))


def coverage(kept: Tensor, cells: Cells) -> tuple[Tensor, Tensor]:
    """Return the share of the cells seen so far that are held, and the same of those that are shown again.

    Args:
        kept: which of the tokens so far are held, (L, H, S) bool.
        cells: of the video.

    Returns:
        Two of (L, H) fp32; the second is NaN where nothing is shown again.
    """
    slots = kept.shape[-1]
    index = cells.of_token[:slots].expand(kept.shape)
    held = torch.zeros((*kept.shape[:2], cells.count), device=kept.device)
    held.scatter_reduce_(2, index, kept.float(), "amax")
    seen = torch.zeros(cells.count, device=kept.device)
    seen[cells.of_token[:slots]] = 1
    again = seen * (cells.last_seen >= slots)
    return held.sum(-1) / seen.sum(), (held * again).sum(-1) / again.sum()
