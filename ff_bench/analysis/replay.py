"""Replay of policies on one recording: what each holds, and how far its attention is from the full cache's.

Every policy streams the same recorded tensors through its own context, so that what one keeps depends on no
other. The inputs of a layer are those of the full cache: an error here is one of attention alone and does not
build up over layers, passes and chunks as it does in a video.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ff_bench import generate
from ff_bench.analysis import greedy
from ff_bench.analysis.places import Cells, cells_of, coverage
from ff_bench.analysis.recording import Choice
from ff_bench.analysis.streams import Setting, Stream, Truth, ahead, truths
from ff_bench.config import RunConfig
from policies.base import Policy

MEASURES = (
    "error", "recall", "recall_ahead", "recall_top", "coverage", "coverage_again", "frames_held",
)  # fmt: skip
COLUMNS = (
    "model", "prompt_id", "seed", "policy", "budget_tokens", "chunk", "layer", "head", "measure", "value",
)  # fmt: skip
OVERLAP = ("model", "prompt_id", "seed", "budget_tokens", "policy", "other", "jaccard")


@dataclass(frozen=True)
class Entry:
    """A policy under a budget.

    Attributes:
        name: as asked for, `h2o` or `future_forcing:merge=none`.
        config: composed; None of its fields but policy, protocol, budget, dtype and device are read.
    """

    name: str
    config: RunConfig

    @property
    def tokens(self) -> int | None:
        """Its budget; None for a full cache."""
        return self.config.budget.tokens


@dataclass(frozen=True)
class Plan:
    """What is replayed and measured.

    Attributes:
        full: configuration of the full cache.
        entries: policies under budgets.
        chunks_ahead: chunks over which `recall_ahead` sums the mass.
        references: configurations, one per budget, under which `greedy_error` runs beside them.
    """

    full: RunConfig
    entries: tuple[Entry, ...]
    chunks_ahead: int
    references: tuple[RunConfig, ...] = ()


@dataclass(frozen=True)
class Replayed:
    """What one recording gave.

    Attributes:
        rows: tidy rows, without model, prompt and seed.
        overlap: mean Jaccard index of kept sets for each pair of policies at one budget.
    """

    rows: list[dict[str, Any]]
    overlap: list[dict[str, Any]]


def replay(setting: Setting, plan: Plan, advance: Callable[[int], object] = lambda _: None) -> Replayed:
    """Stream one recording through every policy under every budget.

    Args:
        setting: of the recording.
        plan: what is replayed.
        advance: called with the number of chunks that are done, the truth's included.

    Raises:
        ValueError: where a policy cannot run on what was recorded.
    """
    found = truths(setting, plan.full)
    advance(len(found))
    streams = _streams(setting, plan, found)
    is_mini = plan.full.model.architecture == "mini"
    length = plan.full.length.latent_frames
    cells = cells_of(setting.recording.prompt, length, plan.full.device) if is_mini else None
    meter = _Meter(setting, plan, found, cells)
    rows: list[dict[str, Any]] = []
    shared: dict[tuple[str, str, int], list[float]] = {}
    for place in range(len(found)):
        masks: dict[tuple[str, int], Tensor] = {}
        rows += meter.chunk(place, streams, masks)
        for key, value in _pairs(masks):
            shared.setdefault(key, []).append(value)
        advance(1)
    overlap = [
        {"budget_tokens": tokens, "policy": one, "other": other, "jaccard": sum(values) / len(values)}
        for (one, other, tokens), values in shared.items()
    ]
    return Replayed(rows, overlap)


def _streams(setting: Setting, plan: Plan, found: Sequence[Truth]) -> list[tuple[str, Stream]]:
    """Start every policy, and the reference once per budget."""
    made: list[tuple[str, Policy, RunConfig]] = [
        (entry.name, generate.make_policy(entry.config), entry.config) for entry in plan.entries
    ]
    made += [(greedy.NAME, greedy.GreedyError(found), config) for config in plan.references]
    return [(name, Stream(setting, config, policy)) for name, policy, config in made]


@dataclass(frozen=True)
class _Meter:
    """What streams are measured with: the truth of the video, and the cells that `mini` shows."""

    setting: Setting
    plan: Plan
    found: Sequence[Truth]
    cells: Cells | None

    def chunk(
        self, place: int, streams: Sequence[tuple[str, Stream]], masks: dict[tuple[str, int], Tensor]
    ) -> Iterator[dict[str, Any]]:
        """Run one chunk through every stream; yield rows of those that have dropped something before.

        Args:
            place: of the chunk.
            streams: name and stream.
            masks: what each holds as the chunk begins is put here, by name and budget.
        """
        piece = self.setting.recording.pieces[place]
        tensors = self.setting.recording.load(piece, self.plan.full.device)
        for name, stream in streams:
            tokens, is_measured = stream.config.budget.tokens, stream.has_dropped()
            kept = stream.kept(piece.first * self.setting.shape.frame_tokens)
            outputs = self.setting.measured(stream.step(piece, tensors))
            if not is_measured or tokens is None:
                continue
            masks[name, tokens] = kept
            known = {"policy": name, "budget_tokens": tokens, "chunk": piece.number}
            values = self.measure(place, kept, outputs, tokens)
            yield from ({**known, **row} for row in _tidy(values, self.setting.choice))

    def measure(self, place: int, kept: Tensor, outputs: Tensor, tokens: int) -> dict[str, Tensor]:
        """Return every measure of one chunk under one policy, each (L, H)."""
        truth, shape = self.found[place], self.setting.shape
        later = ahead(self.found, place, self.plan.chunks_ahead, kept.shape[-1])
        values = {
            "error": relative_error(outputs, truth.outputs, shape.heads),
            "recall": _share(truth.mass, kept),
            "recall_ahead": _share(later, kept),
            "recall_top": recall_top(truth.mass, kept, tokens),
            "frames_held": kept.unflatten(2, (-1, shape.frame_tokens)).any(3).float().mean(2),
        }
        if self.cells is not None:
            values["coverage"], values["coverage_again"] = coverage(kept, self.cells)
        return values


def relative_error(outputs: Tensor, true: Tensor, heads: int) -> Tensor:
    """Return |o' - o| / |o| over the rows of a head and its group, (L, H).

    Args:
        outputs: (L, Hq, R, D).
        true: of the full cache, the same shape.
        heads: key-value heads.
    """
    both = ((outputs - true).unflatten(1, (heads, -1)), true.unflatten(1, (heads, -1)))
    apart, size = (part.double().square().sum((2, 3, 4)).sqrt() for part in both)
    error: Tensor = (apart / size.clamp(min=1e-30)).float()
    return error


def recall_top(mass: Tensor, kept: Tensor, tokens: int) -> Tensor:
    """Return the share of the `tokens` slots with the largest mass that are held, (L, H)."""
    best = mass.topk(min(tokens, mass.shape[-1]), -1).indices
    return kept.gather(2, best).float().mean(2)


def _share(mass: Tensor, kept: Tensor) -> Tensor:
    share: Tensor = (mass * kept).sum(-1) / mass.sum(-1).clamp(min=1e-30)
    return share


def jaccard(one: Tensor, other: Tensor) -> float:
    """Return the mean over heads of the size of the intersection over that of the union; (L, H, S) bool."""
    union = (one | other).sum(-1).clamp(min=1)
    return float(((one & other).sum(-1) / union).mean())


def _pairs(masks: dict[tuple[str, int], Tensor]) -> Iterator[tuple[tuple[str, str, int], float]]:
    """Yield the overlap of each pair of policies at one budget once."""
    keys = list(masks)
    for place, (one, tokens) in enumerate(keys):
        for other, its_tokens in keys[place + 1 :]:
            if tokens == its_tokens:
                yield (one, other, tokens), jaccard(masks[one, tokens], masks[other, tokens])


def _tidy(values: Mapping[str, Tensor], choice: Choice) -> Iterator[dict[str, Any]]:
    """Yield a row per measure, layer and head; what is not defined there has none."""
    for measure, by_head in values.items():
        for layer, of_layer in zip(choice.layers, by_head.tolist(), strict=True):
            for head, value in zip(choice.heads, of_layer, strict=True):
                if not math.isnan(value):
                    yield {"layer": layer, "head": head, "measure": measure, "value": value}
