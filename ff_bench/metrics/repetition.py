"""Repetition: a video that stands still, and one that plays the same frames again and again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STILL = 0.001
"""Mean absolute difference of images in [0, 1] below which a frame repeats the one before.

Source: FFmpeg's filter `freezedetect`, whose noise tolerance is -60 dB by default.
"""
LEAST_SECONDS = 1.0
"""Shortest period of a loop: shorter ones are gaits, waves and flicker."""
NEARLY = 0.9
"""The period is the shortest with this share of the strongest repetition, not one of its multiples."""
_COLUMNS = 64


@dataclass(frozen=True)
class Loop:
    """The clearest repetition of a video.

    Attributes:
        strength: 0 where frames do not come back, 1 where all do.
        period: Frames until they come back; 0 where `strength` is 0.
    """

    strength: float
    period: int


def longest_run(marks: np.ndarray) -> int:
    """Return the length of the longest stretch of true marks, (T,) bool."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marks.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def distances(features: np.ndarray) -> np.ndarray:
    """Return the mean squared distance of frames by how far they are apart, lags 0 to T - 1, (T,) float64.

    It is the mean along each diagonal of the matrix of distances, which is never made: sums of products
    follow from the power spectrum.

    Args:
        features: (T, D).
    """
    centred = np.asarray(features, np.float64) - np.mean(features, axis=0, dtype=np.float64)
    frames = len(centred)
    power = np.zeros(frames + 1)
    for start in range(0, centred.shape[1], _COLUMNS):
        spectrum = np.fft.rfft(centred[:, start : start + _COLUMNS], 2 * frames, axis=0)
        power += np.einsum("fd,fd->f", spectrum.real, spectrum.real)
        power += np.einsum("fd,fd->f", spectrum.imag, spectrum.imag)
    products = np.fft.irfft(power)[:frames]
    lengths = np.concatenate([[0.0], np.einsum("td,td->t", centred, centred).cumsum()])
    lags = np.arange(frames)
    both = lengths[frames - lags] + lengths[frames] - lengths[lags]
    found: np.ndarray = np.maximum(0.0, both - 2 * products) / (frames - lags)
    return found


def find_loop(features: np.ndarray, *, least: int, floor: float) -> Loop:
    """Look for a lag at which frames are much closer than at the lags below it.

    With d(p) the mean squared distance of frames p apart and m(p) its mean over the lags 1 to p,
    strength(p) = (m(p) - d(p)) / (m(p) + floor), at least 0. Where everything comes back after p frames, d(p)
    is 0. Of a view that moves on or drifts, d grows, then stays: no strength. Noise and stillness have the
    same d at all lags: none either.

    Source: the cumulative mean normalised difference of the pitch detector YIN (de Cheveigné and Kawahara,
    JASA 111, 2002, eq. 8), for frames instead of samples.
    Deviates: the floor, so that changes which are not visible are no loop.

    Args:
        features: (T, D).
        least: Shortest period in frames, at least 2.
        floor: Squared distance that is hardly visible; of frames that differ by it half the strength is left.
    """
    lags = np.arange(1, len(features) // 2 + 1)
    if len(lags) < least:
        return Loop(0.0, 0)
    distance = distances(features)[lags]
    usual = distance.cumsum() / lags
    strength = ((usual - distance) / (usual + floor))[least - 1 :]
    strongest = float(strength.max())
    if strongest <= 0:
        return Loop(0.0, 0)
    return Loop(strongest, int(lags[least - 1 :][_first_peak(strength, NEARLY * strongest)]))


def _first_peak(strength: np.ndarray, bar: float) -> int:
    """Return where the first stretch at or above the bar is highest."""
    begin = int((strength >= bar).argmax())
    below = np.flatnonzero(strength[begin:] < bar)
    end = begin + int(below[0]) if below.size else len(strength)
    return begin + int(strength[begin:end].argmax())
