"""Our numbers beside published ones: the difference, and what keeps the two from being comparable.

A published number stands alone, without the videos behind it: the difference comes without a p-value.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ff_bench.models.facts import find
from ff_bench.report.comparison import Column, Line, Table, name_text
from ff_bench.report.published import WHOLE_VIDEO, Row, scale
from ff_bench.report.published.methods import defaults, equal, parts
from ff_bench.report.statistics import Interval
from ff_bench.report.tables import escape_latex, heading

COMPAT = "vbench_long.compat"
CAVEATS: Mapping[str, str] = {
    "list": "another list of prompts, or one that is not named",
    "n": "another number of prompts, or one that is not stated",
    "budget": "another budget, or one that is not stated",
    "flag": "ours fuses scores within and between clips (--dev_flag), theirs does not or does not say",
    "whole": "theirs is VBench's score of the whole video, ours of its clips of 2 s",
    "length": "videos of another length, by less than a twentieth",
    "machine": "another machine, or one that is not stated",
}
"""Words of the last column, and what each means."""
_LENGTH_SHARE = 0.05
_WIDTH = 118
_HEAD = ("policy", "budget", "metric", "ours ±95 %", "n", "theirs", "n", "difference", "source", "differs in")
_RIGHT = {3, 4, 5, 6, 7}


@dataclass(frozen=True)
class Match:
    """One number of ours beside one of theirs.

    Attributes:
        line: Our policy under its budget.
        column: Our metric.
        ours: Our mean with the interval of the mean itself.
        frames: Our budget in latent frames; None for the whole video.
        theirs: The published number.
        caveats: Keys of `CAVEATS` that hold.
    """

    line: Line
    column: Column
    ours: Interval
    frames: float | None
    theirs: Row
    caveats: tuple[str, ...]

    @property
    def difference(self) -> float:
        """Ours minus theirs, in the metric's unit."""
        return self.ours.mean - self.theirs.value


@dataclass(frozen=True)
class Beside:
    """All that can be set beside each other in one of our tables."""

    title: str
    pairs: Sequence[Match]


def beside(table: Table, rows: Iterable[Row]) -> Beside:
    """Match our table with published numbers by model, method with its fields, length and metric.

    Args:
        table: Ours; its key names model, prompt set, frames and fps.
        rows: Published numbers, of any papers.

    Returns:
        The pairs in the order of our lines and columns, papers in the order of `rows`.
    """
    seconds = float(str(table.key["frames"])) / float(str(table.key["fps"]))
    near = [
        row
        for row in rows
        if row.model == table.key["model"]
        and (row.seconds is None or abs(row.seconds - seconds) <= _LENGTH_SHARE * row.seconds)
    ]
    pairs = [
        Match(line, column, mean, frames, row, tuple(_caveats(table, line, mean, frames, row, seconds)))
        for line in table.lines
        for frames in [_frames(line, table)]
        for column in table.columns
        for mean in [line.cells[column.metric].mean]
        if mean is not None
        for row in near
        if column.metric in counterparts(row.metric) and is_same(line, row.method)
    ]
    return Beside(table.title, pairs)


def counterparts(metric: str) -> tuple[str, ...]:
    """Return the metrics of ours that may stand beside a published one."""
    family, _, name = metric.rpartition(".")
    if family == WHOLE_VIDEO:
        return (f"{COMPAT}.{name}_inclip", f"{COMPAT}.{name}")
    return (metric, f"vbench_reference.{name}") if family == COMPAT else (metric,)


def is_same(line: Line, method: str) -> bool:
    """Compare a policy and its fields with a published method; what that does not name has our defaults."""
    name, named = parts(method)
    if line.policy != name:
        return False
    fields = _fields(line.fields)
    wanted = {field: str(value) for field, value in defaults(name).items()} | named
    return all(equal(fields[field], text) for field, text in wanted.items() if field in fields)


