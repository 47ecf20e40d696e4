"""What the embedded model is trained on: worlds on a long timeline, corrupted context, random visibility.

Teacher forcing with a doubled sequence: the clean past and the noisy present of every chunk in one forward,
under a block-causal mask (`doubled`). Three things make the model fit for a cache study: time gaps (chunks
are contiguous runs spread over a long timeline, so that distances far beyond the sequence are seen), random
visibility (context tokens are missing, as they are under a budget), and corrupted context (so that its own
imperfect past does not throw it off). A checkpoint that is to be as brittle as real backbones are does
without the first two (`recipe`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from ff_bench.models.mini.motion import Motion, token_features
from ff_bench.models.mini.network import patchify
from ff_bench.models.mini.prompt import CHUNK_FRAMES, FRAMES_PER_LATENT, HUES, PALETTES, SPRITES, MiniPrompt
from ff_bench.models.mini.world import draw_appearance, render

FRAME_TOKENS = 64
CHUNK_TOKENS = CHUNK_FRAMES * FRAME_TOKENS
TIMELINE = 84
"""Chunks of the timeline that a training sequence is spread over."""
TRAINING_PATHS = 900
"""Paths below this number are trained on; prompts for evaluation use those from here to 999."""
WORLD_SHARES = {"orbit": 0.24, "pendulum": 0.2, "cut": 0.2, "occlusion": 0.12, "change": 0.24}


@dataclass(frozen=True)
class Batch:
    """B sequences of C chunks.

    Attributes:
        video: (B, T, 3, 64, 64) in [-1, 1], the exact picture.
        sprite: (B, T, 64, 64) its sprite's alpha.
        features: (B, N, FEATURES).
        latent_frames: (B, 3 C) latent frame numbers, which are the positions.
        places: (B, T, 64) what each screen column shows.
    """

    video: Tensor
    sprite: Tensor
    features: Tensor
    latent_frames: Tensor
    places: Tensor


def draw_prompts(count: int, generator: torch.Generator) -> list[MiniPrompt]:
    """Draw `count` prompts of all worlds, with paths of training; `generator` is a CPU generator."""
    worlds = list(WORLD_SHARES)
    chosen = torch.multinomial(
        torch.tensor(list(WORLD_SHARES.values())), count, replacement=True, generator=generator
    )
    numbers = torch.randint(0, 1 << 30, (count, 6), generator=generator).tolist()
    prompts = []
    for index, (palette, speed, way, sprite, hue, path) in zip(chosen.tolist(), numbers, strict=True):
        world = worlds[index]
        hidden = world == "occlusion"
        prompts.append(
            MiniPrompt(
                world=world,
                palette=palette % PALETTES,
                speed=((1, 2, 2, 3, 3, 4, 4)[speed % 7]) * (1 if way % 2 else -1),
                sprite=None if hidden else SPRITES[sprite % len(SPRITES)],
                hue=None if hidden else HUES[hue % len(HUES)],
                path=path % TRAINING_PATHS,
            )
        )
    return prompts


def draw_chunks(batch: int, chunks: int, generator: torch.Generator) -> Tensor:
    """Draw chunk numbers on the timeline: one to three contiguous runs with random gaps before and between.

    Args:
        batch: B sequences.
        chunks: C chunks in each.
        generator: its device is that of the result.

    Returns:
        (B, C) int64, growing.
    """
    device = generator.device

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, device=device)

    cuts = torch.randint(0, 3, (batch,), generator=generator, device=device)
    order = uniform(batch, chunks - 1).argsort(1).argsort(1)
    starts = torch.cat([torch.ones(batch, 1, device=device), (order < cuts[:, None]).float()], 1)
    weight = -torch.log(uniform(batch, chunks) + 1e-9) * starts
    tail = -torch.log(uniform(batch, 1) + 1e-9)
    gaps = (weight / (weight.sum(1, keepdim=True) + tail) * (TIMELINE - chunks)).floor()
    return (torch.arange(chunks, device=device) + gaps.cumsum(1)).long()


def draw_starts(batch: int, generator: torch.Generator) -> list[int]:
    """Draw the latent frames of the worlds at which clips begin: a third at 0, where rollouts begin.

    The rest begin anywhere on the timeline, as clips are cut out of long footage; else a model of short clips
    would never see an event, nor a swing but from its turning point.

    Args:
        batch: B clips.
        generator: a CPU generator.
    """
    last = (TIMELINE - 1) * CHUNK_FRAMES
    drawn = torch.randint(-(last // 2), last + 1, (batch,), generator=generator)
    return [int(start) for start in drawn.clamp(min=0).tolist()]


def draw_batch(
    prompts: list[MiniPrompt],
    chunk_numbers: Tensor,
    generator: torch.Generator,
    starts: Sequence[int] | None = None,
) -> Batch:
    """Render sequences.

    Args:
        prompts: B prompts.
        chunk_numbers: (B, C) places of the chunks in their sequence.
        generator: the result is on its device.
        starts: latent frame of each world that has the position 0; None stands for 0.
    """
    device = generator.device
    latent = (chunk_numbers[..., None] * CHUNK_FRAMES + torch.arange(CHUNK_FRAMES, device=device)).flatten(1)
    shown = latent if starts is None else latent + torch.tensor(starts, device=device)[:, None]
    within = torch.arange(FRAMES_PER_LATENT, device=device)
    times = (shown[..., None] * FRAMES_PER_LATENT + within).flatten(1)
    motion = Motion.of(prompts, device)
    video, sprite = render(motion, draw_appearance(prompts, generator), times)
    features = token_features(motion, shown)
    return Batch(video, sprite, features, latent, motion.places(times))


def corrupt(video: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, recolour and hide noise in 60 % of the chunks: (B, T, 3, 64, 64) in and out."""
    chunked = video.unflatten(1, (-1, CHUNK_FRAMES * FRAMES_PER_LATENT))  # (B, C, 12, 3, 64, 64)
    batch, chunks = chunked.shape[:2]
    device = generator.device

    def uniform(*size: int) -> Tensor:
        return torch.rand(batch, chunks, *size, generator=generator, device=device)

    hit = (uniform(1, 1, 1, 1) < 0.6).float()
    blurred = F.avg_pool2d(video.flatten(0, 1), 3, 1, 1, count_include_pad=False).view_as(chunked)
    out = torch.lerp(chunked, blurred, 0.7 * uniform(1, 1, 1, 1) * hit)

    def normal(*size: int) -> Tensor:
        return torch.randn(batch, chunks, *size, generator=generator, device=device)

    out = out * (1 + 0.06 * hit * normal(1, 1, 1, 1)) + 0.06 * hit * normal(1, 3, 1, 1)
    hidden = 0.15 * uniform(1, 1, 1, 1) * hit
    return (out + hidden * torch.randn(out.shape, generator=generator, device=device)).view_as(video)


