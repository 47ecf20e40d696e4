"""VBench-Long on today's libraries: eight dimensions, within clips of 2 s and between them, from one pass.

Source: arXiv 2311.17982 (VBench), 2411.13503 (VBench++); Vchitect/VBench@45e79ec, `vbench2_beta_long`.

Two modes stand in the name of every row. `compat` makes numbers as the published ones were made: clips go
through H.264 first, and scores between clips are mapped and fused. `strict` takes the frames as they are and
leaves scores within and between clips apart, raw.

Deviates: the published codec step used as many encoder threads as the machine had, which changes pixels; ours
uses one.
Deviates: CLIP runs in float32 on every device; VBench lets it run in float16 on CUDA.
Deviates: overall_consistency compares each clip with the video's own prompt; VBench-Long compares with the
name of the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from ff_bench.errors import Unavailable
from ff_bench.metrics import clips, vbench_scale
from ff_bench.metrics.base import Measure, Value, Video, unavailable, whole
from ff_bench.metrics.shelf import COMPAT, STRICT, key
from ff_bench.metrics.vbench_scale import QUALITY, SEMANTIC

MODES = (COMPAT, STRICT)
FLOWS = ("decide", "all")
_ONE_CLIP = "a video of one clip has no other clip to compare with"


@dataclass(frozen=True)
class Dimension:
    """One dimension.

    Attributes:
        signal: What it reads, per frame or pair of each clip.
        per_clip: From the signal's arrays and the video to a number per clip, NaN where a clip has none.
        heads: What it reads of the first frames of all clips, for the score between clips; else empty.
        branch: Column of the map between clips and within.
        doc: One sentence.
        label: Short title.
    """

    signal: str
    per_clip: Callable[[Mapping[str, np.ndarray], Video], np.ndarray]
    doc: str
    label: str
    heads: str = ""
    branch: str = ""


def similarity(features: np.ndarray) -> float:
    """Return how alike consecutive pictures are, and to the first one: the formula of both consistencies.

    Args:
        features: (T, D), T >= 2, of unit length.

    Returns:
        Mean over pictures from the second on of half of max(0, cos to the one before) + max(0, cos to the
        first).
    """
    return float(similarities(features)[1:].mean())


def similarities(features: np.ndarray) -> np.ndarray:
    """Return the similarity of each picture to the one before and to the first, (T,); of the first, 1."""
    exact = features.astype(np.float64)
    before = (exact[1:] * exact[:-1]).sum(1).clip(min=0)
    first = (exact[1:] @ exact[0]).clip(min=0)
    return np.concatenate([[1.0], (before + first) / 2])


def pieces(arrays: Mapping[str, np.ndarray], name: str) -> list[np.ndarray]:
    """Cut an array of a signal into what each clip gave."""
    return np.split(arrays[name], np.cumsum(arrays[f"{name}_counts"])[:-1])


def _consistency(arrays: Mapping[str, np.ndarray], video: Video) -> np.ndarray:
    return np.array([similarity(part) if len(part) > 1 else np.nan for part in pieces(arrays, "features")])


def _mean(
    arrays: Mapping[str, np.ndarray], video: Video, *, name: str, scale: float = 1.0, skip: int = 0
) -> np.ndarray:
    parts = [part[skip:] for part in pieces(arrays, name)]
    return np.array([part.mean(dtype=np.float64) / scale if part.size else np.nan for part in parts])


def _steadiness(
    arrays: Mapping[str, np.ndarray], video: Video, *, name: str, scale: float, skip: int = 0
) -> np.ndarray:
    return 1.0 - _mean(arrays, video, name=name, scale=scale, skip=skip)


def _dynamic(arrays: Mapping[str, np.ndarray], video: Video) -> np.ndarray:
    import torch

    from ff_bench.metrics.networks import raft

    height, width = video.footage.size
    pairs = zip(pieces(arrays, "motion"), pieces(arrays, "known"), strict=True)
    tensors = ((torch.from_numpy(motion), torch.from_numpy(known)) for motion, known in pairs)
    return np.array(
        [float(raft.is_dynamic(motion, known, height=height, width=width)) for motion, known in tensors]
    )


DIMENSIONS: Mapping[str, Dimension] = {
    "subject_consistency": Dimension(
        "dino", _consistency, "Likeness of frames by DINO features.", "subject", "dinov2", "subject"
    ),
    "background_consistency": Dimension(
        "clip_b32", _consistency, "Likeness of frames by CLIP features.", "background", "dreamsim",
        "background",
    ),
    "temporal_flickering": Dimension(
        "difference", partial(_steadiness, name="change", scale=1.0, skip=1),
        "1 - mean absolute difference of consecutive frames.", "flicker",
    ),
    "motion_smoothness": Dimension(
        "interpolation", partial(_steadiness, name="errors", scale=255.0),
        "1 - error of frames interpolated from their neighbours by AMT.", "smoothness",
    ),
    "dynamic_degree": Dimension(
        "flow", _dynamic, "Fraction of clips whose optical flow by RAFT is large often enough.", "dynamic"
    ),
    "aesthetic_quality": Dimension(
        "aesthetic", partial(_mean, name="scores"), "LAION's aesthetic score of frames.", "aesthetic"
    ),
    "imaging_quality": Dimension(
        "musiq", partial(_mean, name="scores", scale=100.0), "MUSIQ's technical quality of frames.", "imaging"
    ),
    "overall_consistency": Dimension(
        "viclip", partial(_mean, name="similarity"), "Likeness of clip and prompt by ViCLIP.", "text"
    ),
}  # fmt: skip
"""Every dimension, in the order of tables."""


def _measures() -> dict[str, Measure]:
    found: dict[str, Measure] = {}
    for mode in MODES:
        for name, dimension in DIMENSIONS.items():
            whole_name = f"vbench_long.{mode}.{name}"
            doc = dimension.doc
            if dimension.branch and mode == COMPAT:
                doc = f"{dimension.doc[:-1]}, within clips and mapped between them, fused."
            found[whole_name] = Measure("1", True, doc, dimension.label, 4)
            if not dimension.branch:
                continue
            if mode == COMPAT:
                found[f"{whole_name}_inclip"] = Measure(
                    "1", True, f"{dimension.doc[:-1]}, within clips.", f"{dimension.label} in clip", 4
                )
                found[f"{whole_name}_mapped"] = Measure(
                    "1", True, f"{dimension.label.capitalize()} likeness between clips, mapped.",
                    f"{dimension.label} mapped", 4,
                )  # fmt: skip
            found[f"{whole_name}_clip2clip"] = Measure(
                "1", True, f"{dimension.label.capitalize()} likeness of first frames of clips, raw.",
                f"{dimension.label} clip to clip", 4,
            )  # fmt: skip
        for name, doc in (
            ("quality", "VBench's Quality, from its seven dimensions."),
            ("semantic", "VBench's Semantic, from its nine dimensions."),
            ("total", "VBench's Total, from Quality and Semantic."),
        ):
            found[f"vbench_long.{mode}.{name}"] = Measure("1", True, doc, name.capitalize(), 4)
    return found


@dataclass(frozen=True)
class VBenchLong:
    """The dimensions of VBench-Long that need no detector.

    Attributes:
        modes: `compat`, `strict` or both.
        dimensions: Which dimensions; None for all eight.
        flow: `decide` stops the optical flow of a clip as soon as its dynamic degree is certain; `all`
            measures every pair, which the continuous motion of `drift` needs.
    """

    name: ClassVar[str] = "vbench_long"
    version: ClassVar[int] = 1
    needs_reference: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    extras: ClassVar[tuple[str, ...]] = ()
    weights: ClassVar[tuple[str, ...]] = ()
    standing: ClassVar[str] = ""
    measures: ClassVar[Mapping[str, Measure]] = _measures()

    modes: tuple[str, ...] = (COMPAT,)
    dimensions: tuple[str, ...] | None = None
    flow: str = "decide"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UsageError: With field, value and what is allowed.
        """
        from ff_bench import checks

        fields = {
            "modes": checks.words("metrics.vbench_long.modes", self.modes, MODES),
            "flow": checks.choice("metrics.vbench_long.flow", self.flow, FLOWS),
        }
        if self.dimensions is not None:
            chosen = checks.words("metrics.vbench_long.dimensions", self.dimensions, tuple(DIMENSIONS))
            fields["dimensions"] = chosen
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def chosen(self) -> tuple[str, ...]:
        """The dimensions."""
        return tuple(DIMENSIONS) if self.dimensions is None else self.dimensions

    @property
    def signals(self) -> tuple[str, ...]:
        """What the dimensions read."""
        return tuple(
            key(mode, signal)
            for mode in self.modes
            for name in self.chosen
            for signal in (self._signal(name), DIMENSIONS[name].heads)
            if signal
        )

    def compute(self, video: Video, reference: Video | None) -> Iterator[Value]:
        """Yield every dimension per clip and for the video, then the sums of them."""
        del reference
        for mode in self.modes:
            raw: dict[str, float] = {}
            for name in self.chosen:
                for value in self._dimension(mode, name, video):
                    if value.clip < 0 and value.value is not None:
                        raw[value.name.rpartition(".")[2]] = value.value
                    yield value
            yield from _sums(mode, raw, video)

    def _signal(self, name: str) -> str:
        signal = DIMENSIONS[name].signal
        return "flow_decision" if signal == "flow" and self.flow == "decide" else signal

    def _dimension(self, mode: str, name: str, video: Video) -> Iterator[Value]:
        full_name, dimension = f"vbench_long.{mode}.{name}", DIMENSIONS[name]
        try:
            scores = dimension.per_clip(video.signal(key(mode, self._signal(name))), video)
        except Unavailable as error:
            yield from (
                unavailable(measure, video, str(error))
                for measure in self.measures
                if measure == full_name or measure.startswith(f"{full_name}_")
            )
            return
        if not dimension.branch:
            yield from _with_clips(full_name, scores, video)
            return
        try:
            between = _between(video.signal(key(mode, dimension.heads)))
        except Unavailable as error:
            if mode == COMPAT:
                yield unavailable(full_name, video, f"score between clips: {error}")
                yield unavailable(f"{full_name}_mapped", video, str(error))
                yield from _with_clips(f"{full_name}_inclip", scores, video)
            else:
                yield from _with_clips(full_name, scores, video)
            yield unavailable(f"{full_name}_clip2clip", video, str(error))
            return
        yield whole(f"{full_name}_clip2clip", video, between, _ONE_CLIP)
        if mode == STRICT:
            yield from _with_clips(full_name, scores, video)
            return
        yield from _with_clips(f"{full_name}_inclip", scores, video)
        yield from _with_clips(full_name, vbench_scale.fused(scores, between, dimension.branch), video)
        mapped = None if between is None else vbench_scale.mapped(between, dimension.branch)
        yield whole(f"{full_name}_mapped", video, mapped, _ONE_CLIP)


