"""Jobs on other machines: each goes to a launcher of Hydra's with its overrides; what they make is read here.

A job is one configuration with its stages. Jobs and this process share `runs_dir` and the working directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from hydra._internal.callbacks import Callbacks
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig

from ff_bench import pipeline, runs, score, work
from ff_bench.bars import Progress
from ff_bench.compose import Job, Sweep, compose, session
from ff_bench.config import RunConfig
from ff_bench.pipeline import Outcome
from ff_bench.runs import VideoSpec
from ff_bench.trackers.watch import watch

if TYPE_CHECKING:
    from ff_bench.trackers.watch import Watch

LOOK = 5.0
"""Seconds between two looks at what jobs have finished."""


def execute(sweep: Sweep, progress: Progress) -> Outcome:
    """Hand every job with work left to the launcher of a sweep, wait, and make tables and report.

    Raises:
        UsageError: before anything is handed over.
    """
    jobs = [replace(job, config=pipeline.check_plan(job.config)) for job in sweep.jobs]
    configs = [job.config for job in jobs]
    specs = [spec for config in configs for spec in runs.videos(config)]
    with watch(configs, name=pipeline.report_name(configs, specs)) as observer:
        waiting = [spec for spec in specs if not runs.is_finished(spec.folder, spec.video_id)]
        made = [spec for config in configs if work.GENERATE in config.stages for spec in runs.videos(config)]
        with _progress(runs.unfinished(made), progress, observer):
            left = [job for job in jobs if _is_left(job.config)]
            failures = _launch(sweep, left, (work.GENERATE, work.SCORE))
            failures += _launch(sweep, _late(jobs, waiting), (work.SCORE,))
        pipeline.tell(configs, observer)
        outcome = pipeline.finish(configs, specs, list(dict.fromkeys(failures)), observer=observer)
    return replace(outcome, tracked=observer.places)


def run_job(composed: DictConfig, *, stages: Sequence[str], folder: str, config_dir: str | None) -> list[str]:
    """Be a job, wherever that is: compose and check its overrides here, then do its stages.

    Args:
        composed: the configuration as the launcher composed it; we compose it ourselves, as a run does.
        stages: that are done, of those that the configuration asks for.
        folder: working directory of whoever handed over the job.
        config_dir: a directory of configurations of the user's.

    Returns:
        A sentence per failure; nothing is raised, which would end jobs that have nothing to do with it.
    """
    words = [str(word) for word in HydraConfig.get().overrides.task]
    try:
        os.chdir(folder)
        config = compose(words, config_dir=config_dir).config
        kept = tuple(stage for stage in config.stages if stage in stages)
        return list(pipeline.execute([replace(config, stages=kept, tracker={"name": "none"})]).failures)
    except Exception as error:
        return [f"job {' '.join(words)}: {_words(error)}"]


def _launch(sweep: Sweep, jobs: Sequence[Job], stages: Sequence[str]) -> list[str]:
    """Hand jobs to the launcher and wait for all of them."""
    if not jobs:
        return []
    assert sweep.master is not None, sweep.launcher
    folder = str(Path(sweep.config_dir).resolve()) if sweep.config_dir else None
    task = partial(run_job, stages=tuple(stages), folder=str(Path.cwd()), config_dir=folder)
    overrides = [[word for word in job.overrides if not _is_hydras(word)] for job in jobs]
    try:
        with session(sweep.config_dir) as hydra:
            context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks())
            launcher = Plugins.instance().instantiate_launcher(
                hydra_context=context, task_function=task, config=sweep.master
            )
            returns = launcher.launch(overrides, initial_job_idx=0)
        return [sentence for one in returns for sentence in one.return_value]
    except Exception as error:
        return [
            f"hydra/launcher={sweep.launcher}: it gave up on a job ({_words(error)}); others may still run, "
            "and the same command waits for them"
        ]


def _is_left(config: RunConfig) -> bool:
    """Say whether a job has anything to do."""
    specs = runs.videos(config)
    is_made = work.GENERATE not in config.stages or not runs.unfinished(specs)
    is_scored = work.SCORE not in config.stages or all(score.is_scored(spec) for spec in specs)
    return not (is_made and is_scored)


def _late(jobs: Sequence[Job], waiting: Sequence[VideoSpec]) -> list[Job]:
    """Find the jobs whose videos were scored before another job had made what they are compared with."""
    came = {spec.folder for spec in waiting if runs.is_finished(spec.folder, spec.video_id)}

    def is_late(spec: VideoSpec) -> bool:
        return spec.reference.folder in came and not score.is_scored(spec)

    scored = [job for job in jobs if work.SCORE in job.config.stages]
    return [job for job in scored if any(is_late(spec) for spec in runs.videos(job.config))]


@contextmanager
def _progress(specs: Sequence[VideoSpec], progress: Progress, observer: Watch) -> Iterator[None]:
    """Look at the folders of videos from time to time, as jobs elsewhere do not tell."""
    over = Event()

    def look() -> None:
        left = list(specs)
        while not over.wait(LOOK):
            for spec in [one for one in left if runs.is_finished(one.folder, one.video_id)]:
                left.remove(spec)
                progress.advance(work.GENERATE, spec.config.length.latent_frames)
                observer.generated(spec)

    if specs:
        progress.start(work.GENERATE, sum(spec.config.length.latent_frames for spec in specs))
    thread = Thread(target=look, name="jobs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _is_hydras(word: str) -> bool:
    return word.lstrip("+~").startswith(("hydra.", "hydra/"))


def _words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" -")]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300]
