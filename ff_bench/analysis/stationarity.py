"""Are queries stationary before their rotation? Measured on a full-cache rollout, in one pass over it.

The observation under Future Forcing (arXiv 2605.30083, Sec. 3; Table 8 in App. G): between frames, queries
before the rotary embedding move by about 0.12 standard deviations, rotated ones by about 1.18.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ff_bench.analysis.drift import Drift
from ff_bench.analysis.rollouts import watched
from ff_bench.models.base import Model
from ff_bench.runs import VideoSpec
from policies.attention import strided
from policies.base import Pass
from policies.cache import LayerCache
from policies.full import Full
from policies.rope import Rope

UNITS = ("chunk", "frame")
BEFORE, AFTER = "before", "after"
W1, FRECHET = "w1", "frechet"
LAG, PASS = "lag", "pass"
AXES = ("time", "row", "column")
COLUMNS = (
    "model", "prompt_id", "seed", "rotation", "quantity", "versus", "distance", "layer", "head", "channel",
    "axis", "value",
)  # fmt: skip


@dataclass(frozen=True)
class Sampling:
    """What is compared with what.

    Attributes:
        unit: `chunk` or `frame`: the tokens whose queries make one sample.
        rows: most rows of a unit, evenly spaced and at the same places in each.
        lags: distances between units.
        has_frechet: whether the Frechet distance is measured as well.
    """

    unit: str = "chunk"
    rows: int = 192
    lags: tuple[int, ...] = (1,)
    has_frechet: bool = True


class Watcher(Full):
    """A full cache that measures the queries of every pass and keeps none but the last ones."""

    def __init__(self, sampling: Sampling) -> None:
        """Begin with nothing seen."""
        self.sampling = sampling
        self.levels: dict[int, float] = {}  # number of a noisy pass -> its noise level
        self._drifts: dict[tuple[str, int], Drift] = {}
        self._noisy: dict[tuple[str, int], list[Tensor]] = {}

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Take the queries of one pass of one layer before and after the rotation."""
        for rotation, queries in ((BEFORE, step.queries), (AFTER, step.rotated_queries)):
            key = (rotation, step.layer)
            noisy = self._noisy.setdefault(key, [])
            units = self._units(queries[0])
            if not step.commit:
                self._note_level(len(noisy), step)
                noisy.append(units)
                continue
            if any(other.shape != units.shape for other in noisy):
                noisy.clear()  # passes over several chunks at once have no clean counterpart
            if key not in self._drifts:
                self._drifts[key] = Drift(self.sampling.lags, has_frechet=self.sampling.has_frechet)
            for place in range(units.shape[1]):
                self._drifts[key].add(units[:, place], [other[:, place] for other in noisy])
            noisy.clear()

    def _note_level(self, number: int, step: Pass) -> None:
        """Note the noise level of a pass once; asking the device for it costs a wait."""
        if number not in self.levels:
            self.levels[number] = float(step.noise.mean())

    def _units(self, queries: Tensor) -> Tensor:
        """Choose rows of each unit of queries (Hq, N, D); return (Hq, U, R, D)."""
        frame_tokens = self.shape.frame_tokens
        width = frame_tokens if self.sampling.unit == "frame" else queries.shape[1]
        units: Tensor = queries.unflatten(1, (-1, width))
        chosen = strided(width, -(-width // self.sampling.rows), queries.device)
        return units.clone() if chosen is None else units[:, :, chosen]

    def rows(self, rope: Rope) -> Iterator[dict[str, Any]]:
        """Yield tidy rows: a quantity of one layer, head and, for Wasserstein-1, channel."""
        axes = channel_axes(rope)
        for (rotation, layer), drift in self._drifts.items():
            for lag, values in drift.wasserstein().items():
                yield from _by_channel(values, axes, rotation, LAG, float(lag), layer)
            for place, values in drift.against().items():
                yield from _by_channel(values, axes, rotation, PASS, self.levels[place], layer)
            for lag, values in drift.frechet().items():
                for head, value in enumerate(values.tolist()):
                    yield {
                        "rotation": rotation, "quantity": FRECHET, "versus": LAG, "distance": float(lag),
                        "layer": layer, "head": head, "channel": -1, "axis": "all", "value": value,
                    }  # fmt: skip


def _by_channel(
    values: Tensor, axes: Sequence[str], rotation: str, versus: str, distance: float, layer: int
) -> Iterator[dict[str, Any]]:
    for head, channels in enumerate(values.tolist()):
        for channel, value in enumerate(channels):
            yield {
                "rotation": rotation, "quantity": W1, "versus": versus, "distance": distance,
                "layer": layer, "head": head, "channel": channel, "axis": axes[channel], "value": value,
            }  # fmt: skip


def channel_axes(rope: Rope) -> list[str]:
    """Return which axis turns each channel of a head."""
    by_pair = [axis for axis, channels in zip(AXES, rope.dims, strict=True) for _ in range(channels // 2)]
    axes = [""] * rope.head_dim
    for side in rope.pairs(torch.arange(rope.head_dim)):
        for pair, channel in enumerate(side.tolist()):
            axes[channel] = by_pair[pair]
    return axes


def measure(model: Model, spec: VideoSpec, sampling: Sampling) -> list[dict[str, Any]]:
    """Generate one video with the full cache and return the tidy rows of its queries.

    Args:
        model: the backbone.
        spec: a video of the full cache.
        sampling: what is compared with what.
    """
    watcher = Watcher(sampling)
    for _ in watched(model, spec, watcher, passes="all"):
        pass
    known: Mapping[str, Any] = {"model": model.facts.name, "prompt_id": spec.prompt.id, "seed": spec.seed}
    return [{**known, **row} for row in watcher.rows(model.shape.rope)]
