"""Exact geometry of a `mini` prompt: which pixels show what was seen before, and where it was seen first.

All of it follows from the prompt alone: it is computed once per prompt and shared by every policy and seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ff_bench.metrics.base import Video
from ff_bench.models.mini import world as worlds
from ff_bench.models.mini.prompt import RING, MiniPrompt

MARGIN = 4
"""Pixels that a column must be inside the view to be a reference: patches cut by the border are unsure."""
BACKGROUND_ALPHA = 0.02
"""A pixel is free of the sprite below this cover."""
INTERIOR_ALPHA = 0.9
"""A pixel is inside the sprite above this cover."""
COMMON_CORE = 0.55
"""Every sprite shape covers the disc of this share of its radius; used where the shape is not told."""


@dataclass(frozen=True)
class Geometry:
    """Where each pixel of a video was seen first. T frames, H rows, W columns, P distinct versions of places.

    Attributes:
        world: Kind of world.
        version: (T, W) version of the place in each column.
        visit: (T, W) how many times the place had left the view before, 0 at its first visit.
        seen_at: (T, W) first frame in which the place is in view.
        background: (T, H, W) bool, free of the sprite.
        interior: (T, H, W) bool, inside the sprite.
        reference: (T, H, W) flat index (frame, row, column) of the first view of that place and row, or -1.
        elsewhere: (T, H, W) the same for the farthest seen place of the same version.
        anchor: (T, H, W) flat index of the view, of the place's first visit, nearest to this screen column;
            -1 where the sprite covers it.
        revisit: (T, H, W) bool: free of the sprite, with a reference from an earlier visit.
        centre: (T, 2) sprite centre, x and y in pixels.
        radius: Sprite radius in pixels.
    """

    world: str
    version: np.ndarray
    visit: np.ndarray
    seen_at: np.ndarray
    background: np.ndarray
    interior: np.ndarray
    reference: np.ndarray
    elsewhere: np.ndarray
    anchor: np.ndarray
    revisit: np.ndarray
    centre: np.ndarray
    radius: float


def geometry_of(video: Video) -> Geometry:
    """Return the geometry of a `mini` video.

    Raises:
        ValueError: When the prompt is not one of the embedded model.
    """
    return _geometry(MiniPrompt.parse(video.prompt), video.count)


def truth_of(video: Video) -> np.ndarray:
    """Return the ground-truth render of a `mini` video's prompt and seed: RGB, (T, H, W, 3) uint8."""
    return _truth(MiniPrompt.parse(video.prompt), video.seed, video.count)


@lru_cache(maxsize=2)
def _truth(prompt: MiniPrompt, seed: int, frames: int) -> np.ndarray:
    return worlds.truth(prompt, seed, frames)[0].numpy()


@lru_cache(maxsize=2)
def _geometry(prompt: MiniPrompt, frames: int) -> Geometry:
    shown = worlds.places(prompt, frames).numpy()
    alpha = worlds.sprite_alpha(prompt, frames).numpy()
    x, y = (side.numpy() for side in worlds.sprite_path(prompt, frames))
    radius = float(prompt.motion().sprite_radius)
    background = alpha < BACKGROUND_ALPHA
    interior = alpha > INTERIOR_ALPHA if prompt.sprite is not None else _core(x, y, radius, alpha.shape)
    return build(prompt.world, shown, background, interior, centre=np.stack([x, y], 1), radius=radius)


def _core(x: np.ndarray, y: np.ndarray, radius: float, shape: tuple[int, ...]) -> np.ndarray:
    rows, columns = np.arange(shape[1])[:, None], np.arange(shape[2])
    squared = (columns - x[:, None, None]) ** 2 + (rows - y[:, None, None]) ** 2
    core: np.ndarray = squared < (COMMON_CORE * radius) ** 2
    return core