def _fields(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return dict(found) if isinstance(found, Mapping) else {}


def _caveats(
    table: Table, line: Line, mean: Interval, frames: float | None, row: Row, seconds: float
) -> Iterator[str]:
    """Yield what differs, or is not known to be equal."""
    cost = row.metric.startswith("cost.")
    if not cost and row.prompt_list != table.key["prompt_set"]:
        yield "list"
    if not cost and row.n_prompts != mean.prompts:
        yield "n"
    if line.policy not in ("full", "native") and frames != row.budget_frames:
        yield "budget"
    if row.metric.startswith(f"{WHOLE_VIDEO}."):
        yield "whole"
    elif row.clips and row.clips != "fused":
        yield "flag"
    if row.seconds is not None and row.seconds != seconds:
        yield "length"
    if cost:
        yield "machine"


def _frames(line: Line, table: Table) -> float | None:
    facts = find(str(table.key["model"]))
    if line.budget_tokens is None or facts is None:
        return None
    return line.budget_tokens / facts.frame_tokens


def _cells(pair: Match) -> list[str]:
    factor, row = scale(pair.theirs.metric), pair.theirs
    digits = len(row.printed.partition(".")[2])
    width = pair.ours.half_width
    around = "" if width is None else f" ±{factor * width:.{digits}f}"
    return [
        name_text(pair.line),
        "full" if pair.frames is None else f"{pair.frames:g}f",
        heading(pair.column),
        f"{factor * pair.ours.mean:.{digits}f}{around}",
        str(pair.ours.prompts),
        row.printed,
        str(row.n_prompts or "?"),
        f"{factor * pair.difference:+.{digits}f}",
        f"{row.paper} {row.table}",
        ", ".join(pair.caveats) or "–",
    ]


def notes(found: Beside) -> list[str]:
    """Explain the words of the last column that occur, and quote the notes of the sources."""
    told = [key for key in CAVEATS if any(key in pair.caveats for pair in found.pairs)]
    quoted = dict.fromkeys(pair.theirs.note for pair in found.pairs if pair.theirs.note)
    out = [f"{key}: {CAVEATS[key]}" for key in told]
    if quoted:
        out.append("of the sources: " + "; ".join(quoted))
    return [
        "VBench × 100, memory in GB; ± is half the 95 % interval of our mean; no p-value, as theirs is one "
        "number",
        *out,
    ]


def to_terminal(found: Beside) -> str:
    """Lay the pairs out in columns, with notes; a sentence where nothing matches."""
    title = f"{found.title} · beside published numbers"
    if not found.pairs:
        return f"{title}\n  nothing is published for these models, methods, lengths and metrics"
    body = [_HEAD, *(_cells(pair) for pair in found.pairs)]
    widths = [max(map(len, column)) for column in zip(*body, strict=True)]
    lines = [
        "  ".join(
            text.rjust(width) if place in _RIGHT else text.ljust(width)
            for place, (text, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in body
    ]
    told = (
        textwrap.fill(note, _WIDTH, initial_indent="  ", subsequent_indent="    ") for note in notes(found)
    )
    return "\n".join([title, *lines, *told])


def to_markdown(found: Iterable[Beside]) -> str:
    """Return all tables as GitHub Markdown; those without a pair are left out."""
    parts_ = []
    for one in found:
        if one.pairs:
            rule = ["---:" if place in _RIGHT else "---" for place in range(len(_HEAD))]
            lines = [_HEAD, rule, *(_cells(pair) for pair in one.pairs)]
            rows = ["| " + " | ".join(map(_plain, cells)) + " |" for cells in lines]
            listed = [f"- {_plain(note)}" for note in notes(one)]
            parts_.append(
                "\n".join([f"## {_plain(one.title)} · beside published numbers", "", *rows, "", *listed])
            )
    return "\n\n".join(parts_) + "\n" if parts_ else ""


def _plain(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;").replace("\n", " ")


def to_latex(found: Iterable[Beside]) -> str:
    """Return all tables for LaTeX with booktabs; the caption carries title and notes."""
    parts_ = ["% needs \\usepackage{booktabs}"]
    for one in found:
        if one.pairs:
            caption = escape_latex(". ".join([f"{one.title}, beside published numbers", *notes(one)])) + "."
            lines = [
                " & ".join(map(escape_latex, cells)) + r" \\" for cells in (_HEAD, *map(_cells, one.pairs))
            ]
            spec = "".join("r" if place in _RIGHT else "l" for place in range(len(_HEAD)))
            parts_.append("\n".join([
                r"\begin{table}[t]", r"\centering\scriptsize", rf"\caption{{{caption}}}",
                rf"\begin{{tabular}}{{{spec}}}", r"\toprule", lines[0], r"\midrule", *lines[1:],
                r"\bottomrule", r"\end{tabular}", r"\end{table}",
            ]))  # fmt: skip
    return "\n\n".join(parts_) + "\n"
