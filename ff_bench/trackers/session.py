"""Everything that one tracker hears of one run: a story per job, and one of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ff_bench import trackers
from ff_bench.trackers.readings import Job, Planned
from ff_bench.trackers.story import Story


@dataclass(frozen=True)
class Plan:
    """What a session is about.

    Attributes:
        settings: Of the tracker, checked.
        jobs: Of the run; none where only a report is made.
        report: What a report of the run belongs to.
    """

    settings: Mapping[str, Any]
    jobs: tuple[Job, ...]
    report: Job


class Session:
    """A run as one tracker hears it."""

    def __init__(self, plan: Plan) -> None:
        """Load the tracker; nothing is told yet."""
        self._tracker = trackers.load(plan.settings)
        self._report = plan.report
        self._stories = [Story(self._tracker, job) for job in plan.jobs]
        self._hearing: dict[Path, list[tuple[Story, Planned]]] = {}
        for story in self._stories:
            for planned in story.job.videos:
                self._hearing.setdefault(planned.folder, []).append((story, planned))

    def generated(self, folder: Path) -> None:
        """Tell every job that a video belongs to; one may belong to several."""
        for story, planned in self._hearing.get(folder, []):
            story.generated(planned)

    def scored(self, folder: Path) -> None:
        """Tell the scores of a video to every job that it belongs to."""
        for story, planned in self._hearing.get(folder, []):
            story.scored(planned)

    def reported(self, paths: Sequence[Path]) -> None:
        """Tell the report; its page is the first of its files."""
        Story(self._tracker, self._report).reported(paths)

    def end(self, *, is_whole: bool) -> None:
        """Close what is open."""
        for story in self._stories:
            story.end(is_whole=is_whole)

    def close(self) -> tuple[str, ...]:
        """Let the tracker go, and say where it can be seen."""
        self._tracker.close()
        return self._tracker.places()
