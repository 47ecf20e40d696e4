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
    """

    spec: VideoSpec
    is_done: bool
    seconds: float
    is_measured: bool

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
    """Every video of a run or sweep, each once."""

    configs: tuple[RunConfig, ...]
    videos: tuple[PlannedVideo, ...]

    @property
    def left(self) -> tuple[PlannedVideo, ...]:
        """Videos that are still to be made."""
        return tuple(video for video in self.videos if not video.is_done)


def make(configs: Sequence[RunConfig]) -> Plan:
    """Plan configurations; nothing is loaded or written."""
    specs = {spec.folder: spec for config in configs for spec in runs.videos(config)}
    rates = {config.runs_dir: _rates(config) for config in configs}
    planned = []
    for spec in specs.values():
        facts, length = spec.config.facts, spec.config.length
        chunks = len(facts.chunks(length.latent_frames))
        name = (runs.canonical(spec.identity["model"]), spec.config.policy.label)
        measured = rates[spec.config.runs_dir].get(name)
        seconds = measured * length.latent_frames if measured else chunks * facts.chunk_seconds_cpu
        done = not spec.config.overwrite and runs.is_finished(spec.folder, spec.video_id)
        planned.append(PlannedVideo(spec, done, seconds, measured is not None))
    return Plan(tuple(configs), tuple(planned))


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
    workers = max(config.workers for config in configs)
    together = min(max(config.batch for config in configs) * workers, max(1, len(left)))
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
    free = shutil.disk_usage(
        next(
            path
            for path in (configs[0].runs_dir.absolute(), *configs[0].runs_dir.absolute().parents)
            if path.exists()
        )
    ).free
    return [
        f"videos   {len(plan.videos)}, done {len(plan.videos) - len(left)}, to make {len(left)}",
        f"frames   {frames} decoded, {tokens} tokens generated per layer",
        f"KV       {size(held)} per video, {size(held * together)} at once ({together} side by side)",
        f"disk     about {size(disk)} of records, {size(free)} free in {configs[0].runs_dir}",
        f"time     about {duration(seconds / workers)}, from {told}",
    ]


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


def _rates(config: RunConfig) -> dict[tuple[str, str], float]:
    """Return seconds per latent frame of the videos that are finished here, by model and policy."""
    seen: dict[tuple[str, str], list[float]] = {}
    for path in sorted(config.runs_dir.glob(f"{config.model.name}/*/*/*/{runs.MANIFEST}"))[:200]:
        manifest = runs.read_manifest(path.parent)
        if manifest is not None and manifest.latent_frames:
            name = (runs.canonical(manifest.identity["model"]), manifest.identity["policy"]["name"])
            seen.setdefault(name, []).append(manifest.seconds / manifest.latent_frames)
    return {name: median(values) for name, values in seen.items()}
