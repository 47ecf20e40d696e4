"""How the panorama of a world is painted: sky, hills, plots of ground and landmarks, every version of each.

Shapes are signed distances in pixels, negative inside; an edge is a sigmoid of the distance. Every draw comes
from the generator that is handed in, in a fixed order, so that one seed gives one picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ff_bench.models.mini.motion import SECTOR, VIEW
from ff_bench.models.mini.prompt import EVENTS, PALETTES, RING, SECTORS

VERSIONS = EVENTS + 1
SHARP = 2.2
"""Slope of an edge's alpha, per pixel."""


@dataclass(frozen=True)
class _Draws:
    """Draws for B panoramas in VERSIONS versions each.

    Attributes:
        generator: where all draws come from.
        own: (B, VERSIONS) bool, True where a version has a scene of its own; elsewhere it shares version 0's.
    """

    generator: torch.Generator
    own: Tensor

    def uniform(self, *size: int) -> Tensor:
        """Draw (B, VERSIONS, *size) in [0, 1], for every version anew."""
        return torch.rand(*self.own.shape, *size, generator=self.generator, device=self.generator.device)

    def scene(self, *size: int) -> Tensor:
        """Draw (B, VERSIONS, *size) in [0, 1] for what belongs to the whole scene."""
        value = self.uniform(*size)
        return torch.where(self.own.view(*self.own.shape, *(1 for _ in size)), value, value[:, :1])

    def sectors(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw one number in [low, high] per sector, (B, VERSIONS, SECTORS, 1, 1)."""
        return (low + (high - low) * self.uniform(SECTORS))[..., None, None]

    def paint(self, hue: Tensor, low: float, high: float) -> Tensor:
        """Draw a colour of brightness low to high per sector, (B, VERSIONS, SECTORS, 3, 1, 1)."""
        saturation = self.uniform(SECTORS) * 0.4 + 0.5
        return colour(hue, saturation, low + (high - low) * self.uniform(SECTORS))[..., None, None]


def colour(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """HSV in [0, 1] (hue cyclic), any shape, to RGB with a last axis of 3."""
    steps = torch.stack([torch.remainder(hue * 6 + turn, 6) for turn in (5.0, 3.0, 1.0)], -1)
    return value[..., None] * (1 - saturation[..., None] * torch.minimum(steps, 4 - steps).clamp(0, 1))


def distance(shape: Tensor, x: Tensor, y: Tensor, *, radius: Tensor) -> Tensor:
    """Return the signed distance to a sprite's outline, in pixels, negative inside.

    Args:
        shape: int64 index of `SPRITES`: disc, box, diamond, triangle.
        x: pixels to the right of the centre.
        y: pixels below the centre.
        radius: of the sprite, pixels; all four broadcast.
    """
    disc = torch.sqrt(x * x + y * y + 1e-6) - radius
    box = torch.maximum(x.abs(), y.abs()) - 0.86 * radius
    diamond = (x.abs() + y.abs()) * 0.74 - 0.86 * radius
    triangle = torch.maximum(x.abs() * 0.88 + y * 0.48, -y) - 0.56 * radius
    return _choose(shape, disc, box, diamond, triangle)


def paint_panorama(palettes: Tensor, scenes: Tensor, generator: torch.Generator) -> Tensor:
    """Paint every version of every place.

    Args:
        palettes: (B, VERSIONS) int64, colour family of each version.
        scenes: (B,) bool, whether the whole scene changes with the version.
        generator: on the device of both.

    Returns:
        (B, 3, VIEW, VERSIONS * RING) in [-1, 1].
    """
    own = scenes[:, None] | (torch.arange(VERSIONS, device=palettes.device) == 0)
    draws = _Draws(generator, own)
    backdrop, ground_line = _backdrop(palettes, draws)
    tiles = _sectors(palettes, backdrop, ground_line, draws=draws)
    return tiles.permute(0, 2, 3, 1, 4).reshape(len(palettes), 3, VIEW, VERSIONS * RING) * 2 - 1


def _waves(draws: _Draws, modes: tuple[int, ...], *size: int) -> Tensor:
    """Draw smooth curves over the ring, about unit amplitude: (B, V, *size, RING)."""
    weight, phase = draws.scene(*size, len(modes)) - 0.5, draws.scene(*size, len(modes))
    turn = torch.tensor(modes, dtype=torch.float32).to(weight.device)
    ring = torch.arange(RING, device=weight.device) / RING
    waves = torch.cos(2 * math.pi * (turn[:, None] * ring + phase[..., None]))
    return (2 * weight[..., None] * waves / turn.sqrt()[:, None]).sum(-2)


def _backdrop(palettes: Tensor, draws: _Draws) -> tuple[Tensor, Tensor]:
    """Paint sky and far hills (B, V, 3, VIEW, RING); return also the ground line's height (B, V, RING)."""
    scene = draws.scene
    rows = torch.arange(VIEW, device=palettes.device).float()
    sky_hue = palettes / PALETTES + 0.05 * (scene() - 0.5)
    top = colour(sky_hue, 0.45 + 0.3 * scene(), 0.6 + 0.3 * scene())
    low = colour(sky_hue + 0.08, 0.1 + 0.2 * scene(), 0.9 + 0.1 * scene())
    mix = (rows / 46).clamp(0, 1)[:, None]
    tint = 0.09 * _waves(draws, (1, 2, 3), 3)
    sky = top[..., None, None] * (1 - mix) + low[..., None, None] * mix + tint[..., None, :]
    ridge = 27 + 6 * _waves(draws, (1, 2, 3, 5, 8))
    hill = colour(sky_hue + 0.45 + 0.2 * scene(), 0.2 + 0.3 * scene(), 0.35 + 0.3 * scene())
    inside = torch.sigmoid((rows[:, None] - ridge[..., None, :]) * SHARP)[:, :, None]
    ground_line = 43 + 3 * _waves(draws, (1, 2, 3))
    return sky * (1 - inside) + hill[..., None, None] * inside, ground_line


def _sectors(palettes: Tensor, backdrop: Tensor, ground_line: Tensor, *, draws: _Draws) -> Tensor:
    """Paint plots and landmarks over the backdrop: (B, V, 3, VIEW, RING)."""
    device, one = palettes.device, draws.sectors
    parted = backdrop.unflatten(-1, (SECTORS, SECTOR))
    sky = parted.transpose(-2, -3).movedim(-3, 2)  # (B, V, S, 3, VIEW, SECTOR)
    line = ground_line.unflatten(-1, (SECTORS, SECTOR))[..., None, :]  # (B, V, S, 1, SECTOR)
    y = torch.arange(VIEW, device=device).float()[:, None]
    x = torch.arange(SECTOR, device=device).float()
    plot_hue = palettes[..., None] / PALETTES + 0.3 + 0.3 * draws.uniform(SECTORS)
    furrow = torch.cos(2 * math.pi * ((x + one(-0.8, 0.8) * y) / one(6.0, 10.0) + one()))
    plot = draws.paint(plot_hue, 0.3, 0.75) + (one(0.0, 0.11) * furrow)[..., None, :, :]
    ground = torch.sigmoid((y - line) * SHARP)[..., None, :, :]
    tile = sky * (1 - ground) + plot * ground
    middle, foot = one(13.0, 19.0), line[..., SECTOR // 2 :][..., :1] + one(3.0, 9.0)
    tile = _landmark(tile, x - middle, y - foot, draws=draws)
    return tile.clamp(0, 1).movedim(2, 4).reshape(len(palettes), VERSIONS, 3, VIEW, RING)


def _landmark(tile: Tensor, x: Tensor, y: Tensor, *, draws: _Draws) -> Tensor:
    """Paint a house, a tree, a tower, a crystal or nothing; x, y from its foot, (B, V, S, VIEW, SECTOR)."""
    one = draws.sectors
    kind = one(0, 4.4).long().clamp(max=4)  # 4: nothing
    half, tall = one(6.0, 10.0), one(10.0, 19.0)
    roof = torch.maximum((x.abs() * 0.8 + (-y - tall) * 0.6) - half * 0.85, -(-y - tall))
    crown = torch.sqrt(x * x + (y + tall + 3) ** 2 + 1e-6) - half * 1.05
    dome = torch.sqrt(x * x + (y + tall + 6) ** 2 + 1e-6) - half * 0.62
    gem = (x.abs() * 1.25 + (y + tall * 0.7).abs() * 0.8) - tall * 0.62
    nothing = torch.full_like(gem, 99.0)
    house, trunk = _block(x, y, half, high=tall), _block(x, y, half * 0.28, high=tall)
    tower = _block(x, y, half * 0.45, high=tall + 6)
    door = _block(x, y, half * 0.3, high=tall * 0.5)
    window = _block(x, y, half * 0.18, low=tall - 3, high=tall + 2)
    hue = draws.uniform(SECTORS)
    tile = _over(tile, _choose(kind, house, trunk, tower, gem, nothing), draws.paint(hue, 0.45, 1.0))
    cap_hue = hue + 0.25 + 0.5 * draws.uniform(SECTORS)
    tile = _over(tile, _choose(kind, roof, crown, dome, gem + 3.2, nothing), draws.paint(cap_hue, 0.4, 1.0))
    spot = _choose(kind, door, nothing, window, nothing, nothing)
    return _over(tile, spot, draws.paint(hue + 0.1, 0.15, 0.4))


def _block(x: Tensor, y: Tensor, width: Tensor, *, high: Tensor, low: Tensor | float = 0.0) -> Tensor:
    """Signed distance to an upright block from `low` to `high` above the foot, `width` to either side."""
    return torch.maximum(x.abs() - width, torch.maximum(-y - high, y + low))


def _choose(kind: Tensor, *options: Tensor) -> Tensor:
    """Take option number `kind` at every point; all broadcast."""
    stack = torch.stack(torch.broadcast_tensors(*options))
    whole = torch.broadcast_shapes(stack.shape[1:], kind.shape)
    return stack.expand(-1, *whole).gather(0, kind.expand(whole)[None])[0]


def _over(picture: Tensor, signed: Tensor, paint: Tensor) -> Tensor:
    """Lay an outlined shape, signed (..., h, w), over a picture (..., 3, h, w); paint (..., 3, 1, 1)."""
    cover = torch.sigmoid(-signed * SHARP)[..., None, :, :]
    inner = torch.sigmoid(-(signed + 1.4) * SHARP)[..., None, :, :]
    return picture * (1 - cover) + paint * (0.3 + 0.7 * inner) * cover
