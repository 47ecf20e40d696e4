"""The procedural worlds of the embedded model: what a place and a sprite look like, and the exact picture of any moment.

64 x 64 RGB at 16 frames a second. A camera looks at a cyclic panorama of twelve sectors, each with a plot of ground and a
landmark; a sprite with a two-coloured, striped identity crosses the view. Motion comes from the prompt (`motion`),
appearance is drawn from a generator: it is what a model must remember.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ff_bench.models.mini.motion import SECTOR, VIEW, Motion
from ff_bench.models.mini.prompt import EVENTS, HUES, PALETTES, RING, SECTORS, SPRITES, MiniPrompt

VERSIONS = EVENTS + 1
SHARP = 2.2
"""Slope of an edge's alpha, per pixel."""
HIDDEN = -1
"""Index of a shape or hue that the prompt does not tell."""


@dataclass(frozen=True)
class Appearance:
    """The hidden look of a batch of worlds.

    Attributes:
        panorama: (B, 3, VIEW, VERSIONS * RING) in [-1, 1]; column = version * RING + ring column.
        shape: (B,) int64 index of `SPRITES`.
        first: (B, 3) main colour of the sprite in [0, 1].
        second: (B, 3) colour of its stripes.
        angle: (B,) direction of the stripes, radians.
        wavelength: (B,) of the stripes, pixels.
        phase: (B,) of the stripes, radians.
    """

    panorama: Tensor
    shape: Tensor
    first: Tensor
    second: Tensor
    angle: Tensor
    wavelength: Tensor
    phase: Tensor


