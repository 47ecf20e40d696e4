"""Batches of videos, one after the other or in processes side by side; an error becomes a row."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from typing import TypeVar

from ff_bench import runs, score
from ff_bench.errors import Skipped, UsageError
from ff_bench.processes import follow_parent
from ff_bench.runs import VideoSpec

LOGGER = logging.getLogger(__name__)
Batch = tuple[VideoSpec, ...]
Item = TypeVar("Item")
VISIBLE = "CUDA_VISIBLE_DEVICES"


def generate_batch(batch: Batch, advance: Callable[[int], None] = lambda _: None) -> list[str]:
    """Generate one batch; an error becomes a row and a sentence, so that other videos go on.

    Args:
        batch: videos side by side; finished ones among them are made along but not written.
        advance: called with latent frames as they are done.

    Returns:
        A sentence per video that failed.
    """
    from ff_bench import generate

    config = batch[0].config
    try:
        generate.generate(config, list(batch), advance)
    except runs.Locked as error:
        return [str(error)]
    except UsageError:
        raise  # a file that does not fit: the user mends it, and the next video would meet it as well
    except Exception as error:
        LOGGER.debug("batch failed", exc_info=True)
        return _give_up(batch, error)
    return []


def devices_for(asked: Iterable[str]) -> tuple[str, ...]:
    """Return the GPUs that processes may share, as CUDA_VISIBLE_DEVICES names them.

    Args:
        asked: devices as users ask for them; a number, or the processor, leaves nothing to choose.

    Returns:
        Two or more, or none.
    """
    if not {*asked} <= {"auto", "cuda"}:
        return ()
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    listed = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    names = listed[:count] if listed else [str(number) for number in range(count)]
    return tuple(names) if len(names) > 1 else ()


def generate_side_by_side(
    work: Sequence[Batch],
    processes: int,
    advance: Callable[[int], None],
    *,
    devices: Sequence[str] = (),
    told: Callable[[VideoSpec], None] = lambda _: None,
) -> list[str]:
    """Generate batches in processes of their own.

    Args:
        work: the batches.
        processes: how many run at once; the cores are shared between them.
        advance: called with latent frames as batches are done.
        devices: GPUs that the processes share, from `devices_for`.
        told: called with each video of a batch that is done.

    Returns:
        A sentence per video that failed.
    """

    def done(batch: Batch) -> None:
        advance(len(batch) * batch[0].config.length.latent_frames)
        for spec in batch:
            told(spec)

    return side_by_side(generate_batch, work, processes, done=done, lost=_give_up, devices=devices)


def score_side_by_side(
    work: Sequence[VideoSpec],
    processes: int,
    advance: Callable[[int], None],
    *,
    devices: Sequence[str] = (),
    told: Callable[[VideoSpec], None] = lambda _: None,
) -> list[str]:
    """Score videos in processes of their own.

    Args:
        work: the videos.
        processes: how many run at once.
        advance: called with 1 after each video.
        devices: GPUs that the processes share, from `devices_for`.
        told: called with each video that is done.

    Returns:
        A sentence per metric that failed.
    """

    def lost(spec: VideoSpec, error: Exception) -> list[str]:
        return [f"{spec.relative_folder}: scores were lost: {error}"]

    def done(spec: VideoSpec) -> None:
        advance(1)
        told(spec)

    return side_by_side(score.score_video, work, processes, done=done, lost=lost, devices=devices)


def side_by_side(
    task: Callable[[Item], list[str]],
    work: Sequence[Item],
    processes: int,
    *,
    done: Callable[[Item], None],
    lost: Callable[[Item, Exception], list[str]],
    devices: Sequence[str] = (),
) -> list[str]:
    """Run a task over items in processes that end with this one.

    Args:
        task: what is done with an item; it and the items travel to other processes.
        work: the items.
        processes: how many run at once.
        done: called in this process after each item.
        lost: answers for a process that died.
        devices: GPUs, as CUDA_VISIBLE_DEVICES names them, that are dealt out to the processes in turn: each
            sees one, as `cuda:0`. Without any, every process sees what this one sees.

    Returns:
        A sentence per failure.
    """
    failures: list[str] = []
    context = get_context("spawn")
    dealt = context.SimpleQueue()
    for number in range(processes if devices else 0):
        dealt.put(devices[number % len(devices)])
    with (
        _threads_for(processes),
        ProcessPoolExecutor(
            processes, mp_context=context, initializer=_begin, initargs=(dealt if devices else None,)
        ) as pool,
    ):
        futures = {pool.submit(task, item): item for item in work}
        try:
            for future in as_completed(futures):
                item = futures[future]
                try:
                    failures += future.result()
                except BrokenProcessPool as error:
                    failures += lost(item, error)
                done(item)
        except BaseException:
            children = list(pool._processes.values())  # shutdown forgets them
            pool.shutdown(wait=False, cancel_futures=True)
            for child in children:
                child.terminate()
            raise
    return failures


def _give_up(batch: Batch, error: Exception) -> list[str]:
    """Write the rows of the videos of a batch that are not finished, and say which they are."""
    status = "skipped" if isinstance(error, Skipped) else "failed"
    lost = [spec for spec in batch if not runs.is_finished(spec.folder, spec.video_id)]
    for spec in lost:
        score.record_failure(spec, error, device=spec.config.device, status=status)
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return [] if status == "skipped" else [f"{spec.relative_folder}: {reason}" for spec in lost]


def _begin(dealt: SimpleQueue[str] | None) -> None:
    """Begin a process: take a GPU, which counts only before the first use of CUDA."""
    if dealt is not None:
        os.environ[VISIBLE] = dealt.get()
    follow_parent()


@contextmanager
def _threads_for(processes: int) -> Iterator[None]:
    """Share the cores between processes that are started inside."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = before or str(max(1, (os.cpu_count() or 1) // processes))
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
