"""The contact sheet: policies down, times across; where places return, the times at which one is in view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import shorten

import av
import numpy as np
from matplotlib.figure import Figure

from ff_bench.models.mini.recipe import is_mini
from ff_bench.report.comparison import Table, name_text
from ff_bench.report.selection import budgets_of, lines_at
from ff_bench.report.style import GREY, new_figure
from ff_bench.report.videos import Shown, common_pair, of_line

COLUMNS = 7
TITLE_LETTERS = 110
PAGE_WIDTH = 6.9
"""Inches: both columns of a paper."""
_LEAST_GAP = 1.0  # seconds between two frames of a sheet


def contact_sheet(table: Table, shown: Mapping[str, Shown]) -> Figure | None:
    """Draw one video per policy at the smallest budget, and of the full cache; None without frames.

    Args:
        table: The comparison.
        shown: Finished videos by id.
    """
    budgets = budgets_of(table)
    lines = lines_at(table, budgets[0] if budgets else None)
    found = [(line, of_line(table, line, shown)) for line in lines]
    pair = common_pair(videos for _, videos in found)
    chosen = [(name_text(line), videos[pair]) for line, videos in found if pair in videos]
    strips = [(name, video) for name, video in chosen if video.has_frames]
    if not strips:
        return None
    example = max((video for _, video in strips), key=lambda video: video.prefix_frames)
    total = min(video.manifest.frames for _, video in strips)
    times, same_place = sheet_times(example, total)
    read = [(name, _frames(video, times)) for name, video in strips]
    rows = [(name, frames) for name, frames in read if frames is not None]
    broken = [name for name, frames in read if frames is None]
    if not rows:
        return None
    if any(video.starts_true for _, video in strips):
        rows.insert(0, ("truth", _truth(example, total)[times]))
    asked = next((line.budget for line in lines if budgets and line.budget_tokens == budgets[0]), "")
    kept = "full cache" if any(line.budget == "full" for line in lines) else "budget not known"
    budget = f"budget {asked}" if asked else kept
    told = example.prompt or str(pair and pair[0])
    title = f"{shorten(told, TITLE_LETTERS, placeholder=' …')}, seed {example.seed}\n{budget}" + (
        "; one place at every return" if same_place else ""
    )
    title += f"\nleft out, as their files cannot be read any more: {', '.join(broken)}" if broken else ""
    return _draw(rows, times / example.manifest.fps, example.prefix_frames / example.manifest.fps, title)


def _frames(video: Shown, times: np.ndarray) -> np.ndarray | None:
    """Read some frames; None of a file that broke since it was scored."""
    try:
        return video.frames_at(times)
    except (OSError, ValueError, av.FFmpegError):
        return None


def sheet_times(video: Shown, total: int) -> tuple[np.ndarray, bool]:
    """Choose frames for a sheet: returns of one place or of the sprite for `mini`, else evenly spread.

    Returns:
        Frame numbers (at most COLUMNS), and whether all of them show the same place.
    """
    even = even_times(total)
    if not is_mini(video.model):
        return even, False
    from ff_bench.models.mini import world
    from ff_bench.models.mini.prompt import FRAMES_PER_LATENT, RING, MiniPrompt

    try:
        prompt = MiniPrompt.parse(video.prompt)
    except ValueError:  # of a video that was not made here
        return even, False
    cover = world.sprite_alpha(prompt, total).numpy().mean((1, 2))
    gap = round(_LEAST_GAP * video.manifest.fps)
    if prompt.world == "occlusion":
        return _peaks(cover, gap), False
    if prompt.world == "cut":
        return even, False
    left = world.places(prompt, total).numpy()[:, 0] % RING
    first_lap = min(total, prompt.prefix_frames() * FRAMES_PER_LATENT)
    returns = [_separate(np.flatnonzero(left == left[start]), gap) for start in range(first_lap)]
    best = max(range(first_lap), key=lambda start: (len(returns[start]), -cover[returns[start]].max()))
    return (_thin(returns[best]), True) if len(returns[best]) > 1 else (even, False)


def even_times(total: int) -> np.ndarray:
    """Return frame numbers evenly over a video, without its ends."""
    times: np.ndarray = np.unique(np.linspace(0, total - 1, COLUMNS + 2).astype(int)[1:-1])
    return times


def _separate(frames: np.ndarray, gap: int) -> np.ndarray:
    """Keep the first of every run of frames that are closer than `gap`."""
    return frames[np.concatenate([[True], np.diff(frames) >= gap])] if len(frames) else frames


def _peaks(cover: np.ndarray, gap: int) -> np.ndarray:
    """Return the middle frame of each time that the sprite is well in view."""
    inside = np.flatnonzero(cover > 0.5 * cover.max())
    groups = np.split(inside, np.flatnonzero(np.diff(inside) >= gap) + 1)
    return _thin(np.array([group[len(group) // 2] for group in groups]))


def _thin(frames: np.ndarray) -> np.ndarray:
    """Keep at most COLUMNS, evenly, with the first and the last."""
    places = np.unique(np.linspace(0, len(frames) - 1, COLUMNS).round().astype(int))
    chosen: np.ndarray = frames[places]
    return chosen


def _truth(video: Shown, total: int) -> np.ndarray:
    from ff_bench.models.mini import world
    from ff_bench.models.mini.prompt import MiniPrompt

    return world.truth(MiniPrompt.parse(video.prompt), video.seed, total)[0].numpy()


def _draw(rows: Sequence[tuple[str, np.ndarray]], seconds: np.ndarray, prefix: float, title: str) -> Figure:
    height, width = rows[0][1].shape[1:3]
    side = (PAGE_WIDTH - 1.0) / len(seconds)
    side = min(side, 1.3)
    figure = new_figure(0.62 + len(rows) * side * height / width, max(3.3, 1.0 + side * len(seconds)))
    panels = figure.subplots(len(rows), len(seconds), squeeze=False)
    for (name, frames), strip in zip(rows, panels, strict=True):
        for panel, frame in zip(strip, frames, strict=True):
            panel.imshow(frame, interpolation="nearest")
            panel.set_xticks([])
            panel.set_yticks([])
            panel.grid(visible=False)
            for spine in panel.spines.values():
                spine.set_visible(False)
        strip[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for panel, second in zip(panels[0], seconds, strict=True):
        is_prefix = second < prefix
        note = f"{second:.1f} s" + (" (prefix)" if is_prefix else "")
        panel.set_title(note, loc="center", fontsize=6.5, color=GREY if is_prefix else "black", pad=2)
    figure.suptitle(title, x=0.01, ha="left", fontsize=7)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.02, hspace=0, wspace=0)  # type: ignore[union-attr, call-arg]
    return figure
