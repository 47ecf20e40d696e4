"""The work of a run as tasks: a model sees its prompts, batches are generated, videos are scored."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from ff_bench import masking, metrics, runs, score
from ff_bench.config import ModelConfig, RunConfig, texts
from ff_bench.errors import Skipped, UsageError, told
from ff_bench.queue.task import Advance, Task
from ff_bench.runs import VideoSpec

LOGGER = logging.getLogger(__name__)
Batch = tuple[VideoSpec, ...]
Told = Callable[[VideoSpec], None]
GENERATE, SCORE = "generate", "score"


@dataclass(frozen=True)
class Listener:
    """Who is told, in this process, that a video was generated or scored."""

    generated: Told
    scored: Told


def tasks_of(configs: Sequence[RunConfig], listener: Listener, *, overlap: bool) -> list[Task]:
    """List what is left to do of a run; what is finished is no task.

    Videos that others are compared with come first, so that scoring can begin.

    Args:
        configs: Checked.
        listener: Told of videos.
        overlap: Whether a video is scored as soon as what it needs is there, rather than when all are made.
    """
    wanted = (batch for config in configs if GENERATE in config.stages for batch in batches(config))
    work = sorted(_different(wanted), key=lambda batch: not batch[0].config.policy.is_full)
    loads: dict[tuple[ModelConfig, str, str], list[Batch]] = defaultdict(list)
    for batch in work:
        config = batch[0].config
        loads[config.model, config.device, config.dtype].append(batch)
    made: dict[object, set[str]] = defaultdict(set)
    tasks = []
    for number, (load, own) in enumerate(loads.items()):
        prepared = _prepare_task(f"prepare {number}", load, own)
        tasks.append(prepared)
        for batch in own:
            task = _generate_task(batch, load, after=prepared.key, listener=listener)
            tasks.append(task)
            for spec in batch:
                made[spec.folder].add(task.key)
    return [*tasks, *_score_tasks(configs, made, listener, rank=0 if overlap else 2)]


def batches(config: RunConfig) -> list[Batch]:
    """Cut the videos of a run into batches whatever is finished, and keep those with work left."""
    specs = runs.videos(config)
    cut = [tuple(specs[start : start + config.batch]) for start in range(0, len(specs), config.batch)]
    return [batch for batch in cut if runs.unfinished(batch)]


def prepare(model: ModelConfig, device: str, dtype: str, prompts: Sequence[str], _: Advance) -> list[str]:
    """Let a model see all of its prompts before the first video: text encoders are large."""
    import torch

    from ff_bench import models

    models.prepare(model, prompts, device=device, dtype=getattr(torch, dtype))
    return []


def generate_batch(batch: Batch, advance: Advance) -> list[str]:
    """Generate one batch; an error becomes a row and a sentence, so that other videos go on.

    Args:
        batch: Videos side by side; finished ones among them are made along but not written.
        advance: Called with latent frames as they are done.

    Returns:
        A sentence per video that failed.

    Raises:
        Locked: Where another process works on one of them.
        UsageError: For a file that does not fit: the user mends it, and the next video would meet it as well.
    """
    from ff_bench import generate, surroundings

    config = batch[0].config
    try:
        with surroundings.kept():
            generate.generate(config, list(batch), advance)
    except (runs.Locked, UsageError, KeyboardInterrupt):
        raise
    except Exception as error:
        LOGGER.debug("batch failed", exc_info=True)
        return give_up(batch, error)
    except SystemExit as error:  # nothing of ours raises it: a policy of the user's must not end the run
        return give_up(batch, f"its policy called exit({error.code})")
    except BaseException as error:
        return give_up(batch, f"its policy raised {told(error)}")
    return []


def score_videos(specs: Sequence[VideoSpec], advance: Advance) -> list[str]:
    """Score the videos of one folder, which several configurations of a sweep may share."""
    return [sentence for spec in specs for sentence in score.score_video(spec)]


def give_up(batch: Batch, error: Exception | str, *, here: str = "") -> list[str]:
    """Write the rows of the videos of a batch that are not finished, and say which they are.

    Args:
        batch: The videos.
        error: Why.
        here: Device of this process, where it is not the one that the batch ran on.
    """
    status = "skipped" if isinstance(error, Skipped) else "failed"
    lost = [spec for spec in batch if not runs.is_finished(spec.folder, spec.video_id)]
    raised = error if isinstance(error, Exception) else Died(error)
    for spec in lost:
        device = spec.config.device
        seen = replace(spec, config=replace(spec.config, device=here)) if here else spec
        with suppress(runs.Locked), runs.lock(spec.folder):  # another process may be making it
            if not runs.is_finished(spec.folder, spec.video_id):
                score.record_failure(seen, raised, device=device, status=status)
    reason = masking.text(told(raised))
    return [] if status == "skipped" else [f"{spec.relative_folder}: {reason}" for spec in lost]


class Died(RuntimeError):
    """The process that worked on a video died."""


def _prepare_task(key: str, load: tuple[ModelConfig, str, str], own: Sequence[Batch]) -> Task:
    prompts = texts([spec.prompt for batch in own for spec in batch])
    # Where it is lost, the videos that need it meet the same and say so.
    return Task(key, partial(prepare, *load, prompts), lost=lambda _: [], size=0, rank=0, likes=load)


def _generate_task(
    batch: Batch, load: tuple[ModelConfig, str, str], *, after: str, listener: Listener
) -> Task:
    def done() -> None:
        for spec in batch:
            listener.generated(spec)

    return Task(
        key=f"{GENERATE} {' '.join(str(spec.folder) for spec in batch)}", work=partial(generate_batch, batch),
        lost=lambda reason: give_up(batch, reason, here="cpu"), done=done, stage=GENERATE,
        size=len(batch) * batch[0].config.length.latent_frames, after=frozenset({after}), rank=1, likes=load,
    )  # fmt: skip


def _score_tasks(
    configs: Sequence[RunConfig], made: dict[object, set[str]], listener: Listener, *, rank: int
) -> Iterator[Task]:
    shared: dict[object, list[VideoSpec]] = defaultdict(list)
    for config in configs:
        for spec in runs.videos(config) if SCORE in config.stages else ():
            shared[spec.folder].append(spec)
    for folder, specs in shared.items():
        after = set(made.get(folder, ()))
        for spec in specs:
            after |= made.get(spec.reference.folder, set()) if _compares(spec.config) else set()
        if after or not all(score.is_scored(spec) for spec in specs):
            yield _score_task(tuple(specs), frozenset(after), listener, rank=rank)


def _score_task(specs: Batch, after: frozenset[str], listener: Listener, *, rank: int) -> Task:
    name = specs[0].relative_folder
    return Task(
        key=f"{SCORE} {specs[0].folder}", work=partial(score_videos, specs),
        lost=lambda reason: [f"{name}: scores were lost: {reason}"],
        done=lambda: listener.scored(specs[0]), stage=SCORE, after=after, rank=rank,
    )  # fmt: skip


def _compares(config: RunConfig) -> bool:
    """Say whether a metric of a run compares with the full-cache video."""
    return any(metrics.load(name, settings).needs_reference for name, settings in config.metrics.items())


def _different(work: Iterable[Batch]) -> list[Batch]:
    """Drop batches that another configuration makes as well, such as `full` under two budgets."""
    return list({tuple(spec.folder for spec in batch): batch for batch in work}.values())
