"""Which bold cells of published tables survive their number of prompts and the spread of the same cell.

Three yardsticks, each from numbers that are printed somewhere:

- the half-width of a paired 95 % interval, as an independent evaluation measured it at 200 prompts, scaled by
  the root of the number of prompts; for the dynamic degree, which counts clips, a binomial bound;
- the spread of the model's native rule at the same length across papers: it holds other prompt lists, flags
  and seeds, so that within one table it is strict;
- the spread of one configuration that a paper prints twice.

Source: Dwell-Jing/commit-forcing@5ed6592, RESULTS.md (60 s, 200 prompts, bootstrap of 4000 over prompts).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ff_bench.metrics import vbench_scale
from ff_bench.report.published import Row, blocks
from ff_bench.report.published.grains import clip_count, grains
from ff_bench.report.published.methods import canonical

SURVIVES, INSIDE, UNTESTABLE = "survives", "inside the noise", "not testable"
VERDICTS = (SURVIVES, INSIDE, UNTESTABLE)
MEASURED_N = 200
ASSUMED_N = 128
NATIVE = "native"
LONG = "vbench_long.compat"
HALF_WIDTHS: Mapping[str, tuple[float, float]] = {
    f"{LONG}.subject_consistency": (0.0005, 0.0030),
    f"{LONG}.subject_consistency_clip2clip": (0.0030, 0.0110),
    f"{LONG}.background_consistency": (0.0004, 0.0009),
    f"{LONG}.background_consistency_clip2clip": (0.0030, 0.0080),
    f"{LONG}.motion_smoothness": (0.0003, 0.0047),
    f"{LONG}.temporal_flickering": (0.0005, 0.0051),
    f"{LONG}.aesthetic_quality": (0.0020, 0.0073),
    f"{LONG}.imaging_quality": (0.0026, 0.0094),
    f"{LONG}.quality": (0.0013, 0.0064),
}
"""Least and most half-width of paired 95 % intervals between two methods on one model, at `MEASURED_N`
prompts of 60 s. The upper ends come from Self-Forcing without a trained sink, whose videos decay."""
TOLERANCE = 1e-4
"""Largest difference between a printed Quality and the one that its columns give."""
_NORMAL = 1.959963984540054  # 97.5 % quantile


@dataclass(frozen=True)
class Spread:
    """How far numbers of one thing lie apart.

    Attributes:
        width: Largest minus smallest.
        cells: Numbers behind it.
        papers: Papers that print them.
    """

    width: float
    cells: int
    papers: int


@dataclass(frozen=True)
class Finding:
    """One bold cell against the runner-up of its block.

    Attributes:
        row: The bold cell.
        runner_up: The best other one.
        gap: How much better the bold cell is, in the metric's unit; negative where it is not the best.
        prompts: Number of prompts.
        known: `stated`, `inferred` from the dynamic degrees, or `assumed`.
        half: Least and most half-width of the 95 % interval of the gap; None where nothing is known.
        spread: Of the native rule across papers, or of one configuration printed twice, the wider; None
            where no cell is printed twice.
        by_n: Whether the gap exceeds the half-width: `yes`, `no`, `open` between its ends, `unknown`.
        by_spread: Whether it exceeds the spread: `yes`, `no`, `unknown`.
        verdict: One of `VERDICTS`.
    """

    row: Row
    runner_up: Row
    gap: float
    prompts: int
    known: str
    half: tuple[float, float] | None
    spread: Spread | None
    by_n: str
    by_spread: str
    verdict: str


@dataclass(frozen=True)
class Recomputed:
    """A printed Quality and what its seven columns give."""

    row: Row
    quality: float

    @property
    def deviation(self) -> float:
        """Recomputed minus printed."""
        return self.quality - self.row.value


def audit(
    rows: Sequence[Row], *, evidence: Sequence[Row] | None = None, assume: int = ASSUMED_N
) -> list[Finding]:
    """Judge every marked cell of the tables.

    Args:
        rows: Cells to judge.
        evidence: Cells to take spreads from; the same by default.
        assume: Prompts where a paper does not state them and its dynamic degrees do not tell.
    """
    known = rows if evidence is None else evidence
    inferred = {(grain.paper, grain.table): grain.prompts for grain in grains(known)}
    return [
        _judge(row, rivals, known, inferred, assume)
        for rivals in blocks(rows).values()
        for row in rivals
        if row.mark and len(rivals) > 1
    ]


def _judge(
    row: Row,
    rivals: Sequence[Row],
    evidence: Sequence[Row],
    inferred: Mapping[tuple[str, str], int],
    assume: int,
) -> Finding:
    runner_up = max(
        (other for other in rivals if other is not row), key=lambda other: other.sign * other.value
    )
    gap = round(row.sign * (row.value - runner_up.value), 9)
    prompts, known = assume, "assumed"
    if row.n_prompts is not None:
        prompts, known = row.n_prompts, "stated"
    elif (row.paper, row.table) in inferred:
        prompts, known = inferred[row.paper, row.table], "inferred"
    half = half_width(row, runner_up, prompts)
    wide = widest(row, runner_up, evidence)
    by_n = "unknown" if half is None else "yes" if gap > half[1] else "no" if gap <= half[0] else "open"
    by_spread = "unknown" if wide is None else "yes" if gap > wide.width else "no"
    return Finding(
        row, runner_up, gap, prompts, known, half, wide, by_n, by_spread, verdict(gap, by_n, by_spread)
    )


def verdict(gap: float, by_n: str, by_spread: str) -> str:
    """Combine the answers: one `no` is enough to fall, a `yes` to the prompts is needed to stand."""
    if gap <= 0 or "no" in (by_n, by_spread):
        return INSIDE
    return SURVIVES if by_n == "yes" else UNTESTABLE


def half_width(row: Row, runner_up: Row, prompts: int) -> tuple[float, float] | None:
    """Return the least and the most half-width of the 95 % interval of a gap at a number of prompts."""
    if row.metric.endswith(".dynamic_degree"):
        return dynamic_range(row.value, runner_up.value, prompts, clip_count(row))
    measured = HALF_WIDTHS.get(row.metric)
    if measured is None:
        return None
    scale = math.sqrt(MEASURED_N / prompts)
    return measured[0] * scale, measured[1] * scale


def dynamic_range(first: float, second: float, prompts: int, clips: int) -> tuple[float, float]:
    """Bound the half-width of a difference of two fractions of clips.

    Args:
        first: Fraction of clips that move, in [0, 1].
        second: The same of the other method.
        prompts: Videos of each.
        clips: Clips of a video.

    Returns:
        Half-widths if all clips were independent, and if all clips of a video agreed.
    """
    variance = first * (1 - first) + second * (1 - second)
    return _NORMAL * math.sqrt(variance / (prompts * clips)), _NORMAL * math.sqrt(variance / prompts)


def widest(row: Row, runner_up: Row, evidence: Iterable[Row]) -> Spread | None:
    """Return the widest spread that concerns a gap: of either model's native rule, or of a repeated cell."""
    same = [other for other in evidence if (other.metric, other.seconds) == (row.metric, row.seconds)]
    models = {row.model, runner_up.model}
    found = [spread(same, model) for model in sorted(models)]
    found += [
        _spread(cells)
        for cells in repeated(same)
        if cells[0].paper == row.paper and cells[0].model in models and cells[0].n_prompts == row.n_prompts
    ]
    return max((one for one in found if one), key=lambda one: one.width, default=None)


