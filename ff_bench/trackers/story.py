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
        self._told: dict[str, tuple[str, Callable[[], None]]] = {}
        self._rows: dict[str, tuple[Mapping[str, Any], ...]] = {}
        self._is_open = False

    def generated(self, planned: Planned) -> None:
        """Tell a video, if it is finished."""
        manifest = runs.read_manifest(planned.folder)
        if manifest is None or not runs.is_finished(planned.folder, planned.video_id):
            return
        subject = f"generated {planned.video_id}"
        if self._is_new(subject, manifest.created):
            video = video_of(planned)
            self._tell(subject, manifest.created, lambda: self._tracker.generated(self.job, video))

    def scored(self, planned: Planned) -> None:
        """Tell the scores of a video, or why there are none; the job ends with its last video."""
        self.generated(planned)
        rows = records.rows_of(planned.folder)
        subject, digest = f"scored {planned.video_id}", files.short_hash(rows)
        if rows and self._is_new(subject, digest):
            found = scored_of(planned, rows)
            self._rows[planned.name] = found.rows
            so_far = means(self._every_row())
            self._tell(subject, digest, lambda: self._tracker.scored(self.job, found, so_far))
        self._waiting.discard(planned.folder)
        if not self._waiting:
            self.end(is_whole=True)

    def reported(self, paths: Sequence[Path]) -> None:
        """Tell a report, which is a job of its own."""
        comparison = comparison_of(paths)
        digest = files.short_hash([comparison.columns, comparison.rows])
        self._tell("reported", digest, lambda: self._tracker.reported(self.job, comparison))
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
            told = sorted(_key(subject, digest) for subject, (digest, _) in self._told.items())
            files.write_atomically(note, json.dumps(told, indent=0))

    def _is_new(self, subject: str, digest: str) -> bool:
        """Say whether a thing, in this state, was not heard of since the start of this process."""
        return subject not in self._told or self._told[subject][0] != digest

    def _tell(self, subject: str, digest: str, act: Callable[[], None]) -> None:
        """Tell one thing; what was told before waits until something is new, and is then told if need be."""
        is_known = _key(subject, digest) in self._read_note()
        self._told[subject] = (digest, act)
        if self._is_open:
            if not (is_known and self._tracker.resumes):
                act()
        elif not is_known:
            self._tracker.begin(self.job)
            self._is_open = True
            # A place that does not resume is empty, also where the job was closed in between.
            for told in [act] if self._tracker.resumes else [told for _, told in self._told.values()]:
                told()

    def _read_note(self) -> frozenset[str]:
        if self._known is None:
            self._known = frozenset()
            with suppress(OSError, ValueError, TypeError):
                note = self._tracker.note(self.job)
                self._known = frozenset(json.loads(note.read_text(encoding="utf-8")))
        return self._known

    def _every_row(self) -> list[Mapping[str, Any]]:
        return [row for rows in self._rows.values() for row in rows]


def _key(subject: str, digest: str) -> str:
    return f"{subject} {digest}"
