"""The score stage: a video is decoded once, each metric is computed once, its values become rows."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ff_bench import files, masking, metrics, pictures, records, runs, seals, weights
from ff_bench.errors import told
from ff_bench.limits import within
from ff_bench.metrics import Metric, Value, Video
from ff_bench.metrics.shelf import Shelf
from ff_bench.runs import Manifest, VideoSpec

LOGGER = logging.getLogger(__name__)
ERROR = "error"
"""Metric name of the row that stands for a video that failed."""
LIMIT = "score_minutes"
"""Setting that limits the time of a measurement and of a metric."""


@dataclass
class Subject:
    """A video on disk that is scored.

    Attributes:
        folder: Where its rows and signals go.
        name: For people.
        columns: What its rows say about the video.
        open: Reads it as metrics see it.
        frames_sha256: Digest of its frames.
        prompt: Text that it was made from.
        device: Where signals are measured.
        minutes: Limit of measuring its signals, and of each metric.
    """

    folder: Path
    name: str
    columns: Mapping[str, Any]
    open: Callable[[Shelf], Video]
    frames_sha256: str
    prompt: str
    device: str
    minutes: int
    shelf: Shelf = field(init=False)

    def __post_init__(self) -> None:
        """Open the shelf."""
        self.shelf = Shelf(self.folder / runs.SIGNALS, self.frames_sha256, self.prompt)

    @cached_property
    def video(self) -> Video:
        """The video as metrics see it."""
        return self.open(self.shelf)


def score_video(spec: VideoSpec) -> list[str]:
    """Score a video with the metrics of its run that are not there yet; an unfinished one is left alone.

    Returns:
        A sentence per metric that failed; the failure is also a row.
    """
    subject = subject_of(spec)
    if subject is None:
        return []
    reference = None if spec.config.policy.label == "full" else subject_of(spec.reference)
    return score_subject(subject, spec.config.metrics, reference)


def is_scored(spec: VideoSpec) -> bool:
    """Say whether every metric of a video is there and rests on what it would rest on now.

    A video that is not finished has nothing to score, and so nothing left.
    """
    subject = subject_of(spec)
    if subject is None:
        return True
    reference = None if spec.config.policy.label == "full" else subject_of(spec.reference)
    chosen = spec.config.metrics
    families = [metrics.load(name, settings) for name, settings in chosen.items()]
    return all(_is_done(subject, family, chosen, reference) for family in families)


def record_failure(spec: VideoSpec, error: BaseException, *, device: str, status: str = "failed") -> None:
    """Write the row of a video that could not be made; it is retried on the next start."""
    value = Value(name=ERROR, value=None, status="failed", reason=_reason(error))
    row = {**row_of(columns_of(spec), value, version=1, metric=None), "status": status}
    row.update({"device": device, "scored_on": device, "code_version": records.code_version()})
    records.append(spec.folder / runs.ROWS, [row])


def subject_of(spec: VideoSpec) -> Subject | None:
    """Return the video of a run as a subject, or None where it is not finished."""
    manifest = runs.read_manifest(spec.folder) if runs.is_finished(spec.folder, spec.video_id) else None
    if manifest is None:
        return None
    columns = {**columns_of(spec), **_origin(manifest)}
    return Subject(
        folder=spec.folder, name=str(spec.relative_folder), columns=columns,
        open=lambda shelf: _open(spec, manifest, shelf), frames_sha256=manifest.frames_sha256,
        prompt=spec.prompt.text, device=spec.config.device, minutes=spec.config.score_minutes,
    )  # fmt: skip


def score_subject(
    subject: Subject, chosen: Mapping[str, Mapping[str, Any]], reference: Subject | None
) -> list[str]:
    """Compute the metrics of a video that are not done, from one pass over its frames, and append their rows.

    Args:
        subject: The video.
        chosen: Settings by metric family.
        reference: The full-cache video of the same prompt and seed, if there is one.

    Returns:
        A sentence per metric that failed.
    """
    families = [metrics.load(name, settings) for name, settings in chosen.items()]
    with runs.lock(subject.folder, wait=True):
        todo = [family for family in families if not _is_done(subject, family, chosen, reference)]
        if not todo:
            return []
        compared = [family for family in todo if family.needs_reference]
        broken = _prepare(subject, todo)
        if compared and reference is not None and not broken:
            with runs.lock(reference.folder, wait=True):
                broken = _prepare(reference, compared)
        failures = []
        for family in todo:
            used = reference if family.needs_reference else None
            failed = _append(subject, family, used, settings=chosen[family.name], broken=broken)
            failures += [f"{subject.name}: {family.name}: {failed}"] if failed else []
        return failures


def _is_done(
    subject: Subject, family: Metric, chosen: Mapping[str, Mapping[str, Any]], reference: Subject | None
) -> bool:
    """Say whether a family's rows are there and rest on what they would rest on now."""
    mark = records.marks_of(subject.folder).get((family.name, family.version))
    if mark is None:
        return False
    used = reference.frames_sha256 if reference is not None and family.needs_reference else ""
    same_reference = not used or mark.get("reference", "") == used
    return bool(same_reference and mark.get("rests", "") == _rests(subject, family, chosen[family.name]))


def _rests(subject: Subject, family: Metric, settings: Mapping[str, Any]) -> str:
    """Digest what a family's numbers rest on beside the frames: its settings and its signals."""
    states = [subject.shelf.state(key) for key in (*family.signals, *family.extras)]
    states += [f"{name}={weights.sha256(name)}" for name in family.weights]
    states += [family.standing] if family.standing else []
    return files.short_hash([dict(settings), states]) if settings or states else ""


