"""Where the jobs of a command line run: here, on the slots of this machine, or by a launcher of Hydra's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from ff_bench import checks
from ff_bench.errors import UsageError
from ff_bench.queue.slots import Slots, devices_for, for_machine

if TYPE_CHECKING:
    from ff_bench.bars import Progress
    from ff_bench.compose import Sweep
    from ff_bench.pipeline import Outcome

BASIC, GPUS = "basic", "gpus"
FIELDS = ("slots", "retries")
OWN = (BASIC, GPUS)
"""Launchers of ours; every other one is a plug-in of Hydra's."""


def execute(sweep: Sweep, progress: Progress) -> Outcome:
    """Run a checked sweep where its launcher says.

    Raises:
        UsageError: for a launcher that is set wrongly, and for what only torch or the machine can tell.
    """
    from ff_bench import handover, pipeline

    if sweep.launcher not in OWN:
        return handover.execute(sweep, progress)
    return pipeline.execute([job.config for job in sweep.jobs], progress=progress, slots=slots_of(sweep))


def slots_of(sweep: Sweep) -> Slots:
    """Return the slots of a sweep on this machine.

    Raises:
        UsageError: for a field of `hydra/launcher=gpus` that is not allowed.
    """
    from ff_bench import pipeline

    configs = [job.config for job in sweep.jobs]
    if sweep.launcher != GPUS:
        return pipeline.slots_of(configs)
    count, retries = read(_fields(sweep))
    workers = max(config.workers for config in configs)
    if count is None and workers > 1:
        count = workers
    devices = devices_for(config.device for config in configs)
    on_gpu = any(pipeline.device_of(config.device) != "cpu" for config in configs)
    return for_machine(count, devices, on_gpu=on_gpu, retries=retries)


def width(sweep: Sweep) -> int:
    """Count what runs side by side; of jobs elsewhere, all of them."""
    workers = max(job.config.workers for job in sweep.jobs)
    if sweep.launcher == GPUS:
        return slots_of(sweep).count
    return workers if sweep.launcher == BASIC else workers * len(sweep.jobs)


def read(fields: Mapping[str, Any]) -> tuple[int | None, int]:
    """Check the fields of `hydra/launcher=gpus`.

    Returns:
        Slots, None for as many as the machine offers, and how often a task whose worker died is tried again.

    Raises:
        UsageError: with field, value and what is allowed.
    """
    for key, value in fields.items():
        if key not in FIELDS:
            known = [f"hydra.launcher.{name}" for name in FIELDS]
            raise checks.unknown_key(f"hydra.launcher.{key}", value, known)
    slots, retries = fields.get("slots"), fields.get("retries", 1)
    count = None if slots is None else checks.whole("hydra.launcher.slots", slots, low=1, high=256)
    return count, checks.whole("hydra.launcher.retries", retries, low=0, high=10)


def _fields(sweep: Sweep) -> dict[str, Any]:
    if sweep.master is None:
        raise UsageError("hydra/launcher=gpus has no configuration")
    plain = OmegaConf.to_container(sweep.master.hydra.launcher, resolve=True)
    return {str(key): value for key, value in plain.items()} if isinstance(plain, dict) else {}
