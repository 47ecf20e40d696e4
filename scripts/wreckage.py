"""What a folder of runs holds: what is finished, what is half-written, and how it differs from another."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ff_bench import files, records, runs, video

if TYPE_CHECKING:
    import pandas

SAME_BYTES = (".csv", ".md", ".tex")
"""Files of a report that must be equal to the byte; others carry a path, a version or a date."""


@dataclass(frozen=True)
class State:
    """What a folder of runs holds.

    Attributes:
        folder: it.
        manifests: text of the manifest of every finished video, by its folder.
        scores: text of the rows of every video, by its folder.
        rows: what must be equal of the rows.
        done: how often a metric of a video was finished.
        reported: files of reports; text where it must be equal, else empty.
    """

    folder: Path
    manifests: dict[str, str]
    scores: dict[str, str]
    rows: pandas.DataFrame
    done: Counter[tuple[str, str]]
    reported: dict[str, str]

    @property
    def size(self) -> int:
        """How much is finished: videos and metrics of a video."""
        return len(self.manifests) + len(self.done)

    def lost_in(self, later: State) -> list[str]:
        """List what was finished here and is gone or changed later; rows of a video that failed may go."""
        lost = [name for name, text in self.manifests.items() if later.manifests.get(name) != text]
        for name in self.manifests:
            if not later.scores.get(name, "").startswith(self.scores.get(name, "")):
                lost.append(f"{name}/{runs.ROWS}")
        return lost


def look(folder: Path) -> State:
    """Read a folder of runs."""
    names = {path: path.parent.relative_to(folder).as_posix() for path in sorted(folder.rglob(runs.MANIFEST))}
    scores = {path: path.parent.relative_to(folder).as_posix() for path in sorted(folder.rglob(runs.ROWS))}
    done: Counter[tuple[str, str]] = Counter()
    for path, name in scores.items():
        done.update((name, str(item["done"])) for item in records.read(path) if "done" in item)
    table = records.table([path.parent for path in scores])
    return State(
        folder=folder,
        manifests={name: path.read_text() for path, name in names.items() if runs.is_finished(path.parent)},
        scores={name: path.read_text() for path, name in scores.items()},
        rows=records.strip_provenance(table), done=done,
        reported={
            path.relative_to(folder).as_posix().partition("/")[2].partition("/")[2]:
            path.read_text() if path.suffix in SAME_BYTES and "cost" not in path.name else ""
            for path in sorted((folder / "reports").rglob("*")) if path.is_file()
        },
    )  # fmt: skip


def differences(whole: State, found: State, *, exact: bool) -> list[str]:
    """Say how a folder differs from an undisturbed one, and what was made twice.

    Args:
        whole: the undisturbed one.
        found: the other one.
        exact: whether reports show the same costs, and so must have the same tables.
    """
    told = []
    if set(whole.manifests) != set(found.manifests):
        told.append(f"{len(found.manifests)} videos instead of {len(whole.manifests)}")
    for name in set(whole.manifests) & set(found.manifests):
        sha = [json.loads(state.manifests[name])["frames_sha256"] for state in (whole, found)]
        record = video.frames_sha256(video.read_record(found.folder / name / runs.RECORD))
        if {*sha} != {record}:
            told.append(f"{name} has other frames")
    if not whole.rows.equals(found.rows):
        told.append(f"rows differ, {len(found.rows)} and {len(whole.rows)}")
    told += [f"{name}: {metric} was finished {count} times" for (name, metric), count in found.done.items()
             if count > 1]  # fmt: skip
    if set(whole.done) != set(found.done):
        told.append("other metrics are finished")
    odd = set(whole.reported) ^ set(found.reported)
    if exact:
        odd |= {name for name, text in whole.reported.items() if found.reported.get(name) != text}
    return told + ([f"reports differ in {', '.join(sorted(odd)[:5])}"] if odd else [])


def halves(folder: Path, *, parts: bool) -> list[str]:
    """List files that are half-written.

    Args:
        folder: of runs.
        parts: whether a temporary file is one; those of a process that was killed lie until the next run.
    """
    told = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if files.TEMPORARY in path.name:
            told += [name] if parts else []
        elif path.suffix == ".json":
            try:
                json.loads(path.read_text())
            except ValueError:
                told.append(name)
        elif path.suffix == ".html" and not path.read_text().rstrip().endswith("</html>"):
            told.append(name)
    return told
