"""Win rates from votes: how often each policy was preferred, against all and against each other one."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ff_bench.errors import UsageError
from ff_bench.metrics.base import Measure
from ff_bench.report import votes
from ff_bench.report.comparison import Cell, Column, Line, Table, name_text
from ff_bench.report.selection import rows_of
from ff_bench.report.statistics import Pair, bootstrap
from ff_bench.report.votes import Preference

PANEL = "votes"
OVERALL = "votes.win_rate"

_Where = tuple[int, Pair]
"""Place of a line in its table, and prompt and seed."""


@dataclass
class _Count:
    """Votes of one table under one budget: scores of one line against another by prompt and seed."""

    scores: dict[tuple[int, int], dict[Pair, list[float]]] = field(default_factory=dict)
    ties: int = 0
    votes: int = 0
    voters: set[str] = field(default_factory=set)

    def add(self, one: _Where, other: _Where, found: Preference) -> None:
        """Count a vote for both sides."""
        (first, pair), (second, _) = one, other
        for ends, score in (((first, second), found.score), ((second, first), 1 - found.score)):
            self.scores.setdefault(ends, {}).setdefault(pair, []).append(score)
        self.votes += 1
        self.ties += found.score == 0.5
        self.voters.add(found.voter)


def tables(found: Sequence[Table], paths: Sequence[Path], folders: Sequence[Path]) -> list[Table]:
    """Return a table of win rates per comparison and budget that has votes.

    Args:
        found: The comparisons of the report.
        paths: Vote files.
        folders: Where their assignments may lie.

    Raises:
        UsageError: Where a file is not what the blind page wrote, or is about videos that are not here.
    """
    main = [table for table in found if table.is_main]
    places = [_places(table) for table in main]
    counts: dict[tuple[int, int | None], _Count] = {}
    for one in votes.preferences(votes.read(paths), folders):
        place = next(
            (i for i, own in enumerate(places) if {one.trial.left, one.trial.right} <= own.keys()), -1
        )
        if place < 0:
            asked = ",".join(map(str, paths))
            raise UsageError(f"votes={asked} is not allowed: it is about videos that are not among RUNS")
        own = places[place]
        count = counts.setdefault((place, one.trial.budget), _Count())
        count.add(own[one.trial.left], own[one.trial.right], one)
    order = sorted(counts, key=lambda key: (key[0], key[1] or 0))
    return [_table(main[place], budget, counts[place, budget]) for place, budget in order]


def _places(table: Table) -> dict[str, _Where]:
    """Return where every video of a table stands, by its id."""
    found: dict[str, _Where] = {}
    for place, line in enumerate(table.lines):
        rows = rows_of(table.rows, line).drop_duplicates("video_id")
        columns = (rows["video_id"].astype(str), rows["prompt_id"].astype(str), rows["seed"].astype(int))
        for video_id, prompt, seed in zip(*columns, strict=True):
            found[video_id] = (place, (prompt, seed))
    return found


def _table(table: Table, budget: int | None, count: _Count) -> Table:
    """Lay out one row per policy: preferred over all, and over each of the others."""
    present = sorted({first for first, _ in count.scores})
    names = {place: name_text(table.lines[place]) for place in present}
    columns = [Column(OVERALL, _measure("win rate", "share of votes for it, ties half, over all others"))]
    columns += [
        Column(f"{OVERALL}.{place}", _measure(f"over {name}", f"share of votes against {name}, ties half"))
        for place, name in names.items()
    ]
    lines = [_line(table.lines[place], place, present, count) for place in present]
    told = next((line.budget for line in table.lines if budget and line.budget_tokens == budget), "")
    people = f"{count.votes} votes of {len(count.voters)} voter{'s' * (len(count.voters) > 1)}"
    notes = (
        f"{people}, {count.ties} of them ties, which count half; made blind, sides drawn by lot",
        "± is half the 95 % interval (bootstrap over prompts, then seeds); voters of a pair are pooled first",
    )
    title = f"{table.title} · votes" + (f", budget {told}" if told else "")
    return replace(table, title=title, columns=columns, lines=lines, notes=notes, panel=PANEL)


def _measure(label: str, doc: str) -> Measure:
    return Measure("1", True, doc, label=label)


def _line(line: Line, place: int, present: Sequence[int], count: _Count) -> Line:
    against = {
        other: {pair: statistics.fmean(own) for pair, own in count.scores.get((place, other), {}).items()}
        for other in present
    }
    pairs = sorted({pair for values in against.values() for pair in values})
    overall = {
        pair: statistics.fmean([values[pair] for values in against.values() if pair in values])
        for pair in pairs
    }
    values: dict[str, Mapping[Pair, float]] = {OVERALL: overall}
    values |= {f"{OVERALL}.{other}": own for other, own in against.items()}
    cells = {
        name: Cell(bootstrap(own), pairs=len(own), reason="" if own else "they did not meet")
        for name, own in values.items()
    }
    prompts = len({prompt for prompt, _ in pairs})
    return replace(line, cells=cells, values=values, prompts=prompts, pairs=len(pairs))
