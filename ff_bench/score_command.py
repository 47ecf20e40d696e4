"""`ff-bench score VIDEOS...`: other people's videos through the same metrics into the same tables."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ff_bench import files, foreign, foreign_list, foreign_prompts, metrics, pipeline, records, runs
from ff_bench import score as scoring
from ff_bench.bars import Bars, Progress
from ff_bench.checks import text
from ff_bench.compose import compose, overrides_of
from ff_bench.config import RunConfig
from ff_bench.errors import UsageError, not_one_of, shown
from ff_bench.failures import summarise
from ff_bench.files import user_path
from ff_bench.foreign import Foreign
from ff_bench.foreign_files import Found, collect
from ff_bench.foreign_list import Defaults
from ff_bench.pipeline import Outcome
from ff_bench.probe import Broken
from ff_bench.queue import crew
from ff_bench.queue.slots import Slots, devices_for, for_workers
from ff_bench.queue.task import Advance, Task

LOGGER = logging.getLogger(__name__)
OWN = ("prompts", "model", "policy", "out")
SHARED = ("metrics", "device", "workers", "score_minutes", "overwrite", "stages")
"""Settings that this command shares with runs; they are read and checked by the same configuration."""
METRICS = ("flicker", "drift", "guards", "vbench_long")
"""What is computed where nothing is asked for: what needs neither a trace nor the truth."""
WITH_REFERENCE = "fidelity"
STAGES = ("score", "report")
MADE_HERE: Mapping[str, str] = {
    "mini": "the truth of the embedded model", "trace": "the trace that a run of ours writes"
}  # fmt: skip
"""What a metric may need that no foreign video has."""


@dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
        config: Metrics, device, workers and stages.
        videos: Every video, in the order of tables.
        slots: Where videos are scored.
        notes: What the reader of the results must know.
    """

    config: RunConfig
    videos: tuple[Foreign, ...]
    slots: Slots
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """One video with what is computed of it."""

    video: Foreign
    metrics: dict[str, dict[str, object]]
    device: str
    minutes: int