def spread(rows: Iterable[Row], model: str) -> Spread | None:
    """Return how far papers lie apart about the native rule of a model; None with fewer than two papers.

    Args:
        rows: Of one metric and length.
        model: Whose rule.
    """
    cells = [row for row in rows if row.model == model and row.method == NATIVE]
    return _spread(cells) if len({row.paper for row in cells}) > 1 else None


def _spread(cells: Sequence[Row]) -> Spread:
    values = [row.value for row in cells]
    return Spread(round(max(values) - min(values), 9), len(cells), len({row.paper for row in cells}))


def repeated(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield the cells of one configuration that a paper prints more than once, on equal prompts."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row.seconds is not None:
            key = (
                row.paper, row.model, canonical(row.method), row.seconds, row.budget_frames, row.metric,
                row.n_prompts, row.prompt_list,
            )  # fmt: skip
            groups.setdefault(key, []).append(row)
    yield from (cells for cells in groups.values() if len(cells) > 1)


def recompute(rows: Iterable[Row]) -> list[Recomputed]:
    """Compute Quality from its seven columns wherever a table prints all of them."""
    lines: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in rows:
        if row.metric.startswith(f"{LONG}."):
            lines.setdefault(row.key[:-1], {})[row.metric.rpartition(".")[2]] = row
    return [
        Recomputed(
            cells["quality"], vbench_scale.quality({name: cells[name].value for name in vbench_scale.QUALITY})
        )
        for cells in lines.values()
        if cells.keys() >= {"quality", *vbench_scale.QUALITY}
    ]
