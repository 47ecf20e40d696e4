"""How far samples of rows lie apart over lags: Wasserstein-1 per channel, Frechet distance per head."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """Rows of one unit (a chunk or a latent frame) in one layer.

    Attributes:
        ordered: (H, R, D) fp32, each channel sorted over the rows.
        means: (H, D).
        covariance: (H, D, D), empty where no Frechet distance is asked for.
        root: square root of the covariance.
    """

    ordered: Tensor
    means: Tensor
    covariance: Tensor
    root: Tensor

    @classmethod
    def of(cls, rows: Tensor, *, has_covariance: bool) -> Sample:
        """Take rows (H, R, D) fp32."""
        means = rows.mean(1)
        covariance = root = rows.new_empty(0)
        if has_covariance:
            centred = rows - means[:, None]
            covariance = centred.mT @ centred / rows.shape[1]
            values, vectors = torch.linalg.eigh(covariance)
            root = vectors * values.clamp(min=0).sqrt()[..., None, :] @ vectors.mT
        return cls(rows.sort(1).values, means, covariance, root)


class Drift:
    """Distances between the samples of a stream that are some lags apart, in memory that does not grow.

    Only the samples of the longest lag are held; distances are summed and divided by the spread of all rows
    at the end, which is the same, as the Wasserstein-1 distance scales with its values.
    """

    def __init__(self, lags: Sequence[int], *, has_frechet: bool) -> None:
        """Begin with nothing seen.

        Args:
            lags: distances, in samples, from 1.
            has_frechet: whether Frechet distances are computed as well.
        """
        self.lags, self.has_frechet = tuple(lags), has_frechet
        self._recent: deque[Sample] = deque(maxlen=max(lags, default=0))
        self._gaps: dict[int, Tensor] = {}
        self._frechet: dict[int, Tensor] = {}
        self._against: dict[int, tuple[Tensor, int]] = {}
        self._seen = self._rows = 0
        self._sum = self._square = torch.zeros(())

    def add(self, rows: Tensor, others: Sequence[Tensor] = ()) -> None:
        """Take the next sample.

        Args:
            rows: (H, R, D).
            others: other versions of the same rows, as of noisy passes; each is compared with `rows`.
        """
        wide = rows.double()
        self._sum = self._sum + wide.sum(1)
        self._square = self._square + wide.square().sum(1)
        self._rows += rows.shape[1]
        sample = Sample.of(rows.float(), has_covariance=self.has_frechet)
        for lag in self.lags:
            if lag <= len(self._recent):
                self._compare(lag, self._recent[-lag], sample)
        for place, other in enumerate(others):
            gap = (other.float().sort(1).values - sample.ordered).abs().mean(1).double()
            total, count = self._against.get(place, (torch.zeros_like(gap), 0))
            self._against[place] = (total + gap, count + 1)
        self._recent.append(sample)
        self._seen += 1

    def _compare(self, lag: int, before: Sample, now: Sample) -> None:
        gap = (now.ordered - before.ordered).abs().mean(1).double()
        self._gaps[lag] = self._gaps.get(lag, torch.zeros_like(gap)) + gap
        if self.has_frechet:
            moved = (now.means - before.means).square().sum(-1)
            found = (moved + bures(before, now)).double()
            self._frechet[lag] = self._frechet.get(lag, torch.zeros_like(found)) + found

    @property
    def spread(self) -> Tensor:
        """Standard deviation of each channel over all rows seen, (H, D)."""
        mean = self._sum / self._rows
        return (self._square / self._rows - mean.square()).clamp(min=0).sqrt()

    def wasserstein(self) -> dict[int, Tensor]:
        """Return lag -> mean Wasserstein-1 distance in standard deviations of the channel, (H, D) fp64."""
        return {lag: _ratio(gap / (self._seen - lag), self.spread) for lag, gap in self._gaps.items()}

    def against(self) -> dict[int, Tensor]:
        """Return place among `others` -> the same distance to `rows`, (H, D) fp64."""
        return {place: _ratio(gap / count, self.spread) for place, (gap, count) in self._against.items()}

    def frechet(self) -> dict[int, Tensor]:
        """Return lag -> squared Frechet distance over the mean squared norm of a row, (H,) fp64."""
        energy = (self._square / self._rows).sum(-1)
        return {lag: _ratio(total / (self._seen - lag), energy) for lag, total in self._frechet.items()}


def bures(first: Sample, second: Sample) -> Tensor:
    """Return the squared Bures distance of two covariances, (H,)."""
    cross = torch.linalg.eigvalsh(first.root @ second.covariance @ first.root)
    traces = [one.covariance.diagonal(dim1=-1, dim2=-2).sum(-1) for one in (first, second)]
    squared: Tensor = traces[0] + traces[1] - 2 * cross.clamp(min=0).sqrt().sum(-1)
    return squared.clamp(min=0)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Divide; 0 where the whole is 0, as a channel that never changes is apart from nothing."""
    return torch.where(whole > 0, part / whole.clamp(min=1e-30), 0.0)
