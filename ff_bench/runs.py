"""Run folders: the identity of a video, its manifest, what is finished, locks; the only place of paths."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ff_bench.config import PolicyConfig, RunConfig
from ff_bench.errors import UsageError
from ff_bench.files import (
    LOCK,
    Locked,
    canonical,
    checkpoint_sha256,
    is_under_way,
    lock,
    short_hash,
    temporary,
    write_atomically,
)
from ff_bench.prompts import PromptSpec
from ff_bench.protocol import ProtocolConfig
from ff_bench.quantities import Budget

__all__ = [
    "Locked", "Manifest", "VideoSpec", "canonical", "describe", "find", "is_finished", "lock", "prepare",
    "read_manifest", "short_hash", "temporary", "unfinished", "videos", "write_atomically", "write_manifest",
]  # fmt: skip

SCHEMA = 1
MANIFEST, ROWS, TRACE = "manifest.json", "rows.jsonl", "trace.jsonl"
RECORD, LATENTS, VIDEO = "record.mkv", "latents.safetensors", "video.mp4"
PREFIXES = "prefixes"
"""Folder of what videos begin with, beside the runs of a model."""
SIGNALS = "signals"
"""Folder of what was measured per frame, beside the rows."""
KEPT_ON_RESTART = (LOCK,)


@dataclass(frozen=True)
class VideoSpec:
    """One video of a run: everything that changes its frames.

    Attributes:
        config: the run that it belongs to.
        prompt: its prompt.
        seed: its seed.
    """

    config: RunConfig
    prompt: PromptSpec
    seed: int

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that changes the frames, in plain values; not device, workers or code version."""
        config = self.config
        policy = {"name": config.policy.label, "fields": config.policy.shown}
        if config.policy.source_sha256:
            policy["source_sha256"] = config.policy.source_sha256
        prompt: dict[str, Any] = {"prompt": self.prompt.text}
        if self.prompt.switches:
            prompt["switches"] = [list(switch) for switch in self.prompt.switches]
        if self.prompt.start_sha256:
            prompt["start_sha256"] = self.prompt.start_sha256
        return {
            "model": config.model.identity,
            "policy": policy,
            "protocol": protocol_identity(config.protocol, is_full=config.policy.is_full),
            "budget_tokens": config.budget.tokens,
            "latent_frames": config.length.latent_frames,
            "frames": config.length.frames,
            "steps": config.steps,
            "dtype": config.dtype,
            "batch": config.batch,
            **prompt,
            "seed": self.seed,
        }

    @property
    def video_id(self) -> str:
        """Ten hexadecimal digits of the identity."""
        return short_hash(self.identity)

    @property
    def relative_folder(self) -> Path:
        """Folder below the directory of runs."""
        config = self.config
        tokens = "full" if config.budget.tokens is None else str(config.budget.tokens)
        protocol = "any" if config.policy.is_full else config.protocol.name
        length = f"b{tokens}-f{config.length.latent_frames}"
        return Path(
            config.model.name,
            f"{config.policy.label}-{protocol}",
            length,
            f"{self.prompt.id}-s{self.seed}-{self.video_id}",
        )

    @property
    def folder(self) -> Path:
        """Folder of the video."""
        return self.config.runs_dir / self.relative_folder

    @property
    def reference(self) -> VideoSpec:
        """The full-cache video of the same model, prompt, seed, length, steps and prefix."""
        protocol = replace(self.config.protocol, position=self.config.protocol.base_position)
        full = PolicyConfig(name="full", fields={}, is_full=True)
        config = replace(self.config, policy=full, budget=Budget("full", None), protocol=protocol)
        return replace(self, config=config)


@dataclass(frozen=True)
class Manifest:
    """What is known of a finished video; written last, so that its presence means finished.

    Attributes:
        video_id: hash of `identity`.
        identity: everything that changes the frames.
        folder: folder below the directory of runs.
        labels: names for people: policy, protocol, budget as asked, prompt set and the like.
        frames: decoded frames.
        latent_frames: latent frames generated.
        prefix_frames: latent frames generated with the full cache before the budget applied.
        fps: decoded frames per second.
        frames_sha256: digest of the decoded RGB.
        seconds: wall time of the generation.
        peak_bytes: largest memory in use; None where it could not be measured.
        files: size in bytes of every file of the folder that scores or people read.
        environment: versions, device, host.
        code_version: version of this package, with the commit where there is one.
        created: time, ISO 8601, UTC.
        digests: sha256 of the record where that is latents, by name.
        source: of a video that was not made here: its file, and what that holds (`ff_bench.foreign`).
        status: "ok"; of a video that was not made here also "failed" or "superseded".
        schema: version of this layout.
    """

    video_id: str
    identity: dict[str, Any]
    folder: str
    frames: int
    latent_frames: int
    prefix_frames: int
    fps: float
    frames_sha256: str
    seconds: float
    peak_bytes: int | None
    files: dict[str, int]
    environment: dict[str, Any]
    code_version: str
    created: str
    labels: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    status: str = "ok"
    schema: int = SCHEMA


def videos(config: RunConfig) -> list[VideoSpec]:
    """List the videos of a run: prompts × seeds, prompts first."""
    return [VideoSpec(config, prompt, seed) for prompt in config.chosen for seed in config.seeds]


