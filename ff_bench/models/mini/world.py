"""The procedural worlds of the embedded model: how they look, and the exact picture of any moment.

64 x 64 RGB at 16 frames a second. A camera looks at a cyclic panorama of twelve sectors, each with a plot of
ground and a landmark (`painting`); a sprite with a two-coloured, striped identity crosses the view. Motion
comes from the prompt (`motion`), appearance is drawn from a generator: it is what a model must remember.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ff_bench.models.mini.motion import VIEW, Motion
from ff_bench.models.mini.painting import SHARP, VERSIONS, colour, distance, paint_panorama
from ff_bench.models.mini.prompt import HUES, SPRITES, MiniPrompt

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


def draw_appearance(prompts: Sequence[MiniPrompt], generator: torch.Generator) -> Appearance:
    """Draw what the prompts leave open.

    Args:
        prompts: B prompts; the draws of one depend on its batch (`truth` draws each alone).
        generator: its device is that of the result.
    """
    device = generator.device
    batch = len(prompts)

    def uniform(*size: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(batch, *size, generator=generator, device=device)

    palettes = torch.tensor([[p.palette_of(v) for v in range(VERSIONS)] for p in prompts], device=device)
    scenes = torch.tensor([p.world == "cut" for p in prompts], device=device)
    shape = torch.tensor(
        [HIDDEN if p.sprite is None else SPRITES.index(p.sprite) for p in prompts], device=device
    )
    hue = torch.tensor([HIDDEN if p.hue is None else HUES.index(p.hue) for p in prompts], device=device)
    shape = torch.where(shape == HIDDEN, uniform(high=len(SPRITES)).long(), shape)
    hue = torch.where(hue == HIDDEN, uniform(high=len(HUES)).long(), hue)
    main = (hue + uniform(low=-0.35, high=0.35)) / len(HUES)
    return Appearance(
        panorama=paint_panorama(palettes, scenes, generator),
        shape=shape,
        first=colour(main, uniform(low=0.65), uniform(low=0.65)),
        second=colour(main + uniform(low=0.2, high=0.8), uniform(low=0.2), uniform(low=0.25)),
        angle=uniform(high=math.pi),
        wavelength=uniform(low=8.0, high=12.0),
        phase=uniform(high=2 * math.pi),
    )


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
    stripe = torch.sigmoid(4.5 * torch.cos(2 * math.pi * across / look.wavelength[wide] + look.phase[wide]))[
        :, :, None
    ]
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
    signed = distance(look.shape[wide], right, below, radius=radius)
    return signed, right * torch.cos(look.angle[wide]) + below * torch.sin(look.angle[wide])


def truth_seed(prompt: MiniPrompt, seed: int) -> int:
    """Return the seed of the appearance of (prompt, seed): 63 bits of a sha256, alike on every machine."""
    digest = hashlib.sha256(f"appearance\0{prompt.text}\0{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def truth(prompt: MiniPrompt, seed: int, frames: int) -> tuple[Tensor, Tensor]:
    """Return the exact video of a prompt and a seed.

    Returns:
        frames (T, VIEW, VIEW, 3) uint8 and the sprite's alpha (T, VIEW, VIEW) float32.
    """
    look = draw_appearance([prompt], torch.Generator().manual_seed(truth_seed(prompt, seed)))
    video, alpha = render(Motion.of([prompt]), look, torch.arange(frames)[None])
    return ((video[0] + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous(), alpha[0]


def places(prompt: MiniPrompt, frames: int) -> Tensor:
    """Return what each screen column shows, frame by frame: (T, VIEW) int64, version x RING + ring column."""
    return Motion.of([prompt]).places(torch.arange(frames)[None])[0]


def sprite_alpha(prompt: MiniPrompt, frames: int) -> Tensor:
    """Return an upper bound of the sprite's cover, frame by frame: (T, VIEW, VIEW) float32 in [0, 1].

    The shape of a sprite that the prompt does not tell is taken as a box around every shape; the tips of a
    triangle reach out of it by an alpha of less than 0.1.
    """
    motion = Motion.of([prompt])
    times = torch.arange(frames)[None]
    pixels = torch.arange(VIEW).float()
    x, y = motion.sprite(times)
    right, below = pixels - x[..., None, None], pixels[:, None] - y[..., None, None]
    radius = motion.numbers["sprite_radius"].float()[..., None, None]
    if prompt.sprite is None:
        signed = torch.maximum(right.abs(), below.abs()) - 1.2 * radius
    else:
        signed = distance(torch.tensor(SPRITES.index(prompt.sprite)), right, below, radius=radius)
    return torch.sigmoid(-signed * SHARP)[0]


def sprite_path(prompt: MiniPrompt, frames: int) -> tuple[Tensor, Tensor]:
    """Return the sprite's centre in view pixels in the first `frames` frames: x (T,), y (T,) float32."""
    x, y = Motion.of([prompt]).sprite(torch.arange(frames)[None])
    return x[0], y[0]
