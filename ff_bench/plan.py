"""The plan of a run before it runs: videos, frames, tokens, bytes, time, and what is done already."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from ff_bench import runs
from ff_bench.config import RunConfig
from ff_bench.quantities import ELEMENT_BYTES, describe_budget
from ff_bench.runs import VideoSpec

if TYPE_CHECKING:
    import pandas

SHOWN_VIDEOS = 12
"""Rows of the table on the terminal; the rest is counted."""
RECORD_BITS_PER_VALUE = 3.0
"""Bits that the lossless record needs per 8-bit value, about."""


@dataclass(frozen=True)
class PlannedVideo:
    """One video of a plan.

    Attributes:
        spec: the video.
        is_done: whether it is finished already.
        seconds: estimated time to make it.
        is_measured: whether the time comes from finished videos rather than from the model's constant.
        peak_bytes: largest memory that a finished video of this kind needed; 0 where that is not known.
    """

    spec: VideoSpec
    is_done: bool
    seconds: float
    is_measured: bool
    peak_bytes: int = 0

    @property
    def kv_bytes(self) -> int:
        """Keys and values held at most: the budget and one chunk, or the whole video."""
        config = self.spec.config
        video = config.length.latent_frames * config.facts.frame_tokens
        held = video if config.budget.tokens is None else config.budget.tokens + config.facts.chunk_tokens
        return config.facts.kv_bytes(min(held, video), element_bytes=ELEMENT_BYTES[config.dtype])

    @property
    def disk_bytes(self) -> int:
        """Size of the record, about."""
        config, facts = self.spec.config, self.spec.config.facts
        if "record" not in config.save:
            return 0
        if facts.latent_record:
            return config.length.latent_frames * facts.latent_values * ELEMENT_BYTES[config.dtype]
        pixels = config.length.frames * facts.height * facts.width * 3
        return int(pixels * RECORD_BITS_PER_VALUE / 8)


@dataclass(frozen=True)
class Plan:
    """Every video of a run or sweep, each once.

    Attributes:
        configs: its jobs.
        videos: of all jobs.
        slots: workers side by side.
    """

    configs: tuple[RunConfig, ...]
    videos: tuple[PlannedVideo, ...]
    slots: int = 1

    @property
    def left(self) -> tuple[PlannedVideo, ...]:
        """Videos that are still to be made."""
        return tuple(video for video in self.videos if not video.is_done)


def make(configs: Sequence[RunConfig], *, slots: int | None = None) -> Plan:
    """Plan configurations; nothing is loaded or written.

    Args:
        configs: of the jobs.
        slots: workers side by side; None follows `workers`.
    """
    specs = {spec.folder: spec for config in configs for spec in runs.videos(config)}
    seen = {}
    for config in configs:
        place = (config.runs_dir, config.model.name)
        if place not in seen:
            seen[place] = _seen(config)
    planned = []
    for spec in specs.values():
        facts, length = spec.config.facts, spec.config.length
        chunks = len(facts.chunks(length.latent_frames))
        name = (runs.canonical(spec.identity["model"]), spec.config.policy.label)
        rate, peak = seen[spec.config.runs_dir, spec.config.model.name].get(name, (0.0, 0))
        seconds = rate * length.latent_frames if rate else chunks * facts.chunk_seconds_cpu
        done = not spec.config.overwrite and runs.is_finished(spec.folder, spec.video_id)
        planned.append(PlannedVideo(spec, done, seconds, rate > 0, peak))
    return Plan(tuple(configs), tuple(planned), slots or max(config.workers for config in configs))


def frame(plan: Plan) -> pandas.DataFrame:
    """Show a plan as a table, one row per video."""
    import pandas

    return pandas.DataFrame([_row(video) for video in plan.videos])


def describe(plan: Plan) -> str:
    """Show a plan as text: the videos, then totals, then what is left."""
    lines = [_config_line(config) for config in plan.configs[:SHOWN_VIDEOS]]
    if len(plan.configs) > SHOWN_VIDEOS:
        lines.append(f"... and {len(plan.configs) - SHOWN_VIDEOS} more configurations")
    rows = [_row(video) for video in plan.videos[:SHOWN_VIDEOS]]
    columns = ("policy", "budget", "prompt", "seed", "frames", "done", "folder")
    lines += ["", *grid(columns, [[str(row[name]) for name in columns] for row in rows])]
    if len(plan.videos) > SHOWN_VIDEOS:
        lines.append(f"... and {len(plan.videos) - SHOWN_VIDEOS} more videos")
    return "\n".join([*lines, "", *_totals(plan)])


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay text out in aligned columns."""
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    ]


def size(amount: float) -> str:
    """Show bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def duration(seconds: float) -> str:
    """Show seconds as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    )