def _prepare(subject: Subject, families: Sequence[Metric]) -> str:
    """Measure what families read; an error is returned, since it must not stop other videos."""
    try:
        with within(subject.minutes, LIMIT):
            metrics.prepare(subject.video, families, device=subject.device)
    except Exception as error:
        LOGGER.debug("signals failed on %s", subject.folder, exc_info=True)
        return _reason(error)
    return ""


def _append(
    subject: Subject, family: Metric, reference: Subject | None, *, settings: Mapping[str, Any], broken: str
) -> str:
    """Compute one family and append its rows, after a line that begins and, if all went well, before an end.

    Returns:
        Why it failed, empty if it did not.
    """
    values, failed = ([], broken) if broken else _compute(family, subject, reference)
    if failed:
        values = [Value(name=f"{family.name}.{ERROR}", value=None, status="failed", reason=failed)]
    used = reference.frames_sha256 if reference is not None else ""
    about = {
        "reference": used, "settings": files.canonical(dict(settings)), "weights": _weights(subject, family)
    }  # fmt: skip
    rows = [
        {**row_of(subject.columns, value, version=family.version, metric=family), **about} for value in values
    ]
    begin = {"begin": family.name, "version": family.version}
    end = {
        "done": family.name, "version": family.version, "reference": used,
        "rests": _rests(subject, family, settings), "seal": seals.seal(rows, records.COLUMNS),
    }  # fmt: skip
    records.append(subject.folder / runs.ROWS, [begin, *rows, *([] if failed else [end])])
    return failed


def _compute(family: Metric, subject: Subject, reference: Subject | None) -> tuple[list[Value], str]:
    """Compute one family; what it raises is returned, so that no other metric is lost."""
    try:
        with within(subject.minutes, LIMIT):
            return list(family.compute(subject.video, reference.video if reference else None)), ""
    except Exception as error:
        LOGGER.debug("metric %s failed on %s", family.name, subject.folder, exc_info=True)
        return [], _reason(error)


def _weights(subject: Subject, family: Metric) -> str:
    """Name the weight files behind a family's numbers with their digests."""
    states = (subject.shelf.state(key).split(" ") for key in (*family.signals, *family.extras))
    used = {word for _, *words in states for entry in words for word in entry.split(",") if "=" in word}
    used |= {f"{name}={weights.sha256(name)[:16]}" for name in family.weights}
    return " ".join(sorted(word for word in used if not word.endswith("=absent")))


def _reason(error: BaseException) -> str:
    return masking.text(told(error))[:500]


def _open(spec: VideoSpec, manifest: Manifest, shelf: Shelf) -> Video:
    facts, identity = spec.config.facts, manifest.identity
    prefix = facts.decoded_frames(manifest.prefix_frames)
    return Video(
        id=manifest.video_id, prompt=identity["prompt"], seed=identity["seed"], fps=manifest.fps,
        chunk_frames=facts.chunk_frames * facts.temporal_stride,
        prefix_frames=min(prefix, manifest.frames),
        made_frames=facts.decoded_frames(manifest.latent_frames) - prefix,
        boundaries=facts.boundaries(manifest.latent_frames, manifest.frames),
        window_frames=facts.decoded_frames(facts.window_frames), device=spec.config.device,
        footage=pictures.open_footage(spec.folder, manifest, spec.config),
        trace=records.read(spec.folder / runs.TRACE), model=identity["model"]["name"],
        manifest=json.loads((spec.folder / runs.MANIFEST).read_text(encoding="utf-8")), shelf=shelf,
    )  # fmt: skip


def row_of(
    columns: Mapping[str, Any], value: Value, *, version: int, metric: Metric | None
) -> dict[str, Any]:
    """Make one row: what is known of the video, then the value."""
    measure = metric.measures.get(value.name) if metric is not None else None
    return {
        **columns, "metric": value.name, "version": version, "clip": value.clip, "t0": value.t0,
        "t1": value.t1, "value": value.value, "unit": measure.unit if measure else "",
        "status": value.status, "reason": value.reason,
        "higher_is_better": measure.higher_is_better if measure else None,
        "scored_by": records.code_version(),
    }  # fmt: skip


def columns_of(spec: VideoSpec) -> dict[str, Any]:
    """Say what the rows of a video of a run have in common."""
    config = spec.config
    identity = spec.identity
    return {
        "schema": records.SCHEMA, "video_id": spec.video_id, "model": config.model.label,
        "checkpoint": config.model.checkpoint, "policy": config.policy.label,
        "policy_fields": runs.canonical(config.policy.shown), "protocol": config.protocol.label,
        "budget_tokens": config.budget.tokens, "frames": config.length.frames,
        "prompt_set": config.prompts.name, "prompt_id": spec.prompt.id, "seed": spec.seed,
        "protocol_fields": runs.canonical(identity["protocol"]),
        "pinned": ",".join(config.protocol.pinned), "budget_asked": config.budget.asked,
        "length_asked": config.length.asked, "latent_frames": config.length.latent_frames,
        "fps": config.facts.fps, "steps": config.steps, "dtype": config.dtype, "batch": config.batch,
        "prompt_text": spec.prompt.text, "prompt_sha256": spec.prompt.sha256,
        "prompt_list_sha256": config.prompts.sha256, "scored_on": records.hardware(config.device),
    }  # fmt: skip


def _origin(manifest: Manifest) -> dict[str, Any]:
    """Say where and by what a video was made."""
    environment = manifest.environment
    found = {name: environment.get(name, "") for name in ("device", "hardware", "host", "code_version")}
    return {
        **found, "torch": environment.get("versions", {}).get("torch", ""),
        "prefix_frames": manifest.prefix_frames, "frames_sha256": manifest.frames_sha256,
    }  # fmt: skip
