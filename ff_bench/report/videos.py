"""The finished videos behind a table: where they lie, and which one stands for a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ff_bench import probe, records, runs, video
from ff_bench.models.facts import find
from ff_bench.report.comparison import Line, Table
from ff_bench.report.selection import rows_of
from ff_bench.report.statistics import Pair

PLAYED: Mapping[str, tuple[str, ...]] = {
    ".mp4": ("h264", "av1", "vp9"), ".m4v": ("h264",), ".mov": ("h264",), ".webm": ("vp8", "vp9", "av1"),
}  # fmt: skip
"""Codecs that browsers play, by the ending of the file."""
PLAYED_PIXELS = ("yuv420p", "yuvj420p")


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
    def is_foreign(self) -> bool:
        """Whether it was not made here; its file is then elsewhere."""
        return bool(self.manifest.source)

    @property
    def viewing(self) -> Path | None:
        """The file to look at, None where it is not here any more, or is another."""
        if not self.is_foreign:
            path = self.folder / runs.VIDEO
            return path if path.is_file() else None
        path = Path(self.manifest.source["path"])
        same = path.is_file() and path.stat().st_size == self.manifest.source["bytes"]
        return path if same else None

    @property
    def obstacle(self) -> str:
        """Why browsers cannot play it; empty where they can."""
        source = self.manifest.source
        if self.viewing is None:
            return "the file is not there any more, or has changed"
        ending = self.viewing.suffix.lower()
        if not source or (source["codec"] in PLAYED.get(ending, ()) and source["pixels"] in PLAYED_PIXELS):
            return ""
        return f"browsers do not play {source['codec']} ({source['pixels']}) in {ending or 'such a file'}"

    @property
    def has_frames(self) -> bool:
        """Whether `frames_at` can read it."""
        return self._pictures is not None

    def frames_at(self, times: np.ndarray) -> np.ndarray:
        """Read some frames of the record where it is pictures, else of the file to look at.

        Args:
            times: Frame numbers.

        Returns:
            RGB, (number of times, H, W, 3) uint8.

        Raises:
            FileNotFoundError: Where no file is there.
            ValueError: Where it has fewer frames.
        """
        path = self._pictures
        if path is None:
            raise FileNotFoundError(f"no pictures of the video in {self.folder} are here")
        wanted = {int(time) for time in times}
        images = probe.decode(path) if self.is_foreign else video.decode(path)
        first = islice(images, max(wanted) + 1)
        kept = {place: image for place, image in enumerate(first) if place in wanted}
        if len(kept) < len(wanted):
            raise ValueError(f"{path} holds fewer frames than {max(wanted) + 1}")
        return np.stack([kept[int(time)] for time in times])

    def thumbnails(self, times: np.ndarray, height: int) -> np.ndarray:
        """Read some frames of the file to look at, or of the record where that is gone, and make them small.

        Args:
            times: Frame numbers; those behind the end are left out.
            height: px; a lower frame keeps its size.

        Returns:
            RGB, (number of times, height, W, 3) uint8.

        Raises:
            FileNotFoundError: Where no file is there.
            ValueError: Where it holds none of the frames.
        """
        path = self.viewing or self._pictures
        if path is None:
            raise FileNotFoundError(f"no pictures of the video in {self.folder} are here")
        wanted = {int(time) for time in times}
        images = islice(probe.decode(path) if self.is_foreign else video.decode(path), max(wanted) + 1)
        small = [_reduced(image, height) for place, image in enumerate(images) if place in wanted]
        if not small:
            raise ValueError(f"{path} holds fewer frames than {min(wanted) + 1}")
        return np.stack(small)

    @property
    def _pictures(self) -> Path | None:
        if self.is_foreign:
            return self.viewing
        paths = (self.folder / name for name in (runs.RECORD, runs.VIDEO))
        return next((path for path in paths if path.is_file()), None)


def _reduced(image: np.ndarray, height: int) -> np.ndarray:
    """Shrink a frame to a height by the mean over areas."""
    from PIL import Image

    if image.shape[0] <= height:
        return image
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


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
