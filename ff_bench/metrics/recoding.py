"""Clips on their way through the codec step, several at once: in threads, or beside a GPU in processes.

Threads share one interpreter lock with whoever feeds a GPU; every frame that one of them hands over holds up
the next kernel. Processes do not, and share memory instead: a clip is copied there and comes back there.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from multiprocessing import get_context
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from ff_bench import video
from ff_bench.processes import follow_parent

AHEAD = 2
"""Clips that wait for the codec step beside those in work."""
MOST = 8
"""Most clips in work at once."""
Submit = Callable[[np.ndarray, int], Callable[[], np.ndarray]]
"""Begins the codec step of a clip; what it returns waits for the result."""


def recoded(
    whole: Iterable[np.ndarray], rate: int, *, beside_gpu: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each clip with what the codec step makes of it, in order.

    Args:
        whole: Clips, (n, H, W, 3) uint8, even sides.
        rate: Frames per second that the encoder is told.
        beside_gpu: Whether to use processes.
    """
    workers = max(1, min(MOST, (os.cpu_count() or 1) - 1))
    waiting: deque[tuple[np.ndarray, Callable[[], np.ndarray]]] = deque()
    with _processes(workers) if beside_gpu else _threads(workers) as submit:
        for clip in whole:
            waiting.append((clip, submit(clip, rate)))
            if len(waiting) > workers + AHEAD:
                first, wait = waiting.popleft()
                yield first, wait()
        while waiting:
            first, wait = waiting.popleft()
            yield first, wait()


@contextmanager
def _threads(workers: int) -> Iterator[Submit]:
    with ThreadPoolExecutor(workers, thread_name_prefix="codec") as pool:
        yield lambda clip, rate: pool.submit(_recode, clip, rate).result


@contextmanager
def _processes(workers: int) -> Iterator[Submit]:
    pool = _pool(workers)
    held: dict[str, SharedMemory] = {}

    def submit(clip: np.ndarray, rate: int) -> Callable[[], np.ndarray]:
        memory = SharedMemory(create=True, size=clip.nbytes)
        held[memory.name] = memory
        np.ndarray(clip.shape, np.uint8, memory.buf)[:] = clip
        done = pool.submit(_recode_shared, memory.name, clip.shape, rate)
        return partial(_collect, done, held, memory.name, clip.shape)

    try:
        yield submit
    finally:  # of a pass that broke off; workers may still read them, which a name that is gone does not hurt
        for memory in held.values():
            memory.close()
            memory.unlink()


def _collect(
    done: Future[None], held: dict[str, SharedMemory], name: str, shape: tuple[int, ...]
) -> np.ndarray:
    done.result()
    memory = held.pop(name)
    frames = np.ndarray(shape, np.uint8, memory.buf).copy()
    memory.close()
    memory.unlink()
    return frames


@lru_cache(maxsize=1)
def _pool(workers: int) -> ProcessPoolExecutor:
    """Start the processes once; they serve every video and end with this process."""
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=follow_parent)


def _recode(clip: np.ndarray, rate: int) -> np.ndarray:
    return np.stack(list(video.recode(clip, rate)))


def _recode_shared(name: str, shape: tuple[int, ...], rate: int) -> None:
    """Replace a clip in shared memory by what the codec step makes of it."""
    memory = SharedMemory(name=name)
    try:
        frames = np.ndarray(shape, np.uint8, memory.buf)
        frames[:] = _recode(frames, rate)
        del frames
    finally:
        memory.close()
