"""What a metric is: it reads frames and the trace of one video and yields named values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Protocol

import numpy as np

from ff_bench.footage import Footage
from ff_bench.metrics.shelf import Arrays, Shelf
from ff_bench.models.mini.prompt import FRAMES_PER_LATENT, MiniPrompt
from ff_bench.models.mini.recipe import is_mini

WHOLE = -1
"""The clip number of a value that covers the whole video."""
WINDOW_SECONDS = 5.0
"""Length of the windows of curves over time, and of `first` and `last` parts."""
PSNR_CAP = 60.0
"""dB; a mean squared error of 1e-6, about what rounding to 8 bits costs. Identical frames score this."""
NO_REFERENCE = "no finished full-cache video of this prompt and seed"
STATUSES = ("ok", "undefined", "unavailable", "failed")


@dataclass(frozen=True)
class Video:
    """One finished video as metrics see it.

    Attributes:
        id: Video id of the record.
        prompt: Prompt text.
        seed: Seed of the noise.
        fps: Decoded frames per second.
        chunk_frames: Decoded frames of one chunk; the first may have fewer.
        prefix_frames: Decoded frames at the start that the budget did not rule; 0 without a prefix.
        footage: The frames.
        trace: One mapping per chunk, as in ``trace.jsonl``.
        manifest: Content of ``manifest.json``.
        model: Name of the model.
        made_frames: Decoded frames made after the prefix, those behind the end of the video too; None counts
            whole chunks.
        shelf: Signals measured on the frames; of a video without a folder they are held in memory.
        boundaries: First frame of every chunk but the first one; empty where they are not known.
        window_frames: Decoded frames of the training window, from the start of the video; None where there is
            no such window, and all frames count as inside.
        device: Torch device for measures that compare with another video and so cannot be signals.
    """

    id: str
    prompt: str
    seed: int
    fps: float
    chunk_frames: int
    prefix_frames: int
    footage: Footage
    trace: list[dict[str, Any]] = field(default_factory=list)
    manifest: dict[str, Any] = field(default_factory=dict)
    model: str = "mini"
    made_frames: int | None = None
    shelf: Shelf = field(default_factory=lambda: Shelf(None, ""))
    boundaries: tuple[int, ...] = ()
    window_frames: int | None = None
    device: str = "cpu"

    @property
    def count(self) -> int:
        """Number of frames."""
        return self.footage.count

    @property
    def frames(self) -> np.ndarray:
        """All frames at once, RGB, (T, H, W, 3) uint8: for small videos."""
        return self.footage.frames

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.count / self.fps

    def signal(self, key: str) -> Arrays:
        """Return the arrays of a signal, by key such as `frames/levels`.

        Raises:
            Unavailable: Where it was not or could not be measured, with the reason.
        """
        return self.shelf.get(key)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The fields that make the video's id."""
        identity: Mapping[str, Any] = self.manifest.get("identity", {})
        return identity

    @property
    def is_full_cache(self) -> bool:
        """Whether the policy is `full`, the reference of all others."""
        policy = self.identity.get("policy", "")
        return (policy.get("name") if isinstance(policy, Mapping) else policy) == "full"

    @property
    def prefix(self) -> str:
        """How the video starts: ``first_lap``, ``truth`` or ``none``; empty when not told."""
        protocol = self.identity.get("protocol", {})
        return str(protocol.get("prefix", "")) if isinstance(protocol, Mapping) else ""


@dataclass(frozen=True)
class Value:
    """One number of one metric, or the reason why there is none.

    Attributes:
        name: Full metric name, ``family.measure``.
        value: The number; None unless status is ``ok``.
        clip: Window number, or -1 for the whole video.
        t0: Start of what it covers, in seconds.
        t1: End of what it covers, in seconds.
        status: ``ok``, ``undefined`` (makes no sense for this video), ``unavailable`` (something is missing
            on this machine) or ``failed``.
        reason: A phrase for every status but ``ok``.
    """

    name: str
    value: float | None
    clip: int = WHOLE
    t0: float = 0.0
    t1: float = 0.0
    status: str = "ok"
    reason: str = ""

    def __post_init__(self) -> None:
        """Reject values without status and statuses without reason."""
        if self.status not in STATUSES:
            raise ValueError(f"status '{self.status}' is not one of {', '.join(STATUSES)}")
        if (self.value is None) == (self.status == "ok"):
            raise ValueError(f"{self.name}: value {self.value} does not go with status '{self.status}'")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(
                f"{self.name}: value {self.value} is not finite; yield a status with a reason instead"
            )
        if self.status != "ok" and not self.reason:
            raise ValueError(f"{self.name}: status '{self.status}' needs a reason")


@dataclass(frozen=True)
class Measure:
    """What one measure of a family means.

    Attributes:
        unit: ``dB``, ``1`` (a ratio or score), ``s``, ``px``, ``bytes``, ``fps``, ``tokens``, ``frames``.
        higher_is_better: None where neither direction is good in itself.
        doc: One sentence.
        label: Short column title for tables and axes.
        digits: Decimals worth showing.
    """

    unit: str
    higher_is_better: bool | None
    doc: str
    label: str = ""
    digits: int = 2


