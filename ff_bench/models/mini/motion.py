"""Where the camera looks, where the sprite is, which version each place has: what a prompt fixes of a world.

Times are pixel frames, counted from 0. Camera columns are whole pixels, so that a place seen twice is seen at
exactly the same panorama columns. Positions are computed in float64, so that every device gives the same
columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ff_bench.models.mini.prompt import EVENTS, FRAMES_PER_LATENT, RING, SECTORS, MiniPrompt

VIEW = 64
"""Width and height of the view, in pixels."""
PATCH = 8
"""Side of a token, in pixels."""
GRID = VIEW // PATCH
SECTOR = RING // SECTORS
AWAY = 90.0
"""How far beside its path the sprite is between two visits, in pixels."""
RAMP = 10.0
"""Frames that the sprite takes to enter or leave at a visit."""
HARMONICS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
FEATURES = 2 * len(HARMONICS) + FRAMES_PER_LATENT + (EVENTS + 1) + 3 * FRAMES_PER_LATENT


@dataclass(frozen=True)
class Motion:
    """The motion of a batch of prompts.

    Attributes:
        numbers: name of a field of `MotionParameters` -> (B, 1) float64.
        sectors: (B, EVENTS, SECTORS) bool, which sectors an event repaints.
    """

    numbers: dict[str, Tensor]
    sectors: Tensor

    @classmethod
    def of(cls, prompts: Sequence[MiniPrompt], device: torch.device | str = "cpu") -> Motion:
        """Collect the motions of `prompts` on `device`."""
        each = [prompt.motion() for prompt in prompts]
        names = [field.name for field in fields(each[0]) if field.name != "event_sectors"]
        table = torch.tensor(
            [[getattr(one, name) for name in names] for one in each], dtype=torch.float64
        ).to(device)
        sectors = torch.tensor([one.event_sectors for one in each], dtype=torch.bool).to(device)
        return cls({name: table[:, index : index + 1] for index, name in enumerate(names)}, sectors)

    def camera(self, times: Tensor) -> Tensor:
        """Return the ring column at the left edge of the view: times (B, T) -> (B, T) int64 in [0, RING)."""
        n, t = self.numbers, times.double()
        column = n["start"] + n["velocity"] * t
        column = column + n["swing"] * torch.sin(2 * math.pi * t / n["swing_period"] + n["swing_phase"])
        column = column + n["wobble"] * torch.sin(2 * math.pi * t / n["wobble_period"] + n["wobble_phase"])
        return torch.remainder(torch.round(column).long(), RING)

    def sprite(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sprite's centre in view pixels, far outside when it is away.

        Args:
            times: (B, T).

        Returns:
            x (B, T) and y (B, T), float32.
        """
        n, t = self.numbers, times.double()
        x = (VIEW - 1) / 2 + n["sprite_reach_x"] * torch.sin(
            2 * math.pi * t / n["sprite_period_x"] + n["sprite_phase_x"]
        )
        y = (VIEW - 1) / 2 + n["sprite_reach_y"] * torch.sin(
            2 * math.pi * t / n["sprite_period_y"] + n["sprite_phase_y"]
        )
        phase = torch.remainder(t - n["visit_start"], n["visit_period"])
        inside = torch.minimum(phase, n["visit_length"] - phase).div(RAMP).clamp(0, 1)
        inside = inside * (t >= n["visit_start"])
        away = 1 - inside * inside * (3 - 2 * inside)
        return (x + AWAY * away).float(), y.float()

    def versions(self, times: Tensor) -> Tensor:
        """Return the version of each sector: times (B, T) -> (B, T, SECTORS) int64 in [0, EVENTS]."""
        n, t = self.numbers, times.double()
        event = torch.arange(EVENTS, device=times.device)
        begun = t[..., None] >= (n["event_start"] + event * n["event_gap"])[:, None]  # (B, T, EVENTS)
        return (begun[..., None] & self.sectors[:, None]).sum(2)

    def places(self, times: Tensor) -> Tensor:
        """Return what each screen column shows.

        Args:
            times: (B, T).

        Returns:
            (B, T, VIEW) int64, version x RING + panorama column.
        """
        columns = torch.remainder(
            self.camera(times)[..., None] + torch.arange(VIEW, device=times.device), RING
        )
        return torch.gather(self.versions(times), 2, columns // SECTOR) * RING + columns


def token_features(motion: Motion, latent_frames: Tensor) -> Tensor:
    """What a prompt tells each token about where it looks.

    Ring coordinate (harmonics), camera movement within the latent frame, version of the place in view, and
    position relative to the sprite in each of its pixel frames.

    Args:
        motion: of B prompts.
        latent_frames: (B, F) latent frame numbers.

    Returns:
        (B, F * GRID * GRID, FEATURES) float32; tokens ordered by frame, row, column.
    """
    batch, count = latent_frames.shape
    device = latent_frames.device
    times = latent_frames[..., None] * FRAMES_PER_LATENT + torch.arange(FRAMES_PER_LATENT, device=device)
    flat = times.flatten(1)
    centres = torch.arange(GRID, device=device) * PATCH + (PATCH - 1) / 2
    camera = motion.camera(flat).view(batch, count, FRAMES_PER_LATENT)
    x, y = (side.view(batch, count, 1, 1, FRAMES_PER_LATENT) for side in motion.sprite(flat))
    right, below = centres[:, None] - x, centres[:, None, None] - y
    parts = (
        *_view_features(camera, centres),
        _version_shares(motion.places(flat), count),
        torch.tanh(right / 16),
        torch.tanh(below / 16),
        torch.exp(-(right * right + below * below) / 200),
    )
    told = torch.cat([part.expand(batch, count, GRID, GRID, -1) for part in parts], -1)
    return told.reshape(batch, count * GRID * GRID, FEATURES)


def _view_features(camera: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return harmonics of the ring coordinate (B, F, 1, GRID, 22) and movement (B, F, 1, 1, 4)."""
    moved = torch.remainder(camera - camera[..., :1] + RING // 2, RING) - RING // 2
    middle = camera[..., 0] + moved.float().mean(-1)
    rates = torch.tensor(HARMONICS, device=camera.device)
    angle = 2 * math.pi / RING * (middle[..., None] + centres)[..., None] * rates
    ring = torch.cat([angle.sin(), angle.cos()], -1)
    pace = (moved - moved.float().mean(-1, keepdim=True)) / PATCH
    return ring[:, :, None], pace[:, :, None, None]


def _version_shares(places: Tensor, count: int) -> Tensor:
    """Return the share of each version in a token: places (B, 4 F, VIEW) -> (B, F, 1, GRID, EVENTS + 1)."""
    version = places.div(RING, rounding_mode="floor").view(-1, count, FRAMES_PER_LATENT, GRID, PATCH)
    shares = torch.nn.functional.one_hot(version, EVENTS + 1).float().mean((2, 4))
    return shares[:, :, None]
