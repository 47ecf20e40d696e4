"""The files of one video, written as its chunks come: nothing that is held grows with the video."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ff_bench import records, runs, video
from ff_bench.runs import VideoSpec

if TYPE_CHECKING:
    from torch import Tensor


class Output:
    """Record, preview and trace of a video under temporary names, until `finish` gives them their own.

    Attributes:
        seconds: wall seconds that writing took so far, in this video's files alone.
    """

    def __init__(self, spec: VideoSpec, files: ExitStack) -> None:
        """Open the files; use `begun`.

        Args:
            spec: the video; its folder is this process's.
            files: what they are closed by.
        """
        config = spec.config
        self.spec, self.seconds = spec, 0.0
        self._files, self._left, self._digest = files, config.length.frames, hashlib.sha256()
        self._trace = files.enter_context(_lines(spec.folder / runs.TRACE))
        self._takes: list[video.Take] = []
        self._latents: Callable[[Tensor], None] | None = None
        if "record" in config.save and config.facts.latent_record:
            from ff_bench.latents import recording

            self._latents = files.enter_context(
                recording(spec.folder / runs.LATENTS, config.length.latent_frames)
            )
        elif "record" in config.save:
            self._takes.append(
                files.enter_context(video.recording(spec.folder / runs.RECORD, config.facts.fps))
            )
        if "video" in config.save:
            self._takes.append(
                files.enter_context(video.previewing(spec.folder / runs.VIDEO, config.facts.fps))
            )

    def add(self, pictures: np.ndarray, latents: Tensor, line: Mapping[str, Any]) -> None:
        """Write one chunk.

        Args:
            pictures: RGB, (T, H, W, 3) uint8; what lies beyond the video's length is left out.
            latents: (F, C, h, w).
            line: of the trace.
        """
        began = time.perf_counter()
        kept = np.ascontiguousarray(pictures[: self._left])
        self._left -= len(kept)
        if len(kept):
            self._digest.update(kept.data)
            for take in self._takes:
                take(kept)
        if self._latents is not None:
            self._latents(latents)
        self._trace(json.dumps(line, allow_nan=False) + "\n")
        self.seconds += time.perf_counter() - began

    def finish(self, *, prefix_frames: int, seconds: float, peak_bytes: int | None) -> None:
        """Put the files in the place of whatever the folder held, the manifest last.

        Args:
            prefix_frames: latent frames that were given.
            seconds: wall time of the generation.
            peak_bytes: largest memory in use, None where it could not be measured.
        """
        assert self._left == 0, f"{self._left} frames are missing"
        runs.prepare(self.spec.folder)
        self._files.close()
        manifest = runs.describe(
            self.spec, frames_sha256=self._digest.hexdigest(), prefix_frames=prefix_frames,
            seconds=seconds, peak_bytes=peak_bytes,
            environment=records.environment(self.spec.config.device),
        )  # fmt: skip
        runs.write_manifest(self.spec.folder, manifest)


@contextmanager
def begun(spec: VideoSpec) -> Iterator[Output]:
    """Begin the files of a video; unless `Output.finish` is reached nothing is left of them.

    Args:
        spec: the video; its folder is this process's.
    """
    with ExitStack() as files:
        yield Output(spec, files)


@contextmanager
def _lines(path: Path) -> Iterator[Callable[[str], object]]:
    """Write text as it comes, under a temporary name first."""
    with runs.temporary(path) as part, part.open("w", encoding="utf-8") as stream:
        yield stream.write
