"""The observer of a run: the one thing that the pipeline tells what happens, and that knows of trackers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ff_bench import files

if TYPE_CHECKING:
    from ff_bench.config import RunConfig
    from ff_bench.runs import VideoSpec
    from ff_bench.trackers.session import Plan
    from ff_bench.trackers.teller import Teller

LOGGER = logging.getLogger(__name__)
NONE = "none"
WAIT_AFTER_ERROR = 5
"""Seconds that a run which was interrupted waits for trackers."""


class Watch:
    """Passes on what happens to every tracker of a run; mostly there is none."""

    def __init__(self, tellers: Sequence[Teller] = ()) -> None:
        """Listen."""
        self.places: tuple[str, ...] = ()
        self._tellers = tuple(tellers)

    def __enter__(self) -> Watch:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the trackers; a run that was interrupted does not wait for long."""
        for teller in self._tellers:
            wait = teller.wait if kind is None else min(teller.wait, WAIT_AFTER_ERROR)
            self.places += teller.end(is_whole=kind is None, wait=wait)

    def generated(self, *specs: VideoSpec) -> None:
        """Say that videos may be finished."""
        for teller in self._tellers:
            for spec in specs:
                teller.tell("generated", [spec.folder.absolute()])

    def scored(self, spec: VideoSpec) -> None:
        """Say that a video has all the scores that it will get."""
        for teller in self._tellers:
            teller.tell("scored", [spec.folder.absolute()])

    def reported(self, paths: Sequence[Path]) -> None:
        """Say that a report was made of these files, its page first."""
        for teller in self._tellers:
            teller.tell("reported", [path.absolute() for path in paths])


def watch(configs: Sequence[RunConfig], *, name: str) -> Watch:
    """Watch a run with the trackers of its configurations, checked before.

    Args:
        configs: Of the run.
        name: Of the run: what its jobs have in common.
    """
    groups: dict[str, list[RunConfig]] = {}
    for config in configs:
        if is_on(config.tracker):
            groups.setdefault(files.canonical(config.tracker), []).append(config)
    if not groups:
        return Watch()
    from ff_bench.trackers.jobs import plan_of

    return _start([plan_of(own[0].tracker, own, name=name, root=own[0].runs_dir) for own in groups.values()])


def watch_report(settings: Mapping[str, Any] | None, *, name: str, root: Path) -> Watch:
    """Watch a report that is made by itself.

    Args:
        settings: Of the tracker, checked; None where there is none.
        name: Of the report.
        root: Directory of runs.
    """
    if settings is None or not is_on(settings):
        return Watch()
    from ff_bench.trackers.jobs import plan_of

    return _start([plan_of(settings, (), name=name, root=root)])


def check_tracker(settings: Mapping[str, Any] | None) -> None:
    """Check the settings of a tracker, and that its library is here.

    Raises:
        UsageError: With one sentence.
    """
    if settings is not None and settings["name"] != NONE:
        from ff_bench import trackers

        trackers.check(settings)


def is_on(settings: Mapping[str, Any]) -> bool:
    """Say whether settings name a tracker that does anything."""
    return settings["name"] != NONE and settings.get("mode") != "disabled"


def _start(plans: Sequence[Plan]) -> Watch:
    """Start a process per tracker; where that is not possible, such as in a process of a pool, go without."""
    from ff_bench.trackers.teller import Teller

    tellers = []
    for plan in plans:
        try:
            tellers.append(Teller(plan))
        except Exception as error:
            LOGGER.warning("tracker=%s is off, it cannot be started: %s", plan.settings["name"], error)
    return Watch(tellers)
