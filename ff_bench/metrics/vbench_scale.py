"""The scales of VBench: ranges of raw scores, weights of dimensions, the map between clips, the sums.

Source: Vchitect/VBench@45e79ec, `scripts/constant.py`, `scripts/cal_final_score.py` and
`vbench2_beta_long/configs`.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

import numpy as np

QUALITY: Mapping[str, tuple[float, float, float]] = {
    "subject_consistency": (0.1462, 1.0, 1.0),
    "background_consistency": (0.2615, 1.0, 1.0),
    "temporal_flickering": (0.6293, 1.0, 1.0),
    "motion_smoothness": (0.706, 0.9975, 1.0),
    "dynamic_degree": (0.0, 1.0, 0.5),
    "aesthetic_quality": (0.0, 1.0, 1.0),
    "imaging_quality": (0.0, 1.0, 1.0),
}
"""Least and largest raw score and weight of the dimensions of Quality."""
SEMANTIC: Mapping[str, tuple[float, float, float]] = {
    "object_class": (0.0, 1.0, 1.0),
    "multiple_objects": (0.0, 1.0, 1.0),
    "human_action": (0.0, 1.0, 1.0),
    "color": (0.0, 1.0, 1.0),
    "spatial_relationship": (0.0, 1.0, 1.0),
    "scene": (0.0, 0.8222, 1.0),
    "appearance_style": (0.0009, 0.2855, 1.0),
    "temporal_style": (0.0, 0.364, 1.0),
    "overall_consistency": (0.0, 0.364, 1.0),
}
"""The same of the dimensions of Semantic."""
QUALITY_WEIGHT, SEMANTIC_WEIGHT = 4.0, 1.0
"""Weights of Quality and Semantic in Total."""
IN_CLIP, CLIP_TO_CLIP = 0.5, 0.5
"""Weights of the fusion that VBench-Long applies under `--dev_flag`; without it they are 1 and 0."""


def quality(raw: Mapping[str, float]) -> float:
    """Return the Quality score in [0, 1] from the raw scores of its seven dimensions.

    Raises:
        KeyError: Where one is missing: it would count as far below the least score.
    """
    return _weighted(raw, QUALITY)


def semantic(raw: Mapping[str, float]) -> float:
    """Return the Semantic score in [0, 1] from the raw scores of its nine dimensions.

    Raises:
        KeyError: Where one is missing.
    """
    return _weighted(raw, SEMANTIC)


def total(raw: Mapping[str, float]) -> float:
    """Return the Total score in [0, 1] from the raw scores of all sixteen dimensions.

    Raises:
        KeyError: Where one is missing.
    """
    weighed = QUALITY_WEIGHT * quality(raw) + SEMANTIC_WEIGHT * semantic(raw)
    return weighed / (QUALITY_WEIGHT + SEMANTIC_WEIGHT)


def _weighted(raw: Mapping[str, float], scale: Mapping[str, tuple[float, float, float]]) -> float:
    scores = [weight * (raw[name] - least) / (most - least) for name, (least, most, weight) in scale.items()]
    return sum(scores) / sum(weight for _, _, weight in scale.values())


def mapped(clip_to_clip: float, branch: str) -> float:
    """Map a similarity between clips to the scale of similarities within clips.

    Args:
        clip_to_clip: In [0, 1].
        branch: `subject` or `background`.
    """
    scores, values = _table()[branch]
    return float(np.interp(clip_to_clip, scores, values))


def fused(in_clip: np.ndarray, clip_to_clip: float | None, branch: str) -> np.ndarray:
    """Fuse the scores within clips with the mapped score between clips, as VBench-Long does per clip.

    Args:
        in_clip: (C,) score of each clip.
        clip_to_clip: None for a video of one clip, whose score is that within it; so is that of a video whose
            mapped score is 0.
        branch: `subject` or `background`.
    """
    between = 0.0 if clip_to_clip is None else mapped(clip_to_clip, branch)
    return IN_CLIP * in_clip + CLIP_TO_CLIP * between if between else in_clip


@lru_cache(maxsize=1)
def _table() -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
    text = files("ff_bench.metrics").joinpath("vbench_long_mapping.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    return {
        branch: (
            np.array([float(row["clip2clip"]) for row in rows if row["branch"] == branch]),
            np.array([float(row["mapped"]) for row in rows if row["branch"] == branch]),
        )
        for branch in ("subject", "background")
    }
