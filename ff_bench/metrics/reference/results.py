"""Read what VBench's own code found: one number per clip, checked against the clips that there must be."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ff_bench.metrics import clips
from ff_bench.metrics.reference.staging import Staged

CONSISTENCY = ("subject_consistency", "background_consistency")
"""The dimensions with a branch between clips beside the one within them."""
PERCENT = ("imaging_quality",)
"""The dimensions that VBench tells per clip in 0 to 100."""
_CLIP = re.compile(r"(v\d{4}-0)_(full|\d{3,})\.mp4")


@dataclass(frozen=True)
class Clip:
    """What VBench found for one clip.

    Attributes:
        score: Its result, in [0, 1] for all but overall_consistency and aesthetic_quality; of a consistency
            the fusion of both branches.
        inclip: Of a consistency, the branch within the clip.
        clip2clip: Of a consistency, the raw branch between clips; the same for all clips of a video. None
            where the video has one clip.
        mapped: `clip2clip` on the scale of `inclip`.
        flow: Of dynamic_degree, what each pair has against the threshold, in pixels.
    """

    score: float
    inclip: float | None = None
    clip2clip: float | None = None
    mapped: float | None = None
    flow: tuple[float, ...] = ()


class Mismatch(ValueError):
    """VBench's results do not fit the video: a clip is missing, the branch between clips, or a number."""


def read(told: Mapping[str, Any], dimension: str, video: Staged) -> tuple[Clip, ...]:
    """Return the clips of one video in order.

    Args:
        told: What `staging.run` returned.
        dimension: The one that was run.
        video: One of the videos.

    Raises:
        Mismatch: Where the number of clips is not the one of the rule, a video of several clips has no score
            between them, or a number is not finite.
    """
    found = _of_video(told, dimension, video.name)
    expected = len(clips.starts(video.count, video.fps))
    short = video.count < clips.clip_frames(video.fps)
    labels = ["full"] if short else [f"{number:03d}" for number in range(expected)]
    if sorted(found) != labels:
        raise Mismatch(f"VBench scored clips {sorted(found)} of {expected} expected")
    ordered = tuple(found[label] for label in labels)
    if not all(math.isfinite(value) for clip in ordered for value in (clip.score, *clip.flow)):
        raise Mismatch("VBench found a number that is not finite (RAFT does so below 128 px)")
    if dimension in CONSISTENCY and expected > 1 and not all((clip.clip2clip or 0) > 0 for clip in ordered):
        raise Mismatch("VBench has no score between clips (it leaves 0 where it lost the branch)")
    return ordered


def mean(values: Sequence[float | None]) -> float | None:
    """Average over the clips of a video; None where one has no value."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _of_video(told: Mapping[str, Any], dimension: str, name: str) -> dict[str, Clip]:
    entries = told["clips"]
    flows = told.get("flows") or [()] * len(entries)
    found: dict[str, Clip] = {}
    for entry, flow in zip(entries, flows, strict=True):
        match = _CLIP.search(str(entry["video_path"]))
        if match is None:
            raise Mismatch(f"VBench names a clip '{entry['video_path']}'")
        if match[1] == name:
            found[match[2]] = _clip(entry, dimension, tuple(flow))
    return found


def _clip(entry: Mapping[str, Any], dimension: str, flow: tuple[float, ...]) -> Clip:
    score = float(entry["video_results"]) / (100 if dimension in PERCENT else 1)
    if dimension not in CONSISTENCY:
        return Clip(score, flow=flow)
    between = entry.get("clip2clip_score") or None
    return Clip(
        score, inclip=float(entry.get("inclip_score", score)), clip2clip=between,
        mapped=entry["mapped_clip2clip_score"] if between else None,
    )  # fmt: skip
