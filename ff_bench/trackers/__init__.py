"""Trackers: places beside the run folders that a run can be followed in, found by name in one table.

A tracker is told what the folders of finished videos hold; nothing of a run depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ff_bench.errors import UsageError
from ff_bench.trackers.readings import Comparison, Job, Scored, Video

__all__ = ["NONE", "TRACKERS", "Tracker", "check", "load"]

NONE = "none"
TRACKERS: Mapping[str, str] = {
    "wandb": "ff_bench.trackers.wandb:Wandb",
    "tensorboard": "ff_bench.trackers.tensorboard:Tensorboard",
    "csv": "ff_bench.trackers.csv:Csv",
}
LIBRARIES: Mapping[str, str] = {"wandb": "wandb", "tensorboard": "tensorboard"}
"""What a tracker imports beside this package; the extra has the tracker's name."""


class Tracker(Protocol):
    """Where runs are told. One thread calls, in order; whatever is raised ends this tracker, not the run.

    Attributes:
        resumes: After `begin`: whether the place still has what it was told before this process.
    """

    resumes: bool

    def note(self, job: Job) -> Path:
        """Return the file that remembers what of a job has been told."""

    def begin(self, job: Job) -> None:
        """Open a job; its configuration is known."""

    def generated(self, job: Job, video: Video) -> None:
        """Tell a finished video: its curves over chunks, and the file to look at."""

    def scored(self, job: Job, scored: Scored, means: Mapping[str, float]) -> None:
        """Tell the curves over windows of a video, and the means of the job so far."""

    def reported(self, job: Job, comparison: Comparison) -> None:
        """Tell a report."""

    def end(self, job: Job, rows: Sequence[Mapping[str, Any]], *, is_whole: bool) -> bool:
        """Close a job.

        Args:
            job: The job.
            rows: Rows over whole videos, of all of its videos.
            is_whole: Whether everything was made.

        Returns:
            Whether everything has arrived where the settings want it.
        """

    def close(self) -> None:
        """Let go of everything, also of jobs that did not end."""

    def places(self) -> tuple[str, ...]:
        """Say where it can be seen."""


def load(settings: Mapping[str, Any]) -> Tracker:
    """Make the tracker that checked settings name."""
    module, _, attribute = TRACKERS[str(settings["name"])].partition(":")
    tracker: Tracker = getattr(import_module(module), attribute)(settings)
    return tracker


def check(settings: Mapping[str, Any]) -> None:
    """Check the settings of a tracker, and that what it imports is here.

    Raises:
        UsageError: Which setting is wrong, or which library is missing and how to get it.
    """
    name = str(settings["name"])
    if name == NONE:
        return
    if name not in TRACKERS:
        raise UsageError(f"tracker.name={name} is not allowed: choose a tracker by tracker=NAME")
    module = import_module(TRACKERS[name].partition(":")[0])
    module.check(settings)
    library = LIBRARIES.get(name)
    if library is not None and settings.get("mode") != "disabled" and not _is_here(library):
        raise UsageError(f"tracker={name} needs the library '{library}': pip install 'ff-bench[{name}]'")


def _is_here(library: str) -> bool:
    """Say whether a library can be imported; a folder of that name without code, such as of runs, is none."""
    try:
        spec = find_spec(library)
    except ValueError:  # it is imported and has no origin
        return True
    return spec is not None and spec.origin is not None