def build(
    world: str,
    shown: np.ndarray,
    background: np.ndarray,
    interior: np.ndarray,
    *,
    centre: np.ndarray,
    radius: float,
) -> Geometry:
    """Derive the geometry from what each column shows.

    Args:
        world: Kind of world.
        shown: (T, W) version * RING + ring column; no value twice in a frame.
        background: (T, H, W) bool, free of the sprite.
        interior: (T, H, W) bool, inside the sprite.
        centre: (T, 2) sprite centre.
        radius: Sprite radius.
    """
    identities, places = np.unique(shown, return_inverse=True)
    places = places.reshape(shown.shape)
    visit, seen_at = _visits(places, len(identities))
    first = _first_views(places, background, len(identities))
    (height, width), rows = background.shape[1:], np.arange(background.shape[1])[:, None]
    reference = first[places[:, None, :], rows]  # (T, H, W)
    visit_then = visit.ravel()[reference // (height * width) * width + reference % width]
    far = _farthest(identities, np.any(first >= 0, axis=1))[places]
    return Geometry(
        world=world,
        version=shown // RING,
        visit=visit,
        seen_at=seen_at,
        background=background,
        interior=interior,
        reference=reference,
        elsewhere=first[far[:, None, :], rows],
        anchor=_anchors(places, visit, background, len(identities)),
        revisit=background & (reference >= 0) & (visit[:, None, :] > visit_then),
        centre=centre,
        radius=radius,
    )


def _visits(places: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Number each column's visit to its place from 0, and find the place's first frame; both (T, W)."""
    present = np.zeros((len(places), count), bool)
    np.put_along_axis(present, places, True, 1)
    begins = present.copy()
    begins[1:] &= ~present[:-1]
    visit = np.take_along_axis(begins.cumsum(0, dtype=np.int32) - 1, places, 1)
    return visit, present.argmax(0)[places]


def _first_views(places: np.ndarray, background: np.ndarray, count: int) -> np.ndarray:
    """Find each place row's first clear view as a flat index, (P, H) int32; -1 where there is none.

    Clear: free of the sprite and at least `MARGIN` pixels inside the view.
    """
    frames, height, width = background.shape
    first = np.full((count, height), -1, np.int32)
    columns = np.arange(MARGIN, width - MARGIN)
    flat = np.arange(height)[None] * width + columns[:, None]  # (columns, H)
    for frame in range(frames - 1, -1, -1):
        shown = places[frame, columns]
        clear = background[frame].T[columns]
        first[shown] = np.where(clear, frame * height * width + flat, first[shown])
    return first


def _anchors(places: np.ndarray, visit: np.ndarray, background: np.ndarray, count: int) -> np.ndarray:
    """Find for each pixel the view of its place, at the first visit, nearest to the same screen column.

    Returns:
        (T, H, W) int32 flat index (frame, row, column), -1 where the sprite covers that view.
    """
    (frames, height, width), columns = background.shape, np.arange(places.shape[1])
    seen = np.full((count, width), -1, np.int32)  # frame in which a place stood in a column
    for frame in range(frames - 1, -1, -1):
        fresh = visit[frame] == 0
        seen[places[frame, fresh], columns[fresh]] = frame
    left = np.maximum.accumulate(np.where(seen >= 0, columns, -width), 1)
    right = np.minimum.accumulate(np.where(seen >= 0, columns, 3 * width)[:, ::-1], 1)[:, ::-1]
    nearest = np.where(columns - left <= right - columns, left, right)  # (P, W); every place was seen once
    column = nearest[places, columns]  # (T, W)
    frame_then = seen[places, column]
    rows = np.arange(height)[:, None] * width
    index = frame_then[:, None, :] * (height * width) + rows + column[:, None, :]
    anchors: np.ndarray = np.where(background.reshape(-1)[index], index, -1).astype(np.int32)
    return anchors


def _farthest(identities: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Pick for each place the seen place of the same version farthest from it on the ring, (P,) int64."""
    version, column = identities // RING, identities % RING
    far = np.arange(len(identities))
    for value in np.unique(version):
        members = np.flatnonzero(version == value)
        others = members[seen[members]]
        if len(others):
            gap = (column[others][None] - column[members][:, None]) % RING
            far[members] = others[np.minimum(gap, RING - gap).argmax(1)]
    return far
