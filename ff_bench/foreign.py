"""Videos that were not made here: what is declared of one, what its file holds, and where its scores go."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ff_bench import files, pictures, probe, records, runs, score
from ff_bench.footage import Footage, Held, Streamed
from ff_bench.foreign_files import plain
from ff_bench.metrics import Value, Video
from ff_bench.metrics.shelf import Shelf
from ff_bench.models.facts import ModelFacts, find
from ff_bench.probe import Broken, Probe
from ff_bench.runs import Manifest
from ff_bench.score import Subject

FOREIGN = "foreign"
"""Checkpoint of every video that was not made here; also its model and protocol where none is declared."""
SUPERSEDED = "superseded"
"""Status of a manifest whose file has changed since, or is declared to be something else."""


@dataclass(frozen=True)
class Foreign:
    """One file and what is declared of it.

    Attributes:
        path: Of the file, absolute; it is neither copied nor changed.
        out: Directory of runs.
        model: Name of the model that made it, as people say.
        policy: Name of the policy or method.
        prompt_id: The same for the same prompt, fit for file names.
        seed: Seed, or number of the sample.
        prompt: Text, empty where it is not known.
        budget_tokens: Budget, None where it is not known.
        protocol: Name of a protocol of ours.
        chunk_frames: Decoded frames of a chunk, the first one may have fewer; None where it is not known.
        prompt_set: Name of the list of prompts.
        prompt_list_sha256: Digest of that list.
        reference: The full-cache video of the same prompt and seed.
    """

    path: Path
    out: Path
    model: str
    policy: str
    prompt_id: str
    seed: int
    prompt: str = ""
    budget_tokens: int | None = None
    protocol: str = FOREIGN
    chunk_frames: int | None = None
    prompt_set: str = ""
    prompt_list_sha256: str = ""
    reference: Foreign | None = None

    @cached_property
    def file_sha256(self) -> str:
        """Digest of the bytes of the file; empty where it cannot be read."""
        if not self.path.is_file():  # a pipe would be waited for, a device has no end
            return ""
        try:
            return files.file_digest(self.path)
        except (OSError, UnicodeError):
            return ""

    @property
    def identity(self) -> dict[str, Any]:
        """What makes it this video: the bytes of its file, and what is declared of it alone."""
        return {
            "file_sha256": self.file_sha256, "model": {"name": self.model},
            "policy": {"name": self.policy, "fields": {}}, "protocol": {"name": self.protocol},
            "budget_tokens": self.budget_tokens, "prompt": self.prompt, "prompt_id": self.prompt_id,
            "seed": self.seed, "chunk_frames": self.chunk_frames,
        }  # fmt: skip

    @property
    def video_id(self) -> str:
        """Ten hexadecimal digits of the identity."""
        return runs.short_hash(self.identity)

    @property
    def relative_folder(self) -> Path:
        """Folder of its scores below the directory of runs; prompts and odd names are no part of it."""
        model, policy = (plain(name) or FOREIGN for name in (self.model, self.policy))
        return Path(FOREIGN, model, policy, f"{self.prompt_id}-{self.video_id}")

    @property
    def folder(self) -> Path:
        """Folder of its scores."""
        return self.out / self.relative_folder

    @property
    def labels(self) -> dict[str, str]:
        """Names that may change without making it another video."""
        return {"prompt_set": self.prompt_set, "prompt_list_sha256": self.prompt_list_sha256}


def register(one: Foreign) -> Manifest:
    """Return the manifest of a video; one that is new is decoded once, from end to end.

    That pass costs little more than decoding alone: pictures are turned to RGB and digested on the way. Their
    number, rate and digest are known before the first metric, and a broken file is found before long work.

    Raises:
        Broken: Why it cannot be scored; a row says so as well.
    """
    with runs.lock(one.folder, wait=True):
        found = runs.read_manifest(one.folder)
        if found is not None and found.frames:
            return _refresh(one, found)
        try:
            seen = probe.examine(one.path)
        except Broken as error:
            _fail(one, str(error))
            raise
        runs.prepare(one.folder)
        manifest = _manifest(one, seen)
        runs.write_manifest(one.folder, manifest)
        return manifest


def fail(one: Foreign, reason: str) -> None:
    """Write the row of a video that cannot be read; it is tried again on the next start."""
    with runs.lock(one.folder, wait=True):
        found = runs.read_manifest(one.folder)
        if found is None or not found.frames:
            _fail(one, reason)


def _fail(one: Foreign, reason: str) -> None:
    value = Value(name=score.ERROR, value=None, status="failed", reason=reason)
    row = score.row_of(_columns(one, None), value, version=1, metric=None)
    if records.rows_of(one.folder) != [row]:
        records.append(one.folder / runs.ROWS, [row])
    runs.write_manifest(one.folder, _manifest(one, None))


def _refresh(one: Foreign, found: Manifest) -> Manifest:
    """Let a known video take the list of prompts and the place that it has now; its numbers stay."""
    source = {**found.source, "path": text_of(one.path)}
    now = replace(found, labels=one.labels, source=source, status="ok")
    if now == found:
        return found
    if found.labels != one.labels:
        items = [
            {**item, **one.labels} if "metric" in item else item
            for item in records.read(one.folder / runs.ROWS)
        ]
        lines = (json.dumps(item, ensure_ascii=False, allow_nan=False) + "\n" for item in items)
        files.write_atomically(one.folder / runs.ROWS, "".join(lines))
    runs.write_manifest(one.folder, now)
    return now


def supersede(videos: Iterable[Foreign], out: Path) -> int:
    """Retire what stands for the same files as they were, or were declared, before; reports leave it out.

    Returns:
        How many videos are retired.
    """
    listed = [*videos]
    here = {text_of(one.path): one for one in listed}
    folders = {one.folder for one in listed}
    retired = 0
    for path in sorted((out / FOREIGN).rglob(runs.MANIFEST)):
        found = runs.read_manifest(path.parent)
        if found is None or found.status == SUPERSEDED or path.parent in folders:
            continue
        if found.source.get("path") in here:
            runs.write_manifest(path.parent, replace(found, status=SUPERSEDED))
            retired += 1
    return retired


def is_superseded(folder: Path) -> bool:
    """Say whether a folder holds scores that reports leave out."""
    found = runs.read_manifest(folder)
    return found is not None and found.status == SUPERSEDED


def text_of(path: Path) -> str:
    """Write a path as text, also where its bytes are none."""
    return str(path).encode(errors="backslashreplace").decode()


def subject_of(one: Foreign, manifest: Manifest, device: str, *, minutes: int) -> Subject:
    """Return a registered video as metrics are computed on, each in so many minutes at most."""
    columns = {**_columns(one, manifest), "scored_on": records.hardware(device)}
    return Subject(
        folder=one.folder, name=str(one.relative_folder), columns=columns,
        open=lambda shelf: _open(one, manifest, shelf, device), frames_sha256=manifest.frames_sha256,
        prompt=one.prompt, device=device, minutes=minutes,
    )  # fmt: skip


def _open(one: Foreign, manifest: Manifest, shelf: Shelf, device: str) -> Video:
    facts = _facts(one, manifest)
    return Video(
        id=manifest.video_id, prompt=one.prompt, seed=one.seed, fps=manifest.fps,
        chunk_frames=one.chunk_frames or 0, prefix_frames=0, footage=_footage(one.path, manifest),
        manifest=asdict(manifest), model=one.model, shelf=shelf,
        boundaries=_boundaries(one, manifest.frames, facts),
        window_frames=facts.decoded_frames(facts.window_frames) if facts else None, device=device,
    )  # fmt: skip


def _facts(one: Foreign, manifest: Manifest) -> ModelFacts | None:
    """Return what we know of the model that is declared, where the video looks like one of it."""
    facts = find(one.model)
    if facts is None:
        return None
    same = (facts.height, facts.width) == (manifest.source["height"], manifest.source["width"])
    return facts if same and facts.fps == manifest.fps else None


def _boundaries(one: Foreign, frames: int, facts: ModelFacts | None) -> tuple[int, ...]:
    """Return the frames with which chunks begin, without the first: as declared, else as the model has it."""
    chunk = one.chunk_frames
    if chunk is not None:
        return tuple(range(frames % chunk or chunk, frames, chunk))
    if facts is None:
        return ()
    return facts.boundaries(facts.whole_chunks(facts.needed_latents(frames)), frames)


def _footage(path: Path, manifest: Manifest) -> Footage:
    """Return the frames; that they are those that the manifest names is checked after the last one."""
    height, width = manifest.source["height"], manifest.source["width"]
    streamed = Streamed(manifest.frames, (height, width), lambda: _checked(path, manifest))
    small = manifest.frames * height * width * 3 <= pictures.HELD_BYTES
    return Held(streamed.frames) if small else streamed


def _checked(path: Path, manifest: Manifest) -> Iterator[np.ndarray]:
    digest = hashlib.sha256()
    for image in probe.decode(path):
        digest.update(np.ascontiguousarray(image).data)
        yield image[None]
    if digest.hexdigest() != manifest.frames_sha256:
        raise ValueError(
            "its file decodes to other frames than when it was read first; overwrite=true starts anew"
        )


def _manifest(one: Foreign, seen: Probe | None) -> Manifest:
    """Describe a video: what is declared, and what its file holds; nothing is known of one that is broken."""
    source: dict[str, Any] = {"path": text_of(one.path), "sha256": one.file_sha256}
    if seen is not None:
        held = {name: value for name, value in asdict(seen).items() if name not in ("fps", "frames_sha256")}
        source |= {**held, "fps": str(seen.fps), "bytes": one.path.stat().st_size}
    return Manifest(
        video_id=one.video_id, identity=one.identity, folder=one.relative_folder.as_posix(),
        frames=seen.frames if seen else 0, fps=float(seen.fps) if seen else 0.0, latent_frames=0,
        prefix_frames=0,
        frames_sha256=seen.frames_sha256 if seen else "", seconds=0.0, peak_bytes=None, files={},
        environment={}, code_version="", created=datetime.now(UTC).isoformat(timespec="seconds"),
        labels=one.labels, status="ok" if seen else "failed", source=source,
    )  # fmt: skip


def _columns(one: Foreign, manifest: Manifest | None) -> dict[str, Any]:
    """Say what the rows of a video have in common; what only its maker knows is left empty."""
    source: Mapping[str, Any] = manifest.source if manifest else {}
    facts: dict[str, Any] = {"size": f"{source['width']}x{source['height']}"} if source else {}
    if source.get("is_variable"):
        facts["rate"] = "variable"
    text_sha256 = hashlib.sha256(one.prompt.encode()).hexdigest() if one.prompt else ""
    return {
        "schema": records.SCHEMA, "video_id": one.video_id, "model": one.model, "checkpoint": FOREIGN,
        "policy": one.policy, "policy_fields": "{}", "protocol": one.protocol,
        "budget_tokens": one.budget_tokens, "frames": manifest.frames if manifest else 0,
        "prompt_id": one.prompt_id, "seed": one.seed, "protocol_fields": runs.canonical(facts), "pinned": "",
        "fps": manifest.fps if manifest else 0.0, "prompt_text": one.prompt,
        "prompt_sha256": text_sha256, "device": "", "dtype": "", "hardware": "", "host": "", "torch": "",
        "code_version": "",
        "frames_sha256": manifest.frames_sha256 if manifest else "", **one.labels,
    }  # fmt: skip
