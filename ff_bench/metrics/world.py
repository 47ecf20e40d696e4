"""Memory against exact geometry: is a place, or the sprite, that comes back the one that was seen first?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np

from ff_bench.metrics.base import (
    NO_REFERENCE,
    Measure,
    Series,
    Value,
    Video,
    curve,
    last_frames,
    psnr,
    scored,
    undefined,
    whole,
)
from ff_bench.metrics.geometry import Geometry, geometry_of, truth_of
from ff_bench.metrics.sprite import SPRITE_AREA, sprite_colour_drift, sprite_error
from ff_bench.models.mini.recipe import is_mini

ENOUGH = 0.05
"""Share of the view that must show revisited, sprite-free pixels for a frame to count."""
LAST_SECONDS = 10.0
LEAST_RANGE = 3.0
"""dB that the full cache must stand above chance for `memory` to mean anything."""
CELL = 8
"""Side of the pooling cells of `scene_consistency`, in pixels."""
_NEVER = "no place comes back into view after everything was seen once"


class World:
    """PSNR of revisited places and of the returning sprite against their first view in the same video."""

    name: ClassVar[str] = "world"
    version: ClassVar[int] = 1
    needs_reference: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("mini",)
    signals: ClassVar[tuple[str, ...]] = ()
    extras: ClassVar[tuple[str, ...]] = ()
    weights: ClassVar[tuple[str, ...]] = ()
    standing: ClassVar[str] = ""
    measures: ClassVar[Mapping[str, Measure]] = {
        "world.memory": Measure(
            "1", True, "(PSNR - chance) / (full cache - chance) of revisited places.", "memory", 3
        ),
        "world.revisit_psnr": Measure(
            "dB", True, "Revisited places against their first view.", "revisit PSNR"
        ),
        "world.anchor_psnr": Measure(
            "dB", True, "Revisited places against their first visit at the same screen column.", "anchor PSNR"
        ),
        "world.revisit_psnr_last": Measure("dB", True, "The same over the last 10 s.", "last 10 s PSNR"),
        "world.chance_psnr": Measure(
            "dB", None, "The same against the first view of another place.", "chance PSNR"
        ),
        "world.revisit_psnr_changed": Measure(
            "dB", True, "Revisited places that were repainted before.", "changed PSNR"
        ),
        "world.revisit_psnr_after_cut": Measure(
            "dB", True, "Revisited places after the last cut.", "after cut PSNR"
        ),
        "world.scene_consistency": Measure(
            "1", True, "Cosine of 8 x 8 pooled colours to the first view.", "scene", 3
        ),
        "world.sprite_psnr": Measure(
            "dB", True, "Returning sprite against its first appearance.", "sprite PSNR"
        ),
        "world.sprite_drift": Measure(
            "1", False, "RGB distance of the returning sprite's mean colour.", "sprite Δ", 3
        ),
        "world.truth_psnr": Measure(
            "dB", True, "Places seen in a true prefix against the truth.", "truth PSNR"
        ),
        "world.truth_sprite_psnr": Measure(
            "dB", True, "Sprite seen in a true prefix against the truth.", "true sprite PSNR"
        ),
    }

    def compute(self, video: Video, reference: Video | None) -> Iterator[Value]:
        """Yield every measure; see `measures` and docs/metrics.md."""
        if not is_mini(video.model):
            for name in self.measures:
                yield undefined(
                    name, video, f"needs exact geometry, which model '{video.model}' does not have"
                )
            return
        geometry = geometry_of(video)
        yield from _revisits(video, geometry)
        yield from _memory(video, video if video.is_full_cache else reference)
        yield from _scene(video, geometry)
        yield from _sprite(video, geometry)
        yield from _truth(video, geometry)


def revisit_series(video: Video, geometry: Geometry, mask: np.ndarray | None = None) -> Series:
    """Return the PSNR of each frame's revisited pixels against their first view, over the scored frames.

    Args:
        video: A `mini` video.
        geometry: Of the same prompt and length.
        mask: (T, H, W) bool; which pixels count, by default all revisited ones.
    """
    return _against(video, geometry.reference, geometry.revisit if mask is None else mask)


def _against(video: Video, index: np.ndarray, mask: np.ndarray) -> Series:
    """PSNR per frame of the masked pixels against the pixels of the same video at a flat index."""
    mask = mask & (index >= 0)
    squared = _squared_error(video.frames, video.frames.reshape(-1, 3).take(index, axis=0))
    count = mask.sum((1, 2))
    error = np.einsum("thw,thw->t", squared, mask, dtype=np.float64) / np.maximum(count, 1)
    enough = count >= ENOUGH * mask[0].size
    return Series(psnr(error), enough & scored(video))


def _squared_error(frames: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mean over channels of the squared difference of images in [0, 1], (T, H, W) float32."""
    difference = frames.astype(np.int16) - others
    squared = np.einsum("thwc,thwc->thw", difference, difference, dtype=np.int32)
    error: np.ndarray = squared.astype(np.float32) / np.float32(3 * 255**2)
    return error


def _revisits(video: Video, geometry: Geometry) -> Iterator[Value]:
    series = revisit_series(video, geometry)
    yield whole("world.revisit_psnr", video, series.mean(), _NEVER)
    yield from curve("world.revisit_psnr", video, series)
    anchored = _against(video, geometry.anchor, geometry.revisit)
    yield whole("world.anchor_psnr", video, anchored.mean(), _NEVER)
    yield from curve("world.anchor_psnr", video, anchored)
    late = series.mean(last_frames(video, LAST_SECONDS))
    yield whole("world.revisit_psnr_last", video, late, "no place comes back into view in the last 10 s")
    chance = _against(video, geometry.elsewhere, geometry.revisit)
    yield whole("world.chance_psnr", video, chance.mean(), _NEVER)
    yield from curve("world.chance_psnr", video, chance)
    changed = geometry.version > 0
    yield from _part(
        video, geometry, "world.revisit_psnr_changed", changed, "no repainted place comes back into view"
    )
    last = (geometry.version == geometry.version.max()) & changed & (geometry.world == "cut")
    reason = "no place comes back after the last cut" if geometry.world == "cut" else "the world has no cuts"
    yield from _part(video, geometry, "world.revisit_psnr_after_cut", last, reason)


