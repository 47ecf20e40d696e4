"""What of one job has been told to one tracker: each thing once, over several starts of the same command."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ff_bench import files, records, runs
from ff_bench.trackers import Tracker
from ff_bench.trackers.readings import Job, Planned, comparison_of, means, scored_of, video_of


class Story:
    """A job as one tracker hears it; it begins with the first thing that the tracker was not told before."""

    def __init__(self, tracker: Tracker, job: Job) -> None:
        """Know the videos; nothing is read or told yet."""
        self.job = job
        self._tracker = tracker
        self._waiting = {planned.folder for planned in job.videos}
        self._known: frozenset[str] | None = None
        self._told: list[str] = []
        self._held: list[Callable[[], None]] = []
        self._rows: dict[str, tuple[Mapping[str, Any], ...]] = {}
        self._is_open = False

    def generated(self, planned: Planned) -> None:
        """Tell a video, if it is finished."""
        manifest = runs.read_manifest(planned.folder)
        if manifest is None or not runs.is_finished(planned.folder, planned.video_id):
            return
        key = f"generated {manifest.video_id} {manifest.created}"
        if key not in self._told:
            video = video_of(planned)
            self._tell(key, lambda: self._tracker.generated(self.job, video))

    def scored(self, planned: Planned) -> None:
        """Tell the scores of a video, or why there are none; the job ends with its last video."""
        self.generated(planned)
        rows = records.rows_of(planned.folder)
        if rows:
            found = scored_of(planned, rows)
            self._rows[planned.name] = found.rows
            so_far = means(self._every_row())
            key = f"scored {planned.video_id} {files.short_hash(rows)}"
            self._tell(key, lambda: self._tracker.scored(self.job, found, so_far))
        self._waiting.discard(planned.folder)
        if not self._waiting:
            self.end(is_whole=True)

    def reported(self, paths: Sequence[Path]) -> None:
        """Tell a report, which is a job of its own."""
        comparison = comparison_of(paths)
        key = f"reported {files.short_hash([comparison.columns, comparison.rows])}"
        self._tell(key, lambda: self._tracker.reported(self.job, comparison))
        self.end(is_whole=True)

    def end(self, *, is_whole: bool) -> None:
        """Close the job, once, and remember what has arrived."""
        if not self._is_open:
            return
        self._is_open = False
        rows = self._every_row()
        is_sound = is_whole and not any(row["status"] == "failed" for row in rows)
        if self._tracker.end(self.job, rows, is_whole=is_sound):
            note = self._tracker.note(self.job)
            note.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomically(note, json.dumps(sorted({*self._told}), indent=0))

    def _tell(self, key: str, act: Callable[[], None]) -> None:
        """Tell one thing; what was told before is held until something is new, and told then where needed."""
        known = self._read_note()
        self._told.append(key)
        if not self._is_open and key in known:
            self._held.append(act)
            return
        if not self._is_open:
            self._tracker.begin(self.job)
            self._is_open = True
            for held in [] if self._tracker.resumes else self._held:
                held()
            self._held.clear()
        if key not in known or not self._tracker.resumes:
            act()

    def _read_note(self) -> frozenset[str]:
        if self._known is None:
            self._known = frozenset()
            with suppress(OSError, ValueError, TypeError):
                note = self._tracker.note(self.job)
                self._known = frozenset(json.loads(note.read_text(encoding="utf-8")))
        return self._known

    def _every_row(self) -> list[Mapping[str, Any]]:
        return [row for rows in self._rows.values() for row in rows]
