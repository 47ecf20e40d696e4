"""Likeness of frames by their features, at given distances in time."""

from __future__ import annotations

import numpy as np

GAPS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0)
"""Seconds between the frames of the pairs of `coherence`."""


def unit(features: np.ndarray) -> np.ndarray:
    """Scale features, (T, D), to length 1, float64; a feature of zeros stays."""
    wide = np.asarray(features, np.float64)
    scaled: np.ndarray = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return scaled


def coherence(features: np.ndarray, gap: int) -> float:
    """Return the mean cosine over all pairs of frames that are `gap` frames apart.

    Args:
        features: (T, D) of length 1.
        gap: 0 < gap < T.
    """
    pairs = len(features) - gap
    return float(np.einsum("td,td->", features[gap:], features[:pairs]) / pairs)