def _between(arrays: Mapping[str, np.ndarray]) -> float | None:
    """Return the score between clips; None for a single clip."""
    features = arrays.get("features")
    return similarity(features) if features is not None and len(features) > 1 else None


def _with_clips(name: str, scores: np.ndarray, video: Video) -> Iterator[Value]:
    """Yield the mean over clips, then each clip with its times; clips without a number are left out."""
    known = scores[~np.isnan(scores)]
    yield whole(name, video, float(known.mean()) if known.size else None, "no clip has two frames")
    length = clips.clip_frames(video.fps)
    for number, start in enumerate(clips.starts(video.count, video.fps)):
        if not np.isnan(scores[number]):
            end = min(start + length, video.count)
            yield Value(name, float(scores[number]), number, start / video.fps, end / video.fps)


def _sums(mode: str, raw: Mapping[str, float], video: Video) -> Iterator[Value]:
    """Yield Quality, Semantic and Total; with a part missing they are unavailable, never a guess."""
    prefix = f"vbench_long.{mode}"
    for name, parts, formula in (
        ("quality", [*QUALITY], vbench_scale.quality),
        ("semantic", [*SEMANTIC], vbench_scale.semantic),
        ("total", [*QUALITY, *SEMANTIC], vbench_scale.total),
    ):
        missing = [part for part in parts if part not in raw]
        if missing:
            yield unavailable(f"{prefix}.{name}", video, f"parts are missing: {', '.join(missing)}")
        else:
            yield whole(f"{prefix}.{name}", video, formula(raw))