def run(words: Sequence[str]) -> int:
    """Score videos, and print the tables as a run does; the last line is JSON.

    Args:
        words: of the command line after `score`.

    Returns:
        1 where a video or metric failed, else 0.

    Raises:
        UsageError: with one sentence for the user.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    request = read(words)
    bars = Bars()
    try:
        outcome = execute(request, bars)
    finally:
        bars.close()
    if outcome.summary:
        print(outcome.summary)
        print()
    for sentence in request.notes:
        print(f"note: {sentence}")
    if outcome.report is not None:
        print(f"report  {outcome.report}")
    for path in outcome.tables:
        print(f"rows    {path}")
    for sentence in summarise(outcome.failures):
        print(f"failed: {sentence}")
    print(json.dumps(_last_line(request, outcome)))
    return 1 if outcome.failures else 0


def read(words: Sequence[str]) -> Request:
    """Read the command line.

    Raises:
        UsageError: for an unknown setting, a path without videos, or a table that does not fit them.
    """
    paths, own, shared = _sort(words)
    if not paths:
        raise UsageError("score needs VIDEOS: files or folders of videos, such as results")
    for key, value in own.items():
        text(key, value)
    out = user_path(own.get("out", "runs"))
    if out.exists() and not out.is_dir():
        raise UsageError(f"out={shown(out)} is not allowed: it is a file, out must be a directory")
    table = user_path(own["prompts"]) if "prompts" in own else None
    found = collect(paths)
    declared = foreign_prompts.read(table, found.places) if table is not None else {}
    defaults = Defaults(out, own.get("model"), own.get("policy"), table)
    videos = foreign_list.describe(found, declared, defaults)
    has_reference = any(one.reference is not None for one in videos)
    config, slots = _configure(shared, out, has_reference=has_reference)
    unlisted = sum(1 for one in videos if one.path not in declared) if table is not None else 0
    return Request(config, tuple(videos), slots, tuple(_notes(found, unlisted)))


def _sort(words: Sequence[str]) -> tuple[list[str], dict[str, str], list[str]]:
    """Tell paths from settings; a path that exists is one, whatever signs are in its name."""
    paths: list[str] = []
    own: dict[str, str] = {}
    shared: list[str] = []
    for word in words:
        key, has_value, value = word.partition("=")
        group = key.lstrip("+~").partition(".")[0]
        if group in SHARED and (has_value or key.startswith("~")):
            shared.append(word)
        elif has_value and key in OWN:
            own[key] = value
        elif has_value and not user_path(word).exists():
            raise not_one_of("score", key, [*OWN, *SHARED])
        else:
            paths.append(word)
    return paths, own, shared


def _configure(shared: list[str], out: Path, *, has_reference: bool) -> tuple[RunConfig, Slots]:
    """Compose what is shared with runs; where it does not say, choose metrics, stages and workers."""
    keys = {word.partition("=")[0] for word in shared}
    chosen = [*METRICS, WITH_REFERENCE] if has_reference else [*METRICS]
    own: dict[str, object] = {"runs_dir": str(out)}
    own |= {} if "metrics" in keys else {"metrics": chosen}
    own |= {} if "stages" in keys else {"stages": [*STAGES]}
    config = compose([*overrides_of(own), *shared]).config
    if not {*config.stages} <= {*STAGES}:
        raise UsageError(f"stages={shown(config.stages)} is not allowed: score knows {', '.join(STAGES)}")
    for name, settings in config.metrics.items():
        for need in metrics.load(name, settings).needs:
            if need in MADE_HERE:
                raise UsageError(f"metrics={name} is not allowed: it needs {MADE_HERE[need]}")
    devices = devices_for([config.device])
    count = config.workers if "workers" in keys or not devices else len(devices)
    return replace(config, device=pipeline.device_of(config.device)), for_workers(count, devices)


def execute(request: Request, progress: Progress) -> Outcome:
    """Score every video that is not scored yet, then write tables and a report."""
    config, videos = request.config, request.videos
    failures: list[str] = []
    every = [*videos, *foreign_list.references(videos)]
    if "score" in config.stages:
        if config.overwrite:
            for one in every:
                with runs.lock(one.folder, wait=True):
                    runs.prepare(one.folder)
        jobs = [Job(one, config.metrics, config.device, config.score_minutes) for one in videos]
        failures = _score(jobs, request.slots, progress)
        foreign.supersede(every, videos[0].out)
    return _finish(request, failures)


def _score(jobs: Sequence[Job], slots: Slots, progress: Progress) -> list[str]:
    progress.start("score", len(jobs))
    tasks = [
        Task(str(number), partial(score_job, job), lost=partial(_lose, job), stage="score")
        for number, job in enumerate(jobs)
    ]
    return crew.run(tasks, slots, progress.advance)


def score_job(job: Job, _: Advance) -> list[str]:
    """Score one video; a broken file becomes a row and a sentence, so that other videos go on."""
    one = job.video
    try:
        subject = foreign.subject_of(one, foreign.register(one), job.device, minutes=job.minutes)
    except Exception as error:
        return _lose(job, error)
    reference, failures = _reference(job)
    return [*failures, *scoring.score_subject(subject, job.metrics, reference)]


def _reference(job: Job) -> tuple[scoring.Subject | None, list[str]]:
    """Return what a video is compared with; a broken one leaves the other numbers as they are."""
    one = job.video.reference
    if one is None:
        return None, []
    try:
        return foreign.subject_of(one, foreign.register(one), job.device, minutes=job.minutes), []
    except Exception as error:
        return None, [f"{shown(one.path)}, a reference: {_words(error)}"]


def _lose(job: Job, error: Exception | str) -> list[str]:
    told = error if isinstance(error, str) else _words(error)
    LOGGER.debug("%s failed: %s", job.video.path, told)
    foreign.fail(job.video, told)
    return [f"{shown(job.video.path)}: {told}"]


def _words(error: Exception) -> str:
    told = " ".join(str(error).split())[:500]
    return told if isinstance(error, Broken) else f"{type(error).__name__}: {told}"


def _finish(request: Request, failures: list[str]) -> Outcome:
    """Write the tables of every folder and, where asked, one report over all videos."""
    folders = [one.folder for one in request.videos if one.folder.is_dir()]
    rows = records.table(folders)
    tables: list[Path] = []
    for parent in dict.fromkeys(folder.parent for folder in folders):
        own = [path.parent for path in sorted(parent.glob(f"*/{runs.ROWS}"))]
        kept = [folder for folder in own if not foreign.is_superseded(folder)]
        tables += records.write_tables(records.table(kept), parent)
        files.sweep_up(parent, deep=False)
    for folder in folders:
        files.sweep_up(folder)
    page, summary = None, ""
    if "report" in request.config.stages and len(rows):
        from ff_bench import report

        name = f"{foreign.FOREIGN}-{runs.short_hash(sorted(one.video_id for one in request.videos))}"
        made = report.make(folders, request.videos[0].out / "reports" / name)
        page, summary = made.paths[0], made.summary
    return Outcome(rows=rows, failures=tuple(failures), tables=tuple(tables), report=page, summary=summary)


def _notes(found: Found, unlisted: int) -> list[str]:
    notes = []
    if found.ignored:
        notes.append(f"{found.ignored} files in the folders are no videos by their ending, and are left out")
    if unlisted:
        notes.append(f"{unlisted} videos have no row in the table of prompts; they form a list of their own")
    return notes


def _last_line(request: Request, outcome: Outcome) -> dict[str, object]:
    broken = outcome.rows.loc[outcome.rows["metric"] == scoring.ERROR, "video_id"]
    return {
        "videos": len(request.videos),
        "broken": int(broken.nunique()),
        "rows": len(outcome.rows),
        "failed": len(outcome.failures),
        "report": str(outcome.report) if outcome.report else None,
        "tables": [str(path) for path in outcome.tables],
    }
