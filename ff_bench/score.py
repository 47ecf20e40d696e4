"""The score stage: a record is decoded once, each metric is computed once, its values become rows."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ff_bench import metrics, pictures, records, runs
from ff_bench.config import RunConfig
from ff_bench.metrics import Metric, Value, Video
from ff_bench.runs import Manifest, VideoSpec

LOGGER = logging.getLogger(__name__)
ERROR = "error"
"""Metric name of the row that stands for a video that failed."""


@dataclass
class Finished:
    """A finished video on disk; frames are decoded when first asked for."""

    folder: Path
    manifest: Manifest
    config: RunConfig

    @cached_property
    def video(self) -> Video:
        """The video as metrics see it."""
        facts, manifest = self.config.facts, self.manifest
        frames = pictures.read(self.folder, manifest, self.config)
        identity = manifest.identity
        prefix = facts.decoded_frames(manifest.prefix_frames)
        return Video(
            id=manifest.video_id, prompt=identity["prompt"], seed=identity["seed"], fps=manifest.fps,
            chunk_frames=facts.chunk_frames * facts.temporal_stride, prefix_frames=min(prefix, len(frames)),
            made_frames=facts.decoded_frames(manifest.latent_frames) - prefix, frames=frames,
            trace=records.read(self.folder / runs.TRACE), model=identity["model"]["name"],
            manifest=json.loads((self.folder / runs.MANIFEST).read_text(encoding="utf-8")),
        )  # fmt: skip


def score_video(spec: VideoSpec) -> list[str]:
    """Score a video with the metrics of its run that are not there yet; an unfinished one is left alone.

    Returns:
        A sentence per metric that failed; the failure is also a row.
    """
    if not runs.is_finished(spec.folder, spec.video_id):
        return []
    with runs.lock(spec.folder, wait=True):
        return _score_video(spec)


def record_failure(spec: VideoSpec, error: BaseException, *, device: str, status: str = "failed") -> None:
    """Write the row of a video that could not be made; it is retried on the next start."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    value = Value(name=ERROR, value=None, status="failed", reason=reason)
    row = {**_row(spec, None, value, version=1, metric=None), "status": status}
    row.update({"device": device, "scored_on": device, "code_version": records.code_version()})
    records.append(spec.folder / runs.ROWS, [row])


def _score_video(spec: VideoSpec) -> list[str]:
    finished = _open(spec)
    reference = None if spec.config.policy.label == "full" else _open(spec.reference)
    marks = records.marks_of(spec.folder)
    failures = []
    for name in spec.config.metrics:
        metric = metrics.load(name)
        used = reference.manifest.frames_sha256 if reference is not None and metric.needs_reference else ""
        done = marks.get((name, metric.version))
        if done is not None and (done == used or not used):
            continue
        assert finished is not None, spec.folder
        values, failed = _compute(metric, finished, reference if used else None)
        rows = [
            _row(spec, finished.manifest, value, version=metric.version, metric=metric) for value in values
        ]
        for row in rows:
            row["reference"] = used
        begin = {"begin": name, "version": metric.version}
        done_now = [] if failed else [{"done": name, "version": metric.version, "reference": used}]
        records.append(spec.folder / runs.ROWS, [begin, *rows, *done_now])
        failures += [f"{spec.relative_folder}: {name}: {failed}"] if failed else []
    return failures


def _compute(metric: Metric, finished: Finished, reference: Finished | None) -> tuple[list[Value], str]:
    """Compute one family; what it raises becomes a failed value, so that no other metric is lost."""
    try:
        values = list(metric.compute(finished.video, reference.video if reference else None))
    except Exception as error:
        LOGGER.debug("metric %s failed on %s", metric.name, finished.folder, exc_info=True)
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        return [Value(name=f"{metric.name}.{ERROR}", value=None, status="failed", reason=reason)], reason
    return values, ""


def _open(spec: VideoSpec) -> Finished | None:
    if not runs.is_finished(spec.folder, spec.video_id):
        return None
    manifest = runs.read_manifest(spec.folder)
    assert manifest is not None, spec.folder
    return Finished(spec.folder, manifest, spec.config)


def _row(
    spec: VideoSpec, manifest: Manifest | None, value: Value, *, version: int, metric: Metric | None
) -> dict[str, Any]:
    """Make one row: the columns of the schema, then provenance."""
    config = spec.config
    measure = metric.measures.get(value.name) if metric is not None else None
    identity = spec.identity
    row: dict[str, Any] = {
        "schema": records.SCHEMA, "video_id": spec.video_id, "model": config.model.label,
        "checkpoint": config.model.checkpoint, "policy": config.policy.label,
        "policy_fields": runs.canonical(config.policy.shown), "protocol": config.protocol.label,
        "budget_tokens": config.budget.tokens, "frames": config.length.frames,
        "prompt_set": config.prompts.name, "prompt_id": spec.prompt.id, "seed": spec.seed,
        "metric": value.name, "version": version, "clip": value.clip, "t0": value.t0, "t1": value.t1,
        "value": value.value, "unit": measure.unit if measure else "", "status": value.status,
        "reason": value.reason, "protocol_fields": runs.canonical(identity["protocol"]),
        "pinned": ",".join(config.protocol.pinned), "budget_asked": config.budget.asked,
        "length_asked": config.length.asked, "latent_frames": config.length.latent_frames,
        "fps": config.facts.fps, "steps": config.steps, "dtype": config.dtype, "batch": config.batch,
        "prompt_text": spec.prompt.text, "prompt_sha256": spec.prompt.sha256,
        "prompt_list_sha256": config.prompts.sha256,
        "higher_is_better": measure.higher_is_better if measure else None,
    }  # fmt: skip
    if manifest is not None:
        row.update({"prefix_frames": manifest.prefix_frames, "frames_sha256": manifest.frames_sha256})
        row.update(_origin(manifest.environment))
    where = config.device if config.facts.latent_record else "cpu"
    row.update({"scored_on": records.hardware(where), "scored_by": records.code_version()})
    return row


def _origin(environment: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: environment.get(name, "") for name in ("device", "hardware", "host", "code_version")}
    return {**found, "torch": environment.get("versions", {}).get("torch", "")}
