"""What a paired difference to the baseline says: p-values, size, equivalence, power, and one verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ff_bench.report.effect import standardised, win_rate
from ff_bench.report.equivalence import equivalence, noninferiority
from ff_bench.report.holm import holm
from ff_bench.report.permutation import sign_flips
from ff_bench.report.power import ALPHA, prompts_needed, smallest_difference
from ff_bench.report.statistics import Block, Pair, blocks

BETTER, WORSE, HIGHER, LOWER = "better", "worse", "higher", "lower"
EQUIVALENT, OPEN = "equivalent", "not distinguishable"


@dataclass(frozen=True)
class Contrast:
    """A policy against the baseline in one metric; numbers that do not exist are NaN.

    Attributes:
        difference: Mean of policy minus baseline.
        direction: 1 where higher is better, -1 where lower is, 0 where neither.
        margin: The smallest difference worth a claim, in the metric's unit.
        p: That the mean difference is zero (flips of the prompts' signs).
        effect: Standardised mean difference over prompts.
        win_rate: Share of pairs in which the policy is better (higher, where no direction is).
        p_equivalent: That the difference is not within the margin.
        p_noninferior: That the policy is worse by the margin or more.
        n_needed: Prompts that resolve a difference of the margin at the seen spread.
        resolvable: Smallest difference that the present prompts resolve, in the metric's unit.
        p_holm: `p`, corrected for the family.
        floor: Spread between `full_eps` and `full`: a difference up to it is rounding that grew.
        verdict: One of the words of this module; empty until judged.
    """

    difference: float
    direction: int
    margin: float
    p: float
    effect: float
    win_rate: float
    p_equivalent: float
    p_noninferior: float
    n_needed: int | None
    resolvable: float | None
    p_holm: float = math.nan
    floor: float = math.nan
    verdict: str = ""

    @property
    def is_within_floor(self) -> bool:
        """Whether the difference is no larger than what rounding alone does."""
        return abs(self.difference) <= self.floor


def contrasts(
    differences: Sequence[Mapping[Pair, float]], margins: Sequence[float], directions: Sequence[int]
) -> list[Contrast | None]:
    """Compare many policies and metrics with the baseline at once.

    Args:
        differences: Policy minus baseline by pair.
        margins: Of each; NaN where there is none.
        directions: Of each, as in `Contrast`.

    Returns:
        Contrasts that are not yet judged; None where nothing pairs.
    """
    found: list[Contrast | None] = [None] * len(differences)
    for block in blocks(differences):
        places = list(block.places)
        ways = np.array(directions)[places]
        for place, made in zip(places, _of_block(block, np.array(margins)[places], ways), strict=True):
            found[place] = made
    return found


def _of_block(block: Block, margins: np.ndarray, ways: np.ndarray) -> list[Contrast]:
    means = block.prompt_means
    prompts = len(means)
    spreads = means.std(0, ddof=1) if prompts > 1 else np.full(len(margins), np.nan)
    parts = (
        means.mean(0), margins, sign_flips(means), standardised(means),
        win_rate(block.values, block.counts, ways), equivalence(means, margins),
        noninferiority(means, margins, ways), spreads,
    )  # fmt: skip
    columns = zip(ways.tolist(), *(part.tolist() for part in parts), strict=True)
    return [
        Contrast(
            difference=difference, direction=way, margin=margin, p=p, effect=effect, win_rate=wins,
            p_equivalent=equal, p_noninferior=not_worse,
            n_needed=None if math.isnan(spread + margin) else prompts_needed(spread, margin),
            resolvable=None if math.isnan(spread) else smallest_difference(spread, prompts),
        )
        for way, difference, margin, p, effect, wins, equal, not_worse, spread in columns
    ]  # fmt: skip


def judged(family: Sequence[Contrast]) -> list[Contrast]:
    """Correct the p-values of one family after Holm and give every member its verdict."""
    corrected = zip(
        family,
        holm([one.p for one in family]),
        holm([one.p_equivalent for one in family]),
        holm([one.p_noninferior for one in family]),
        strict=True,
    )
    return [
        replace(
            one,
            p_holm=p,
            p_equivalent=equal,
            p_noninferior=not_worse,
            verdict=_verdict(one, p, equal),
        )
        for one, p, equal, not_worse in corrected
    ]


def _verdict(one: Contrast, p: float, equal: float) -> str:
    """Choose the word; a difference that is surely within the margin is none, however sure its sign."""
    if equal < ALPHA:
        return EQUIVALENT
    if not p < ALPHA:
        return OPEN
    if one.direction == 0:
        return HIGHER if one.difference > 0 else LOWER
    return BETTER if one.difference * one.direction > 0 else WORSE