def protocol_identity(protocol: ProtocolConfig, *, is_full: bool) -> dict[str, Any]:
    """Return the protocol fields that change frames; a full cache depends on few, and so has one id."""
    named = (
        "sink",
        "recent",
        "passes",
        "denominator",
        "unit",
        "share",
        "position",
        "query_stride",
        "charge_state",
        "prefix",
        "noise",
    )
    values = {name: getattr(protocol, name) for name in named}
    if not is_full:
        return values
    same = protocol.position in ("absolute", "contiguous", "frame_rank")
    return {
        "position": "absolute" if same else protocol.position,
        "prefix": protocol.prefix,
        "noise": protocol.noise,
    }


def describe(
    spec: VideoSpec,
    *,
    frames_sha256: str,
    prefix_frames: int,
    seconds: float,
    peak_bytes: int | None,
    environment: dict[str, Any],
) -> Manifest:
    """Describe a video whose files are all in its folder.

    Args:
        spec: the video.
        frames_sha256: digest of the decoded RGB.
        prefix_frames: latent frames generated with the full cache before the budget applied.
        seconds: wall time of the generation.
        peak_bytes: largest memory in use, None where it could not be measured.
        environment: `records.environment(device)`.
    """
    config = spec.config
    names = [
        path
        for path in sorted(spec.folder.iterdir())
        if path.is_file() and path.name in (RECORD, LATENTS, VIDEO, TRACE)
    ]
    labels = {
        "policy": config.policy.label, "protocol": config.protocol.label,
        "pinned": list(config.protocol.pinned), "budget": config.budget.asked, "length": config.length.asked,
        "prompt_set": config.prompts.name, "prompt_id": spec.prompt.id,
        "prompt_list_sha256": config.prompts.sha256,
    }  # fmt: skip
    return Manifest(
        video_id=spec.video_id, identity=spec.identity, folder=spec.relative_folder.as_posix(),
        frames=config.length.frames, latent_frames=config.length.latent_frames, prefix_frames=prefix_frames,
        fps=config.facts.fps, frames_sha256=frames_sha256, seconds=seconds, peak_bytes=peak_bytes,
        files={path.name: path.stat().st_size for path in names}, environment=environment,
        code_version=str(environment.get("code_version", "")),
        created=datetime.now(UTC).isoformat(timespec="seconds"), labels=labels,
        digests={path.name: checkpoint_sha256((path,)) for path in names if path.name == LATENTS},
    )  # fmt: skip


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest by rename; call it last."""
    write_atomically(
        folder / MANIFEST,
        json.dumps(asdict(manifest), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False),
    )


def read_manifest(folder: Path) -> Manifest | None:
    """Read a manifest, or None where it is missing, broken, edited or of another schema."""
    try:
        plain = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        known = {item.name for item in fields(Manifest)}
        manifest = Manifest(**{key: value for key, value in plain.items() if key in known})
        is_ours = manifest.schema == SCHEMA and _is_typed(manifest)
        return manifest if is_ours and short_hash(manifest.identity) == manifest.video_id else None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _is_typed(manifest: Manifest) -> bool:
    """Say whether the fields that others count with, open or show are of their types."""
    counts = (manifest.frames, manifest.latent_frames, manifest.prefix_frames, *manifest.files.values())
    texts = (manifest.video_id, manifest.folder, manifest.frames_sha256, manifest.status, manifest.created)
    trees = (manifest.identity, manifest.environment, manifest.labels, manifest.digests, manifest.source)
    return (
        all(type(count) is int and count >= 0 for count in counts)
        and all(isinstance(text, str) for text in (*texts, *manifest.files, *manifest.digests.values()))
        and all(isinstance(tree, dict) for tree in trees)
        and not isinstance(manifest.fps, bool)
        and isinstance(manifest.fps, int | float)
        and 0 <= manifest.fps < 1e6
        and all(Path(name).name == name for name in manifest.files)
    )


def is_finished(folder: Path, video_id: str | None = None) -> bool:
    """Say whether a folder holds a finished video: a sound manifest, and every file at its size.

    Args:
        folder: folder of one video.
        video_id: what the video must be; None takes any.
    """
    manifest = read_manifest(folder)
    if manifest is None or manifest.status != "ok" or video_id not in (None, manifest.video_id):
        return False
    return all(_size(folder / name) == size for name, size in manifest.files.items())


def unfinished(specs: Iterable[VideoSpec]) -> list[VideoSpec]:
    """Return the videos that are still to be made; under `overwrite` all of them."""
    return [spec for spec in specs if spec.config.overwrite or not is_finished(spec.folder, spec.video_id)]


def prepare(folder: Path) -> None:
    """Make the folder of a video about to be written, without leftovers; the manifest goes first.

    What this process is writing there under temporary names stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.name in KEPT_ON_RESTART or is_under_way(path):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def find(paths: Iterable[Path]) -> list[Path]:
    """Find the folders of finished videos under paths, sorted, each once.

    Raises:
        UsageError: for a path that does not exist.
    """
    found: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise UsageError(
                f"RUNS={path} is not allowed: there is no such folder, give folders of runs such as runs"
            )
        found |= {
            manifest.parent.resolve() for manifest in path.rglob(MANIFEST) if is_finished(manifest.parent)
        }
    return sorted(found)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