def draw_visibility(batch: int, chunks: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw which context survives.

    40 % of the sequences see their whole past, 10 % a sink or nothing, 15 % random frames, 35 % random
    tokens; the recent one to four chunks are always seen.

    Returns:
        keep (B, N) bool: the token outlives the recent window; recent (B,) int64 chunks.
    """
    device = generator.device
    tokens = chunks * CHUNK_TOKENS

    def uniform(*size: int) -> Tensor:
        return torch.rand(batch, *size, generator=generator, device=device)

    kind = uniform(1)
    recent = torch.randint(1, 5, (batch,), generator=generator, device=device)
    share = torch.tensor([0.06, 0.12, 0.25, 0.5], device=device)[(uniform(1) * 4).long()]
    some_tokens = uniform(tokens) < share
    some_frames = (uniform(tokens // FRAME_TOKENS) < share).repeat_interleave(FRAME_TOKENS, 1)
    sink = (torch.arange(tokens, device=device) < CHUNK_TOKENS) & (uniform(1) < 0.5)
    keep = torch.where(kind < 0.5, sink, torch.where(kind < 0.65, some_frames, some_tokens))
    return keep | (kind < 0.4), recent


def draw_noise_levels(batch: int, chunks: int, generator: torch.Generator) -> Tensor:
    """Draw noise levels (B, C): logit-normal under a shift of 4, 6 % exactly 1."""
    device = generator.device
    normal = torch.sigmoid(torch.randn(batch, chunks, generator=generator, device=device))
    level = 4 * normal / (1 + 3 * normal)
    pure = torch.rand(batch, chunks, generator=generator, device=device) < 0.06
    return torch.where(pure, torch.ones_like(level), level)


def objective(predicted: Tensor, target: Tensor, level: Tensor) -> Tensor:
    """Return the velocity-weighted squared error of x0, with edges counted once more.

    Args:
        predicted: (B, N, 768) x0.
        target: (B, N, 768).
        level: (B, N) noise level.
    """
    error = (predicted - target).unflatten(-1, (FRAMES_PER_LATENT * 3, 8, 8))
    pixels = (-1, -2, -3)
    across, down = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
    edges = across.square().mean(pixels) + down.square().mean(pixels)
    weighted: Tensor = (error.square().mean(pixels) + 0.5 * edges) / level.clamp(min=0.2).square()
    return weighted.mean()


def classes(batch: Batch) -> dict[str, Tensor]:
    """Sort the tokens of a batch into kinds for validation, each (B, N) bool.

    Without sprite: ``seen`` was in view in the chunk before, ``back`` was seen earlier and is back, ``new``
    never was in view. With it: ``sprite back`` and ``sprite new``.
    """
    cover = patchify(batch.sprite[:, :, None].expand(-1, -1, 3, -1, -1)).mean(-1)
    plain = {name: kind & (cover < 0.02) for name, kind in _place_classes(batch.places).items()}
    return plain | {name: kind & (cover > 0.3) for name, kind in _sprite_classes(batch.sprite).items()}


def _place_classes(places: Tensor) -> dict[str, Tensor]:
    """Sort tokens by what was in view before: places (B, T, 64) -> (B, N) bool each."""
    size = len(places)
    chunks = places.view(size, -1, CHUNK_FRAMES * FRAMES_PER_LATENT * 64)
    known = torch.zeros(size, int(places.max()) + 1, dtype=torch.bool, device=places.device)
    before = torch.zeros_like(known)
    columns: dict[str, list[Tensor]] = {"seen": [], "back": [], "new": []}
    for chunk in chunks.unbind(1):
        recent, ever = _share_in(before, chunk), _share_in(known, chunk)  # (B, CHUNK_FRAMES, 8)
        columns["seen"].append(recent > 0.9)
        columns["back"].append((recent < 0.1) & (ever > 0.9))
        columns["new"].append(ever < 0.1)
        before = torch.zeros_like(known).scatter_(1, chunk, True)
        known = known | before
    return {
        name: torch.cat(parts, 1)[:, :, None].expand(-1, -1, 8, -1).reshape(size, -1)
        for name, parts in columns.items()
    }


def _share_in(table: Tensor, chunk: Tensor) -> Tensor:
    """Share of each token column's places that `table` (B, places) bool holds: (B, CHUNK_FRAMES, 8)."""
    view = (len(chunk), CHUNK_FRAMES, FRAMES_PER_LATENT, 8, 8)
    return torch.gather(table, 1, chunk).view(view).float().mean((2, 4))


def _sprite_classes(sprite: Tensor) -> dict[str, Tensor]:
    """Sort chunks by whether their sprite was there before: alpha (B, T, 64, 64) -> (B, N) bool each."""
    cover = (sprite > 0.5).flatten(2).sum(-1)  # (B, T)
    present = cover.view(len(cover), -1, CHUNK_FRAMES * FRAMES_PER_LATENT).sum(-1) > 300
    never = torch.zeros_like(present[:, :1])
    earlier = torch.cat([never, present.cumsum(1)[:, :-1] > 0], 1)
    just = torch.cat([never, present[:, :-1]], 1)
    kinds = {"sprite back": present & earlier & ~just, "sprite new": present & ~earlier}
    return {name: kind.repeat_interleave(CHUNK_TOKENS, 1) for name, kind in kinds.items()}


def write_shards(network: nn.Module, folder: Path, name: str, parts: int = 2) -> None:
    """Write float16 weights as `parts` safetensors of about the same size, `<name>-0000x-of-0000y`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: value.detach().half().contiguous().cpu() for key, value in network.state_dict().items()}
    total, done = sum(value.numel() for value in weights.values()), 0
    shards: list[dict[str, Tensor]] = [{} for _ in range(parts)]
    for key, value in weights.items():
        shards[min(parts - 1, done * parts // total)][key] = value
        done += value.numel()
    for index, shard in enumerate(shards, 1):
        save_file(shard, folder / f"{name}-{index:05d}-of-{parts:05d}.safetensors")