def colour(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """HSV in [0, 1] (hue cyclic), any shape, to RGB with a last axis of 3."""
    steps = torch.stack([torch.remainder(hue * 6 + turn, 6) for turn in (5.0, 3.0, 1.0)], -1)
    return value[..., None] * (1 - saturation[..., None] * torch.minimum(steps, 4 - steps).clamp(0, 1))


def distance(shape: Tensor, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Signed distance (pixels, negative inside) to a disc, box, diamond or triangle, by index of `SPRITES`."""
    disc = torch.sqrt(x * x + y * y + 1e-6) - radius
    box = torch.maximum(x.abs(), y.abs()) - 0.86 * radius
    diamond = (x.abs() + y.abs()) * 0.74 - 0.86 * radius
    triangle = torch.maximum(x.abs() * 0.88 + y * 0.48, -y) - 0.56 * radius
    return torch.stack(torch.broadcast_tensors(disc, box, diamond, triangle)).gather(
        0, shape.expand(torch.broadcast_shapes(disc.shape, shape.shape))[None]
    )[0]


def draw_appearance(prompts: Sequence[MiniPrompt], generator: torch.Generator) -> Appearance:
    """Draw what the prompts leave open, on the generator's device."""
    device = generator.device
    batch = len(prompts)

    def uniform(*size: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(batch, *size, generator=generator, device=device)

    palettes = torch.tensor([[p.palette_of(v) for v in range(VERSIONS)] for p in prompts], device=device)
    scenes = torch.tensor([p.world == "cut" for p in prompts], device=device)
    shape = torch.tensor([HIDDEN if p.sprite is None else SPRITES.index(p.sprite) for p in prompts], device=device)
    hue = torch.tensor([HIDDEN if p.hue is None else HUES.index(p.hue) for p in prompts], device=device)
    shape = torch.where(shape == HIDDEN, uniform(high=len(SPRITES)).long(), shape)
    hue = torch.where(hue == HIDDEN, uniform(high=len(HUES)).long(), hue)
    main = (hue + uniform(low=-0.35, high=0.35)) / len(HUES)
    return Appearance(
        panorama=_panorama(palettes, scenes, generator),
        shape=shape,
        first=colour(main, uniform(low=0.65), uniform(low=0.65)),
        second=colour(main + uniform(low=0.2, high=0.8), uniform(low=0.2), uniform(low=0.25)),
        angle=uniform(high=math.pi),
        wavelength=uniform(low=8.0, high=12.0),
        phase=uniform(high=2 * math.pi),
    )


def _panorama(palettes: Tensor, scenes: Tensor, generator: torch.Generator) -> Tensor:
    """Paint every version of every place. palettes (B, V), scenes (B,) bool: does the whole scene change with the version?"""
    device, batch = palettes.device, len(palettes)
    keep = scenes[:, None] | (torch.arange(VERSIONS, device=device) == 0)

    def uniform(*size: int, shared: bool = False) -> Tensor:
        value = torch.rand(batch, VERSIONS, *size, generator=generator, device=device)
        if not shared:
            return value
        mask = keep.view(batch, VERSIONS, *(1 for _ in size))
        return torch.where(mask, value, value[:, :1])

    backdrop, ground_line = _backdrop(palettes, uniform)
    tiles = _sectors(palettes, ground_line, uniform, backdrop)
    return tiles.permute(0, 2, 3, 1, 4).reshape(batch, 3, VIEW, VERSIONS * RING) * 2 - 1


def _waves(uniform, modes: tuple[int, ...], *size: int) -> Tensor:
    """Smooth random curves over the ring, about unit amplitude: (B, V, *size, RING)."""
    turn = torch.tensor(modes, dtype=torch.float32)
    weight, phase = uniform(*size, len(modes), shared=True) - 0.5, uniform(*size, len(modes), shared=True)
    turn = turn.to(weight.device)
    ring = torch.arange(RING, device=weight.device) / RING
    waves = torch.cos(2 * math.pi * (turn[:, None] * ring + phase[..., None]))
    return (2 * weight[..., None] * waves / turn.sqrt()[:, None]).sum(-2)


def _backdrop(palettes: Tensor, uniform) -> tuple[Tensor, Tensor]:
    """Sky and far hills (B, V, 3, VIEW, RING) in [0, 1], and the height of the ground line (B, V, RING)."""
    device = palettes.device
    rows = torch.arange(VIEW, device=device).float()
    sky_hue = palettes / PALETTES + 0.05 * (uniform(shared=True) - 0.5)
    top = colour(sky_hue, 0.45 + 0.3 * uniform(shared=True), 0.6 + 0.3 * uniform(shared=True))
    low = colour(sky_hue + 0.08, 0.1 + 0.2 * uniform(shared=True), 0.9 + 0.1 * uniform(shared=True))
    mix = (rows / 46).clamp(0, 1)[:, None]
    tint = 0.09 * _waves(uniform, (1, 2, 3), 3)
    sky = top[..., None, None] * (1 - mix) + low[..., None, None] * mix + tint[..., None, :]
    ridge = 27 + 6 * _waves(uniform, (1, 2, 3, 5, 8))
    hill = colour(sky_hue + 0.45 + 0.2 * uniform(shared=True), 0.2 + 0.3 * uniform(shared=True), 0.35 + 0.3 * uniform(shared=True))
    inside = torch.sigmoid((rows[:, None] - ridge[..., None, :]) * SHARP)[:, :, None]
    ground_line = 43 + 3 * _waves(uniform, (1, 2, 3))
    return sky * (1 - inside) + hill[..., None, None] * inside, ground_line


def _sectors(palettes: Tensor, ground_line: Tensor, uniform, backdrop: Tensor) -> Tensor:
    """Paint plots and landmarks over the backdrop: (B, V, 3, VIEW, RING)."""
    device, batch = palettes.device, len(palettes)
    sky = backdrop.unflatten(-1, (SECTORS, SECTOR)).transpose(-2, -3).movedim(-3, 2)  # (B, V, S, 3, VIEW, SECTOR)
    line = ground_line.unflatten(-1, (SECTORS, SECTOR))[..., None, :]  # (B, V, S, 1, SECTOR)
    y = torch.arange(VIEW, device=device).float()[:, None]
    x = torch.arange(SECTOR, device=device).float()

    def one(low: float = 0.0, high: float = 1.0) -> Tensor:
        return (low + (high - low) * uniform(SECTORS))[..., None, None]

    def paint(low: float, high: float, hue: Tensor) -> Tensor:
        return colour(hue, uniform(SECTORS) * 0.4 + 0.5, low + (high - low) * uniform(SECTORS))[..., None, None]

    plot_hue = palettes[..., None] / PALETTES + 0.3 + 0.3 * uniform(SECTORS)
    furrow = torch.cos(2 * math.pi * ((x + one(-0.8, 0.8) * y) / one(6.0, 10.0) + one()))
    plot = paint(0.3, 0.75, plot_hue) + (one(0.0, 0.11) * furrow)[..., None, :, :]
    ground = torch.sigmoid((y - line) * SHARP)[..., None, :, :]
    tile = sky * (1 - ground) + plot * ground
    middle, foot = one(13.0, 19.0), line[..., SECTOR // 2 :][..., :1] + one(3.0, 9.0)
    tile = _landmark(tile, x - middle, y - foot, one, paint, uniform)
    return tile.clamp(0, 1).movedim(2, 4).reshape(batch, VERSIONS, 3, VIEW, RING)


def _landmark(tile: Tensor, x: Tensor, y: Tensor, one, paint, uniform) -> Tensor:
    """A house, a tree, a tower or a crystal standing on its foot; x, y relative to the foot (B, V, S, VIEW, SECTOR)."""
    kind = one(0, 4.4).long().clamp(max=4)  # 4: nothing
    half, tall = one(6.0, 10.0), one(10.0, 19.0)

    def block(width: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
        return torch.maximum(x.abs() - width, torch.maximum(-y - high, y + low))

    roof = torch.maximum((x.abs() * 0.8 + (-y - tall) * 0.6) - half * 0.85, -(-y - tall))
    crown = torch.sqrt(x * x + (y + tall + 3) ** 2 + 1e-6) - half * 1.05
    dome = torch.sqrt(x * x + (y + tall + 6) ** 2 + 1e-6) - half * 0.62
    gem = (x.abs() * 1.25 + (y + tall * 0.7).abs() * 0.8) - tall * 0.62
    nothing = torch.full_like(gem, 99.0)
    body = _choose(kind, block(half, 0.0, tall), block(half * 0.28, 0.0, tall), block(half * 0.45, 0.0, tall + 6), gem, nothing)
    cap = _choose(kind, roof, crown, dome, gem + 3.2, nothing)
    spot = _choose(kind, block(half * 0.3, 0.0, tall * 0.5), nothing, block(half * 0.18, tall - 3, tall + 2), nothing, nothing)
    hue = uniform(SECTORS)
    tile = _over(tile, body, paint(0.45, 1.0, hue))
    tile = _over(tile, cap, paint(0.4, 1.0, hue + 0.25 + 0.5 * uniform(SECTORS)))
    return _over(tile, spot, paint(0.15, 0.4, hue + 0.1))


def _choose(kind: Tensor, *options: Tensor) -> Tensor:
    stack = torch.stack(torch.broadcast_tensors(*options))
    return stack.gather(0, kind.expand(stack.shape[1:])[None])[0]


def _over(picture: Tensor, signed: Tensor, paint: Tensor) -> Tensor:
    """Lay a shape with a dark outline over a picture (..., 3, h, w); `signed` distance (..., h, w), paint (..., 3, 1, 1)."""
    cover = torch.sigmoid(-signed * SHARP)[..., None, :, :]
    inner = torch.sigmoid(-(signed + 1.4) * SHARP)[..., None, :, :]
    return picture * (1 - cover) + paint * (0.3 + 0.7 * inner) * cover


def render(motion: Motion, look: Appearance, times: Tensor) -> tuple[Tensor, Tensor]:
    """Draw the exact picture.

    Args:
        motion: of B prompts.
        look: of the same prompts.
        times: (B, T) pixel frames.

    Returns:
        video (B, T, 3, VIEW, VIEW) in [-1, 1] and the sprite's alpha (B, T, VIEW, VIEW) in [0, 1].
    """
    places = motion.places(times)
    batch, count, _ = places.shape
    index = places.flatten(1)[:, None, None].expand(batch, 3, VIEW, count * VIEW)
    view = torch.gather(look.panorama, 3, index).view(batch, 3, VIEW, count, VIEW).permute(0, 3, 1, 2, 4)
    signed, across = _sprite_field(motion, look, times)
    wide = (slice(None), None, None, None)
    stripe = torch.sigmoid(4.5 * torch.cos(2 * math.pi * across / look.wavelength[wide] + look.phase[wide]))[:, :, None]
    skin = look.first[:, None, :, None, None] * stripe + look.second[:, None, :, None, None] * (1 - stripe)
    alpha = torch.sigmoid(-signed * SHARP)
    inner = torch.sigmoid(-(signed + 1.8) * SHARP)[:, :, None]
    return view * (1 - alpha[:, :, None]) + (skin * inner * 2 - 1) * alpha[:, :, None], alpha


def _sprite_field(motion: Motion, look: Appearance, times: Tensor) -> tuple[Tensor, Tensor]:
    """Signed distance to the sprite and the coordinate across its stripes, both (B, T, VIEW, VIEW)."""
    pixels = torch.arange(VIEW, device=times.device).float()
    x, y = motion.sprite(times)
    right, below = pixels - x[..., None, None], pixels[:, None] - y[..., None, None]
    wide = (slice(None), None, None, None)
    radius = motion.numbers["sprite_radius"].float()[..., None, None]
    signed = distance(look.shape[wide], right, below, radius)
    return signed, right * torch.cos(look.angle[wide]) + below * torch.sin(look.angle[wide])


def truth_seed(prompt: MiniPrompt, seed: int) -> int:
    """The seed of the appearance of (prompt, seed): 63 bits of a sha256, the same on every machine."""
    digest = hashlib.sha256(f"appearance\0{prompt.text}\0{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def truth(prompt: MiniPrompt, seed: int, frames: int) -> tuple[Tensor, Tensor]:
    """The exact video of a prompt and a seed.

    Returns:
        frames (T, VIEW, VIEW, 3) uint8 and the sprite's alpha (T, VIEW, VIEW) float32.
    """
    look = draw_appearance([prompt], torch.Generator().manual_seed(truth_seed(prompt, seed)))
    video, alpha = render(Motion.of([prompt]), look, torch.arange(frames)[None])
    return ((video[0] + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous(), alpha[0]


def places(prompt: MiniPrompt, frames: int) -> Tensor:
    """What each screen column shows in the first `frames` pixel frames: (T, VIEW) int64, version x RING + ring column."""
    return Motion.of([prompt]).places(torch.arange(frames)[None])[0]


def sprite_alpha(prompt: MiniPrompt, frames: int) -> Tensor:
    """Upper bound of the sprite's cover in the first `frames` pixel frames: (T, VIEW, VIEW) float32 in [0, 1].

    The shape of a sprite that the prompt does not tell is taken as the box around it.
    """
    motion = Motion.of([prompt])
    times = torch.arange(frames)[None]
    pixels = torch.arange(VIEW).float()
    x, y = motion.sprite(times)
    right, below = pixels - x[..., None, None], pixels[:, None] - y[..., None, None]
    radius = motion.numbers["sprite_radius"].float()[..., None, None]
    if prompt.sprite is None:
        signed = torch.maximum(right.abs(), below.abs()) - radius
    else:
        signed = distance(torch.tensor(SPRITES.index(prompt.sprite)), right, below, radius)
    return torch.sigmoid(-signed * SHARP)[0]


def sprite_path(prompt: MiniPrompt, frames: int) -> tuple[Tensor, Tensor]:
    """Sprite centre in view pixels in the first `frames` pixel frames: x (T,), y (T,) float32."""
    x, y = Motion.of([prompt]).sprite(torch.arange(frames)[None])
    return x[0], y[0]
