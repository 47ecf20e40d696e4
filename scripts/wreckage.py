"""What a folder of runs holds: what is finished, what is half-written, and how it differs from another."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ff_bench import files, records, runs, video

if TYPE_CHECKING:
    import pandas

KEPT = ("prefixes", "recordings", "stationarity")
"""Folders of what commands keep for later ones, beside videos; a manifest there comes last."""
LAST = {".html": b"</html>", ".parquet": b"PAR1", ".png": b"IEND\xaeB`\x82"}
"""Bytes with which whole files end."""
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
        done: how often a metric of a video was finished, by the digest of what it was compared with: a
            metric is measured anew when its full-cache video, which had failed before, is there.
        reported: files of reports; text where it must be equal, else empty.
        kept: digest and time of change of what else is finished and kept, by its name.
    """

    folder: Path
    manifests: dict[str, str]
    scores: dict[str, str]
    rows: pandas.DataFrame
    done: Counter[tuple[str, str, str]]
    reported: dict[str, str]
    kept: dict[str, tuple[str, int]]

    @property
    def size(self) -> int:
        """How much is finished: videos, metrics of a video, and what else is kept."""
        return len(self.manifests) + len(self.done) + len(self.kept)

    def lost_in(self, later: State) -> list[str]:
        """List what was finished here and is gone or changed later; rows of a video that failed may go."""
        lost = [name for name, text in self.manifests.items() if later.manifests.get(name) != text]
        for name in self.manifests:
            if not later.scores.get(name, "").startswith(self.scores.get(name, "")):
                lost.append(f"{name}/{runs.ROWS}")
        return lost + [name for name, seen in self.kept.items() if later.kept.get(name) != seen]


def look(folder: Path) -> State:
    """Read a folder of runs."""
    names = {path: path.parent.relative_to(folder).as_posix() for path in sorted(folder.rglob(runs.MANIFEST))}
    scores = {path: path.parent.relative_to(folder).as_posix() for path in sorted(folder.rglob(runs.ROWS))}
    done: Counter[tuple[str, str, str]] = Counter()
    for path, name in scores.items():
        marks = [item for item in records.read(path) if "done" in item]
        done.update((name, str(mark["done"]), str(mark.get("reference", ""))) for mark in marks)
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
        kept=_kept(folder),
    )  # fmt: skip


def _kept(folder: Path) -> dict[str, tuple[str, int]]:
    """Find what is finished of prefixes, recordings and measurements; one made again has a new time."""
    found = {}
    for path in sorted(path for name in KEPT for path in folder.glob(f"mini/{name}/**/*") if path.is_file()):
        is_finished = "recordings" not in path.parts or (path.parent / runs.MANIFEST).is_file()
        if is_finished and files.TEMPORARY not in path.name and path.name != files.LOCK:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[path.relative_to(folder).as_posix()] = (digest, path.stat().st_mtime_ns)
    return found


def lend(folder: Path, out: Path) -> None:
    """Copy videos of ours to where somebody else might have made them, one folder for each policy."""
    for number, path in enumerate(sorted(folder.rglob(runs.VIDEO))):
        target = out / path.parents[2].name / f"clip-{number % 2}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


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
        if (found.folder / name / runs.RECORD).is_file():  # videos of others have none
            sha.append(video.frames_sha256(video.read_record(found.folder / name / runs.RECORD)))
        if len({*sha}) > 1:
            told.append(f"{name} has other frames")
    if not whole.rows.equals(found.rows):
        told.append(f"rows differ, {len(found.rows)} and {len(whole.rows)}")
    told += [f"{name}: {metric} was finished {count} times"
             for (name, metric, _), count in found.done.items() if count > 1]  # fmt: skip
    if {mark[:2] for mark in whole.done} != {mark[:2] for mark in found.done}:
        told.append("other metrics are finished")
    if {name: digest for name, (digest, _) in whole.kept.items()} != {
        name: digest for name, (digest, _) in found.kept.items()
    }:
        told.append("other prefixes, recordings or measurements are kept")
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
        elif not path.read_bytes().rstrip(b"\n").endswith(LAST.get(path.suffix, b"")):
            told.append(name)
    return told