def _part(video: Video, geometry: Geometry, name: str, columns: np.ndarray, reason: str) -> Iterator[Value]:
    """Yield revisit PSNR over some of the columns, (T, W) bool."""
    if not columns.any():
        yield undefined(name, video, reason)
        return
    series = revisit_series(video, geometry, geometry.revisit & columns[:, None, :])
    yield whole(name, video, series.mean(), reason)
    yield from curve(name, video, series)


def _memory(video: Video, reference: Video | None) -> Iterator[Value]:
    """Place the video between chance (0) and full cache (1), both measured on the full-cache video."""
    if reference is None:
        yield undefined("world.memory", video, NO_REFERENCE)
        return
    if reference.count != video.count:
        yield undefined("world.memory", video, "the full-cache video has another length")
        return
    geometry = geometry_of(video)
    reference = replace(reference, prefix_frames=video.prefix_frames)  # the same frames of both
    full = revisit_series(reference, geometry).mean()
    chance = _against(reference, geometry.elsewhere, geometry.revisit).mean()
    if full is None or chance is None:
        yield undefined("world.memory", video, _NEVER)
        return
    if full - chance < LEAST_RANGE:
        yield undefined(
            "world.memory", video, f"the full cache stands {full - chance:.1f} dB above chance, too little"
        )
        return
    decibels = revisit_series(video, geometry)
    series = Series((decibels.values - chance) / (full - chance), decibels.valid)
    yield whole("world.memory", video, series.mean(), _NEVER)
    yield from curve("world.memory", video, series)


def _scene(video: Video, geometry: Geometry) -> Iterator[Value]:
    """Compare 8 x 8 pooled colours with those of the first view, over the revisited pixels of each cell."""
    mask = geometry.revisit
    seen = video.frames.reshape(-1, 3).take(geometry.reference, axis=0)
    weight = _pool(mask[..., None].astype(np.float32))  # (T, h, w, 1)
    now, then = (_pool(image * mask[..., None]) / np.maximum(weight, 1e-6) for image in (video.frames, seen))
    usable = (weight[..., 0] >= 0.25)[..., None]
    # What all places share (sky above, ground below) is no evidence: subtract each row's mean colour.
    count = np.maximum(usable.sum((0, 2), keepdims=True), 1)
    usual = (then * usable).sum((0, 2), keepdims=True, dtype=np.float64) / count
    now, then = (now - usual) * usable, (then - usual) * usable
    dot = np.einsum("thwc,thwc->t", now, then)
    norm = np.sqrt(np.einsum("thwc,thwc->t", now, now) * np.einsum("thwc,thwc->t", then, then))
    enough = mask.sum((1, 2)) >= ENOUGH * mask[0].size
    series = Series(dot / np.maximum(norm, 1e-9), enough & (norm > 0) & scored(video))
    yield whole("world.scene_consistency", video, series.mean(), _NEVER)
    yield from curve("world.scene_consistency", video, series)


def _pool(images: np.ndarray) -> np.ndarray:
    """Average over cells, (T, H, W, C) -> (T, H / 8, W / 8, C) float32."""
    frames, height, width, channels = images.shape
    cells = images.reshape(frames, height // CELL, CELL, width // CELL, CELL, channels)
    pooled: np.ndarray = cells.sum((2, 4), dtype=np.float32) / np.float32(CELL * CELL)
    return pooled


def _sprite(video: Video, geometry: Geometry) -> Iterator[Value]:
    late = np.arange(video.count) >= video.count // 2
    reason = "the sprite does not come back after it was seen"
    error = sprite_error(video, geometry)
    drift = sprite_colour_drift(video, geometry)
    for name, series, counted in (("sprite_psnr", error, True), ("sprite_drift", drift, late)):
        if series is None:
            yield undefined(f"world.{name}", video, reason)
            continue
        series = series.only(scored(video))
        yield whole(
            f"world.{name}", video, series.only(np.asarray(counted)).mean(), f"{reason} and the prefix ended"
        )
        yield from curve(f"world.{name}", video, series)


def _truth(video: Video, geometry: Geometry) -> Iterator[Value]:
    """Compare with the ground truth what a true prefix has shown."""
    measured = ("world.truth_psnr", "world.truth_sprite_psnr")
    if video.prefix != "truth":
        for name in measured:
            yield undefined(name, video, "the video does not start with true frames")
        return
    squared = _squared_error(video.frames, truth_of(video))
    known = geometry.background & (geometry.seen_at < video.prefix_frames)[:, None, :]
    sprite_shown = bool((geometry.interior[: video.prefix_frames].sum((1, 2)) > SPRITE_AREA).any())
    inside = geometry.interior & sprite_shown
    least = (ENOUGH * known[0].size, SPRITE_AREA)
    for name, mask, enough in zip(measured, (known, inside), least, strict=True):
        count = mask.sum((1, 2))
        error = np.einsum("thw,thw->t", squared, mask, dtype=np.float64) / np.maximum(count, 1)
        series = Series(psnr(error), (count > enough) & scored(video))
        yield whole(name, video, series.mean(), "nothing that the prefix showed is in view after it")
        yield from curve(name, video, series)