def _totals(plan: Plan) -> list[str]:
    left, configs = plan.left, plan.configs
    together = min(max(config.batch for config in configs) * plan.slots, max(1, len(left)))
    frames = sum(video.spec.config.length.frames for video in left)
    tokens = sum(
        video.spec.config.length.latent_frames * video.spec.config.facts.frame_tokens for video in left
    )
    held = max((video.kv_bytes for video in left), default=0)
    seconds = sum(video.seconds for video in left)
    disk = sum(video.disk_bytes for video in left)
    told = (
        "finished videos here"
        if left and all(video.is_measured for video in left)
        else "a constant of the model for one CPU core"
    )
    if told.endswith("core") and any(config.facts.latent_record for config in configs):
        told += ", a GPU takes a small part of it"
    working = min(plan.slots, max(1, len(left)))
    return [
        f"jobs     {len(configs)}, on {plan.slots} slot{'s' if plan.slots > 1 else ''}",
        f"videos   {len(plan.videos)}, done {len(plan.videos) - len(left)}, to make {len(left)}",
        f"scores   {_scored(plan)}",
        f"frames   {frames} decoded, {tokens} tokens generated per layer",
        f"KV       {size(held)} per video, {size(held * together)} at once ({together} side by side)",
        f"memory   {_memory(plan, working, held)}",
        f"disk     about {size(disk)} of records, {size(_free(configs[0]))} free in {configs[0].runs_dir}",
        f"time     about {duration(seconds / working)}, from {told}; scoring is not counted",
    ]


def _scored(plan: Plan) -> str:
    """Say of how many videos every metric is there; what reads metrics is loaded only for finished videos."""
    wanted = {
        spec.folder: spec
        for config in plan.configs
        for spec in runs.videos(config)
        if "score" in config.stages
    }
    finished = [spec for spec in wanted.values() if runs.is_finished(spec.folder, spec.video_id)]
    done = 0
    if finished:
        from ff_bench import score

        done = sum(score.is_scored(spec) for spec in finished)
    return f"of {len(wanted)} videos, done {done}, to make {len(wanted) - done}"


def _memory(plan: Plan, working: int, held: int) -> str:
    """Estimate the memory of a worker: what finished videos needed, else the files and what a cache holds."""
    left = plan.left
    peaks = [video.peak_bytes for video in left if video.peak_bytes]
    if left and len(peaks) == len(left):
        peak = max(peaks)
        return f"about {size(peak)} per worker, {size(peak * working)} in all, from finished videos"
    files = [path for config in plan.configs for path in config.facts.weights]
    weights = sum(path.stat().st_size for path in dict.fromkeys(files) if path.is_file())
    kept = weights + held * max(config.batch for config in plan.configs)
    without = "" if files else "; weights not counted"
    return f"at least {size(kept)} per worker, {size(kept * working)} in all{without}"


def _free(config: RunConfig) -> int:
    """Return the free bytes where runs go."""
    place = config.runs_dir.absolute()
    return shutil.disk_usage(next(path for path in (place, *place.parents) if path.exists())).free


def _config_line(config: RunConfig) -> str:
    budget = describe_budget(config.budget, config.facts, config.length.latent_frames)
    return (
        f"{config.policy.label} · {config.protocol.label} · {config.model.name} · "
        f"{config.length.seconds:g} s = {config.length.latent_frames} latent frames · budget {budget}"
    )


def _row(video: PlannedVideo) -> dict[str, object]:
    config = video.spec.config
    return {
        "policy": config.policy.label, "protocol": config.protocol.label,
        "budget": config.budget.tokens or "full", "prompt": video.spec.prompt.id, "seed": video.spec.seed,
        "frames": config.length.frames, "kv_bytes": video.kv_bytes, "done": "yes" if video.is_done else "no",
        "folder": str(video.spec.relative_folder),
    }  # fmt: skip


def _seen(config: RunConfig) -> dict[tuple[str, str], tuple[float, int]]:
    """Return seconds per latent frame and peak bytes of what is finished here, by model and policy."""
    rates: dict[tuple[str, str], list[float]] = {}
    peaks: dict[tuple[str, str], int] = {}
    for path in sorted(config.runs_dir.glob(f"{config.model.name}/*/*/*/{runs.MANIFEST}"))[:200]:
        manifest = runs.read_manifest(path.parent)
        if manifest is not None and manifest.latent_frames:
            name = (runs.canonical(manifest.identity["model"]), manifest.identity["policy"]["name"])
            rates.setdefault(name, []).append(manifest.seconds / manifest.latent_frames)
            peaks[name] = max(peaks.get(name, 0), manifest.peak_bytes or 0)
    return {name: (median(values), peaks[name]) for name, values in rates.items()}
