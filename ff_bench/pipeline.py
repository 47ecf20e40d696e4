"""From checked configurations to rows: generate, score, report; stages are joined by files only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import policies
from ff_bench import metrics, records, runs, score, workers
from ff_bench.config import ModelConfig, RunConfig, texts
from ff_bench.errors import UsageError
from ff_bench.prompts import PromptSpec
from ff_bench.runs import VideoSpec
from ff_bench.trackers.watch import Watch, check_tracker, watch, watch_report
from ff_bench.workers import Batch

if TYPE_CHECKING:
    import pandas


class Progress(Protocol):
    """Where progress goes: a bar on a terminal, or nowhere."""

    def start(self, stage: str, total: int) -> None:
        """Begin a stage of `total` steps (latent frames when generating, videos when scoring)."""

    def advance(self, steps: int) -> None:
        """Say that steps are done."""


class Silent:
    """Progress that goes nowhere."""

    def start(self, stage: str, total: int) -> None:
        """Begin a stage."""

    def advance(self, steps: int) -> None:
        """Say that steps are done."""


@dataclass(frozen=True)
class Outcome:
    """What a run or sweep ended with.

    Attributes:
        rows: every row of its videos.
        failures: one sentence per video or metric that failed.
        tables: rows of every run folder, as parquet and CSV.
        report: the page of the report, None where none was made.
        summary: text of the report for the terminal, empty where none was made.
        tracked: where trackers show it.
    """

    rows: pandas.DataFrame
    failures: tuple[str, ...]
    tables: tuple[Path, ...]
    report: Path | None = None
    summary: str = ""
    tracked: tuple[str, ...] = ()


def run(config: RunConfig) -> pandas.DataFrame:
    """Run one configuration and return its rows; failed videos are rows with status `failed`."""
    if config.dry_run:
        from ff_bench import plan

        return plan.frame(plan.make([config]))
    return execute([config]).rows


def execute(configs: Sequence[RunConfig], *, progress: Progress | None = None) -> Outcome:
    """Run configurations: all generate, then all are scored (references are there by then), then one report.

    Raises:
        UsageError: before anything is written, for what only torch or the machine can tell.
    """
    shown = progress or Silent()
    devices = workers.devices_for(config.device for config in configs)
    configs = [check(config) for config in configs]
    specs = [spec for config in configs for spec in runs.videos(config)]
    with watch(configs, name=report_name(configs, specs)) as observer:
        failures = _generate(configs, shown, devices, observer=observer)
        observer.generated(*specs)  # those that were finished before as well
        scored = [spec for spec in specs if "score" in spec.config.stages]
        if scored:
            failures += _score(scored, shown, devices, observer=observer)
        outcome = _finish(configs, specs, failures, observer=observer)
    return replace(outcome, tracked=observer.places)


def _score(
    specs: Sequence[VideoSpec], progress: Progress, devices: Sequence[str], *, observer: Watch
) -> list[str]:
    progress.start("score", len(specs))
    processes = min(max(spec.config.workers for spec in specs), len(specs))
    if processes > 1:
        told = observer.scored
        return workers.score_side_by_side(specs, processes, progress.advance, devices=devices, told=told)
    failures = []
    for spec in specs:
        failures += score.score_video(spec)
        observer.scored(spec)
        progress.advance(1)
    return failures


def check(config: RunConfig) -> RunConfig:
    """Check what needs torch or the machine, and name the device; nothing is loaded or written.

    Raises:
        UsageError: for a hyper-parameter out of its range, an absent device or absent weights.
    """
    check_policy(config)
    if config.dry_run:
        return config
    if runs.unfinished(runs.videos(config)):
        check_files(config)
    check_metrics(config)
    check_tracker(config.tracker)
    if {"generate", "score"} & set(config.stages):
        return replace(config, device=device_of(config.device))
    return config


def check_files(config: RunConfig) -> None:
    """Check that everything that the model loads is here.

    Raises:
        UsageError: which file is not, where it was looked for and the command that gets it.
    """
    model = config.model
    if model.facts.weights and model.checkpoint != "absent":
        return
    missing = model.room.missing(model.fields, prompts=texts(config.chosen), dtype=config.dtype)
    if not missing and model.checkpoint == "absent":
        missing = "its weights are missing, ff-bench doctor says how to get them"
    if missing:
        raise UsageError(f"model={model.name} cannot run: {missing}")


def check_metrics(config: RunConfig) -> None:
    """Let the metric families check their settings.

    Raises:
        UsageError: with the family's own sentence.
    """
    for name, settings in config.metrics.items():
        metrics.load(name, settings)


def check_policy(config: RunConfig) -> None:
    """Let the policy check the ranges of its hyper-parameters.

    Raises:
        UsageError: with the policy's own sentence.
    """
    try:
        policies.load(config.policy.name)(**config.policy.fields)
    except (ValueError, TypeError) as error:
        raise UsageError(f"policy={config.policy.label}: {error}") from None


def device_of(device: str) -> str:
    """Name the torch device that `device` stands for on this machine.

    Raises:
        UsageError: for a CUDA device that is not there.
    """
    if device == "cpu":
        return device
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda:0" if count else "cpu"
    index = int(device.partition(":")[2] or 0)
    if index >= count:
        allowed = ", ".join(["auto", "cpu", *(f"cuda:{number}" for number in range(count))])
        raise UsageError(f"device={device} is not on this machine: allowed are {allowed}")
    return f"cuda:{index}"


def batches(config: RunConfig) -> list[Batch]:
    """Cut the videos of a run into batches whatever is finished, and keep those with work left."""
    specs = runs.videos(config)
    cut = [tuple(specs[start : start + config.batch]) for start in range(0, len(specs), config.batch)]
    return [batch for batch in cut if runs.unfinished(batch)]


def _generate(
    configs: Sequence[RunConfig], progress: Progress, devices: Sequence[str], *, observer: Watch
) -> list[str]:
    work = _different(batch for config in configs if "generate" in config.stages for batch in batches(config))
    if not work:
        return []
    progress.start("generate", sum(len(batch) * batch[0].config.length.latent_frames for batch in work))
    _prepare(work)
    processes = min(max(config.workers for config in configs), len(work))
    if processes > 1:
        told = observer.generated
        return workers.generate_side_by_side(work, processes, progress.advance, devices=devices, told=told)
    failures = []
    for batch in work:
        failures += workers.generate_batch(batch, progress.advance)
        observer.generated(*batch)
    return failures


def _prepare(work: Sequence[Batch]) -> None:
    """Let every model of a run see all of its prompts before the first video: text encoders are large."""
    import torch

    from ff_bench import models

    prompts: dict[tuple[ModelConfig, str, str], list[PromptSpec]] = {}
    for batch in work:
        config = batch[0].config
        key = (config.model, config.device, config.dtype)
        prompts.setdefault(key, []).extend(spec.prompt for spec in batch)
    for (model, device, dtype), chosen in prompts.items():
        models.prepare(model, texts(chosen), device=device, dtype=getattr(torch, dtype))


def _different(work: Iterator[Batch]) -> list[Batch]:
    """Drop batches that another configuration makes as well, such as `full` under two budgets."""
    return list({tuple(spec.folder for spec in batch): batch for batch in work}.values())


def _finish(
    configs: Sequence[RunConfig], specs: Sequence[VideoSpec], failures: list[str], *, observer: Watch
) -> Outcome:
    """Write the tables of every run folder and, where asked, one report over all of them."""
    folders = [folder for folder in dict.fromkeys(spec.folder for spec in specs) if folder.is_dir()]
    rows = records.table(folders)
    tables: list[Path] = []
    scored = [spec for spec in specs if "score" in spec.config.stages]
    for folder in dict.fromkeys(spec.folder.parent for spec in scored):
        tables += records.write_tables(records.table(_siblings(folder)), folder)
    page, summary = None, ""
    if any("report" in config.stages for config in configs) and len(rows):
        from ff_bench import report

        out = configs[0].runs_dir / "reports" / report_name(configs, specs)
        made = report.make(folders, out)
        observer.reported(made.paths)
        page, summary = made.paths[0], made.summary
    return Outcome(rows=rows, failures=tuple(failures), tables=tuple(tables), report=page, summary=summary)


def report_over(
    paths: Sequence[Path], *, out: Path | None, baseline: str, tracker: Mapping[str, Any] | None = None
) -> tuple[Path, str, tuple[str, ...]]:
    """Make one report over every finished video under paths.

    Args:
        paths: folders of runs, at any depth, and tables of rows (.parquet, .csv).
        out: where to write; None names a folder after the videos, under `reports` of the first folder.
        baseline: policy that differences are taken to.
        tracker: settings of the tracker that is told; None tells nobody.

    Returns:
        The page, the tables as text for the terminal, and where the tracker shows them.

    Raises:
        UsageError: where nothing finished is found, `out` is a file, or the tracker cannot work here.
    """
    check_tracker(tracker)
    folders = runs.find(paths)
    asked = " ".join(map(str, paths))
    tables = [path for path in paths if path.is_file()]
    if not folders and not tables:
        raise UsageError(f"RUNS={asked} is not allowed: no finished video is there, run ff-bench first")
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"out={out} is not allowed: it is a file, out must be a directory")
    from ff_bench import report

    digest = hashlib.sha256("\n".join(map(str, [*folders, *tables])).encode()).hexdigest()[:8]
    root = next((path for path in paths if path.is_dir()), Path("runs"))
    with watch_report(tracker, name=f"report-{digest}", root=root) as observer:
        made = report.make(paths, out or root / "reports" / f"report-{digest}", baseline=baseline)
        observer.reported(made.paths)
    return made.paths[0], made.summary, observer.places


def _siblings(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{runs.ROWS}"))


def report_name(configs: Sequence[RunConfig], specs: Sequence[VideoSpec]) -> str:
    """Name a report after its run, or `sweep-` and a digest of the videos: same command, same folder."""
    digest = hashlib.sha256(" ".join(sorted({spec.video_id for spec in specs})).encode()).hexdigest()[:8]
    if len(configs) > 1:
        return f"sweep-{digest}"
    config = configs[0]
    tokens = "full" if config.budget.tokens is None else str(config.budget.tokens)
    length = f"b{tokens}-f{config.length.latent_frames}"
    return f"{config.model.name}-{config.policy.label}-{length}-{config.prompts.name}-{digest}"
