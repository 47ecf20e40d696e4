"""The finished videos behind a table: where they lie, and which one stands for a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ff_bench import records, runs, video
from ff_bench.models.facts import find
from ff_bench.report.comparison import Line, Table
from ff_bench.report.plots import rows_of
from ff_bench.report.statistics import Pair


@dataclass(frozen=True)
class Shown:
    """One finished video on disk."""

    folder: Path
    manifest: runs.Manifest

    @property
    def prompt(self) -> str:
        """Prompt text, with the times at which it changes."""
        identity = self.manifest.identity
        later = [f"from {seconds:g} s: {text}" for seconds, text in identity.get("switches", [])]
        return " · ".join([str(identity["prompt"]), *later])

    @property
    def seed(self) -> int:
        """Seed of the noise."""
        return int(self.manifest.identity["seed"])

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.manifest.identity["model"]["name"])

    @property
    def starts_true(self) -> bool:
        """Whether the video starts with true frames."""
        return bool(self.manifest.identity.get("protocol", {}).get("prefix") == "truth")

    @property
    def prefix_frames(self) -> int:
        """Decoded frames of the prefix."""
        facts = find(self.model)
        latents = self.manifest.prefix_frames
        return facts.decoded_frames(latents) if facts else latents

    def trace(self) -> list[dict[str, Any]]:
        """Read the trace."""
        return records.read(self.folder / runs.TRACE)

    @property
    def has_frames(self) -> bool:
        """Whether `frames` can be read."""
        return any((self.folder / name).is_file() for name in (runs.RECORD, runs.VIDEO))

    def frames(self) -> np.ndarray:
        """Read the record where it is pictures, else the viewing video: (T, H, W, 3) uint8.

        Raises:
            FileNotFoundError: where neither is there.
        """
        for name in (runs.RECORD, runs.VIDEO):
            if (self.folder / name).is_file():
                return video.read_record(self.folder / name)
        raise FileNotFoundError(f"{self.folder} holds neither {runs.RECORD} nor {runs.VIDEO}")


def collect(folders: Iterable[Path]) -> dict[str, Shown]:
    """Return finished videos by id."""
    found = {}
    for folder in folders:
        manifest = runs.read_manifest(folder)
        if manifest is not None:
            found[manifest.video_id] = Shown(folder, manifest)
    return found


def of_line(table: Table, line: Line, shown: Mapping[str, Shown]) -> dict[Pair, Shown]:
    """Return a line's videos by (prompt id, seed)."""
    rows = rows_of(table.rows, line).drop_duplicates("video_id")
    ids = rows["video_id"].astype(str)
    pairs = zip(rows["prompt_id"].astype(str), rows["seed"].astype(int), strict=True)
    return {pair: shown[video_id] for video_id, pair in zip(ids, pairs, strict=True) if video_id in shown}


def common_pair(found: Iterable[Mapping[Pair, Shown]]) -> Pair | None:
    """Return the first (prompt, seed) that most lines have."""
    counts: dict[Pair, int] = {}
    for videos in found:
        for pair in videos:
            counts[pair] = counts.get(pair, 0) + 1
    return min(counts, key=lambda pair: (-counts[pair], pair)) if counts else None
