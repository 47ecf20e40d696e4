"""Slots: how many workers run side by side, and what each computes on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

VISIBLE = "CUDA_VISIBLE_DEVICES"
THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Slots:
    """Where workers run.

    Attributes:
        count: Workers side by side.
        devices: GPUs, as CUDA_VISIBLE_DEVICES names them, dealt out to the workers in turn: each sees one, as
            `cuda:0`. Without any, every worker sees what this process sees.
        retries: How often a task whose worker died is tried again.
        is_inside: Whether this process does the work itself.
    """

    count: int = 1
    devices: tuple[str, ...] = ()
    retries: int = 1
    is_inside: bool = False

    def device(self, slot: int) -> str:
        """Return the GPU of a slot, empty where none was dealt out."""
        return self.devices[slot % len(self.devices)] if self.devices else ""

    def name(self, slot: int) -> str:
        """Name a slot, or its GPU, for people."""
        return f"GPU {self.device(slot)}" if self.devices else f"slot {slot + 1} of {self.count}"


def for_workers(workers: int, devices: tuple[str, ...]) -> Slots:
    """Return the slots of `workers=N`; one worker is this process."""
    return Slots(workers, devices, is_inside=workers == 1)


def for_machine(count: int | None, devices: tuple[str, ...], *, on_gpu: bool, retries: int) -> Slots:
    """Return the slots of `hydra/launcher=gpus`.

    Args:
        count: Slots asked for; None: one per GPU, on a CPU one per two cores.
        devices: GPUs that workers share, from `devices_for`.
        on_gpu: Whether work runs on a GPU, such as the only one.
        retries: How often a task whose worker died is tried again.
    """
    if count is None:
        count = len(devices) or (1 if on_gpu else max(1, cores() // 2))
    return Slots(count, devices, retries)


def devices_for(asked: Iterable[str]) -> tuple[str, ...]:
    """Return the GPUs that processes may share, as CUDA_VISIBLE_DEVICES names them.

    Args:
        asked: Devices as users ask for them; a number, or the processor, leaves nothing to choose.

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


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def threads_for(processes: int) -> Iterator[None]:
    """Share the cores between processes that are started inside."""
    before = os.environ.get(THREADS)
    os.environ[THREADS] = before or str(max(1, cores() // processes))
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS]
