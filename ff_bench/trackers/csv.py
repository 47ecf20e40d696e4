"""Plain files: what a tracker is told, as CSV and JSON under `runs_dir/tracker/csv/`, for any other tool."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ff_bench import files
from ff_bench.trackers.checks import check_common
from ff_bench.trackers.readings import COLUMNS, Comparison, Job, Scored, Video

NOTE = "told.json"


def check(settings: Mapping[str, Any]) -> None:
    """Check the settings.

    Raises:
        UsageError: Which is wrong and what is allowed.
    """
    check_common(settings)


class Csv:
    """Writes one folder per job; each file is written whole, so that a second run gives the same files."""

    resumes = False

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Remember nothing but where it wrote."""
        self._folders: dict[str, Path] = {}

    def note(self, job: Job) -> Path:
        """Return the note in the folder of the job: whoever deletes the folder gets it again."""
        return self._folder(job) / NOTE

    def begin(self, job: Job) -> None:
        """Write the configuration."""
        described = {"id": job.id, "name": job.name, "kind": job.kind, "tags": list(job.tags), **job.config}
        self._write(job, "config.json", json.dumps(described, indent=1, ensure_ascii=False) + "\n")

    def generated(self, job: Job, video: Video) -> None:
        """Write the curves over chunks."""
        self._write(job, f"chunks/{video.name}.csv", as_csv(video.chunks))

    def scored(self, job: Job, scored: Scored, means: Mapping[str, float]) -> None:
        """Write the curves over windows, and the means so far."""
        self._write(job, f"windows/{scored.name}.csv", as_csv(scored.windows))
        self._write(job, "summary.json", json.dumps(dict(means), indent=1) + "\n")

    def reported(self, job: Job, comparison: Comparison) -> None:
        """Write the table of a report; its figures stay where they are."""
        lines = [dict(zip(comparison.columns, row, strict=True)) for row in comparison.rows]
        self._write(job, "comparison.csv", as_csv(lines, comparison.columns))

    def end(self, job: Job, rows: Sequence[Mapping[str, Any]], *, is_whole: bool) -> bool:
        """Write the rows over whole videos."""
        if job.kind == "policy":
            self._write(job, "scores.csv", as_csv(rows, COLUMNS))
        return True

    def close(self) -> None:
        """Have nothing open."""

    def places(self) -> tuple[str, ...]:
        """Name the folder of the group."""
        return tuple(dict.fromkeys(str(folder.parent) for folder in self._folders.values()))

    def _folder(self, job: Job) -> Path:
        return job.root / "tracker" / "csv" / job.group / job.folder

    def _write(self, job: Job, name: str, text: str) -> None:
        folder = self._folders.setdefault(job.id, self._folder(job))
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, text)


def as_csv(lines: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """Write mappings as CSV; without columns, with every key in the order of appearance."""
    every = list(lines)
    named = columns or list(dict.fromkeys(name for line in every for name in line))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, named, lineterminator="\n")
    writer.writeheader()
    writer.writerows(every)
    return stream.getvalue()