class Metric(Protocol):
    """A family of measures that share their work.

    Attributes:
        name: Family; each measure is called ``name.measure``.
        version: Raised when any number of the family may change.
        needs_reference: Whether some measures compare with the full-cache video of the same prompt and seed.
        needs: What must be present: ``mini`` (exact geometry), ``trace``, or names of weight files.
        signals: Keys of the signals that it reads, of the video and, if it needs one, of the reference; they
            are measured before `compute` where that is possible.
        extras: Keys of signals that it reads where they are on the shelf; nothing is measured for their sake.
        measures: Full measure name to its description.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    needs_reference: ClassVar[bool]
    needs: ClassVar[tuple[str, ...]]
    measures: ClassVar[Mapping[str, Measure]]

    @property
    def signals(self) -> tuple[str, ...]:
        """Keys of the signals that it reads."""

    @property
    def extras(self) -> tuple[str, ...]:
        """Keys of the signals that it reads where they are there."""

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of weight files that it loads by itself."""

    @property
    def standing(self) -> str:
        """What else its numbers rest on here, such as another environment; empty for most."""

    def compute(self, video: Video, reference: Video | None) -> Iterator[Value]:
        """Yield every measure of the family, whole-video values and windows.

        Args:
            video: What to score.
            reference: The finished full-cache video of the same prompt and seed, if there is one.
        """
        ...


@dataclass(frozen=True)
class Series:
    """A number per frame, some of them absent.

    Attributes:
        values: (T,) float64; what stands at an absent frame means nothing.
        valid: (T,) bool.
    """

    values: np.ndarray
    valid: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, valid: np.ndarray | None = None) -> Series:
        """Make a series; all frames are valid unless told otherwise."""
        values = np.asarray(values, np.float64)
        return cls(values, np.ones(values.shape, bool) if valid is None else valid)

    def only(self, mask: np.ndarray) -> Series:
        """Return the same series with the frames outside the mask absent."""
        return Series(self.values, self.valid & mask)

    def mean(self, start: int = 0, stop: int | None = None) -> float | None:
        """Return the mean over the valid frames of [start, stop), or None when there are none."""
        part = slice(start, stop)
        chosen = self.values[part][self.valid[part]]
        return float(chosen.mean()) if chosen.size else None


def scored_from(video: Video) -> int:
    """Return the first frame that is scored: after the prefix and, for `mini`, after all was seen once.

    The second rule gives the full cache, whose video serves every kind of prefix, the same frames as others.
    """
    if not is_mini(video.model):
        return video.prefix_frames
    first_lap = MiniPrompt.parse(video.prompt).prefix_frames() * FRAMES_PER_LATENT
    return max(video.prefix_frames, first_lap)


def scored(video: Video) -> np.ndarray:
    """Return which frames are scored, (T,) bool."""
    return np.arange(video.count) >= scored_from(video)


def windows(video: Video, seconds: float = WINDOW_SECONDS) -> list[tuple[int, int]]:
    """Cut the video into consecutive windows of frames; a rest below half a window joins the last one."""
    total, step = video.count, max(1, round(seconds * video.fps))
    edges = [*range(0, total, step), total]
    if len(edges) > 2 and edges[-1] - edges[-2] < step / 2:
        del edges[-2]
    return list(pairwise(edges))


def whole(name: str, video: Video, value: float | None, reason: str = "") -> Value:
    """Make a whole-video value; None becomes `undefined` with the reason."""
    if value is None:
        return undefined(name, video, reason)
    return Value(name, float(value), WHOLE, 0.0, video.seconds)


def unavailable(name: str, video: Video, reason: str) -> Value:
    """Make a whole-video value that cannot be made on this machine."""
    return Value(name, None, WHOLE, 0.0, video.seconds, "unavailable", reason)


def undefined(name: str, video: Video, reason: str) -> Value:
    """Make a whole-video value that makes no sense for this video."""
    return Value(name, None, WHOLE, 0.0, video.seconds, "undefined", reason)


def curve(name: str, video: Video, series: Series) -> Iterator[Value]:
    """Yield the series' mean per window, with the times of its valid frames; empty windows are left out."""
    for clip, (start, stop) in enumerate(windows(video)):
        mean = series.mean(start, stop)
        if mean is not None:
            valid = start + np.flatnonzero(series.valid[start:stop])
            yield Value(name, mean, clip, float(valid[0] / video.fps), float((valid[-1] + 1) / video.fps))


def last_frames(video: Video, seconds: float) -> int:
    """Return the first frame of the video's last `seconds`."""
    return max(0, video.count - round(seconds * video.fps))


def psnr(squared_error: np.ndarray) -> np.ndarray:
    """Turn mean squared error of images in [0, 1] into dB, at most `PSNR_CAP`."""
    return -10.0 * np.log10(np.maximum(np.asarray(squared_error, np.float64), 10 ** (-PSNR_CAP / 10)))
