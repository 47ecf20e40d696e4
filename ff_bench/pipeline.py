"""From checked configurations to rows: generate, score, report; stages are joined by files only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ff_bench import files, metrics, records, runs, work
from ff_bench.bars import Progress, Silent
from ff_bench.config import RunConfig, texts
from ff_bench.errors import UsageError, told
from ff_bench.queue import crew
from ff_bench.queue.slots import Slots, devices_for, for_workers
from ff_bench.report_options import Asked
from ff_bench.runs import VideoSpec
from ff_bench.trackers.watch import Watch, check_tracker, watch, watch_report

if TYPE_CHECKING:
    import pandas


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


def execute(
    configs: Sequence[RunConfig], *, progress: Progress | None = None, slots: Slots | None = None
) -> Outcome:
    """Run configurations: every video is generated and scored, then there is one report.

    Args:
        configs: as composed.
        progress: where progress goes.
        slots: where work is done; None follows `workers`.

    Raises:
        UsageError: before anything is written, for what only torch or the machine can tell.
    """
    slots = slots or slots_of(configs)
    configs = [check(config) for config in configs]
    specs = [spec for config in configs for spec in runs.videos(config)]
    with watch(configs, name=report_name(configs, specs)) as observer:
        failures = make(configs, slots, progress or Silent(), observer=observer)
        outcome = finish(configs, specs, failures, observer=observer)
    return replace(outcome, tracked=observer.places)


def slots_of(configs: Sequence[RunConfig]) -> Slots:
    """Return where the work of configurations is done by their own `workers` and `device`."""
    workers = max(config.workers for config in configs)
    return for_workers(workers, devices_for(config.device for config in configs))


def make(configs: Sequence[RunConfig], slots: Slots, progress: Progress, *, observer: Watch) -> list[str]:
    """Generate and score every video that is not finished.

    Args:
        configs: checked.
        slots: where.
        progress: told of both stages.
        observer: told of every video, those that were finished before as well.

    Returns:
        A sentence per video or metric that failed.
    """
    listener = work.Listener(generated=observer.generated, scored=observer.scored)
    tasks = work.tasks_of(configs, listener, overlap=not slots.is_inside)
    for stage in (work.GENERATE, work.SCORE):
        total = sum(task.size for task in tasks if task.stage == stage)
        if total:
            progress.start(stage, total)
    failures = crew.run(tasks, slots, progress.advance)
    tell(configs, observer)
    return failures


def tell(configs: Sequence[RunConfig], observer: Watch) -> None:
    """Tell of every video of configurations, which an observer hears once each."""
    for config in configs:
        for spec in runs.videos(config):
            observer.generated(spec)
            if work.SCORE in config.stages:
                observer.scored(spec)


def check(config: RunConfig) -> RunConfig:
    """Check what needs torch or the machine, and name the device; nothing is loaded or written.

    Raises:
        UsageError: for a hyper-parameter out of its range, an absent device or absent weights.
    """
    check_plan(config)
    if {work.GENERATE, work.SCORE} & set(config.stages) and not config.dry_run:
        return replace(config, device=device_of(config.device))
    return config


def check_plan(config: RunConfig) -> RunConfig:
    """Check what does not depend on the device of this machine.

    Raises:
        UsageError: for a hyper-parameter out of its range, absent weights, or a tracker that cannot work.
    """
    check_policy(config)
    if not config.dry_run:
        if runs.unfinished(runs.videos(config)):
            check_files(config)
        check_metrics(config)
        check_tracker(config.tracker)
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
    """Let the policy check its hyper-parameters, what goes around it, and the protocol against them.

    Raises:
        UsageError: with the policy's own sentence.
    """
    from ff_bench.making import make_policy, make_protocol

    try:
        make_policy(config).check(make_protocol(config))
    except (ValueError, TypeError) as error:
        raise UsageError(f"policy={config.policy.label}: {error}") from None
    except (Exception, SystemExit) as error:  # a policy of the user's may raise anything
        raise UsageError(f"policy={config.policy.label}: {told(error)}") from None


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


def finish(
    configs: Sequence[RunConfig], specs: Sequence[VideoSpec], failures: Sequence[str], *, observer: Watch
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
    _sweep_up(configs, specs)
    return Outcome(rows=rows, failures=tuple(failures), tables=tuple(tables), report=page, summary=summary)


def _sweep_up(configs: Sequence[RunConfig], specs: Sequence[VideoSpec]) -> None:
    """Remove what processes that were killed have left half-written in the folders of a run."""
    deep = [spec.folder for spec in specs]
    deep += [config.runs_dir / config.model.name / runs.PREFIXES for config in configs]
    for folder in dict.fromkeys(deep):
        files.sweep_up(folder)
    for folder in dict.fromkeys(spec.folder.parent for spec in specs):
        files.sweep_up(folder, deep=False)


def report_over(
    paths: Sequence[Path], *, out: Path | None, asked: Asked, tracker: Mapping[str, Any] | None = None
) -> tuple[Path, str, tuple[str, ...]]:
    """Make one report over every finished video under paths.

    Args:
        paths: folders of runs, at any depth, and tables of rows (.parquet, .csv).
        out: where to write; None names a folder after the videos, under `reports` of the first folder.
        asked: what the report is asked for.
        tracker: settings of the tracker that is told; None tells nobody.

    Returns:
        The page, the tables as text for the terminal, and where the tracker shows them.

    Raises:
        UsageError: where nothing finished is found, `out` is a file, or the tracker cannot work here.
    """
    check_tracker(tracker)
    folders = runs.find(paths)
    tables = [path for path in paths if path.is_file()]
    if not folders and not tables:
        told = " ".join(map(str, paths))
        raise UsageError(f"RUNS={told} is not allowed: no finished video is there, run ff-bench first")
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"out={out} is not allowed: it is a file, out must be a directory")
    from ff_bench import report

    digest = hashlib.sha256("\n".join(map(str, [*folders, *tables])).encode()).hexdigest()[:8]
    root = next((path for path in paths if path.is_dir()), Path("runs"))
    with watch_report(tracker, name=f"report-{digest}", root=root) as observer:
        out = out or root / "reports" / f"report-{digest}"
        made = report.make(
            paths, out, baseline=asked.baseline, columns=asked.columns, margins=asked.margins,
            blind=asked.blind, votes=asked.votes,
        )  # fmt: skip
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
