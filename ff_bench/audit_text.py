"""The audit of published tables as text: tables, assumptions, checks and counts."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from ff_bench.audit import (
    INSIDE,
    MEASURED_N,
    NATIVE,
    SURVIVES,
    TOLERANCE,
    UNTESTABLE,
    Finding,
    recompute,
    repeated,
)
from ff_bench.plan import grid
from ff_bench.report.published import PAPERS, Row, load, scale
from ff_bench.report.published.grains import grains
from ff_bench.report.published.methods import parts

WIDTH = 118
_HEAD = ("", "metric", "bold", "", "runner-up", "", "gap", "±n", "spread", "verdict")
_NUMBERS = {3, 5, 6, 7, 8}  # columns of numbers
_SUMMARY = ("paper", "table", "n", "bold", "survive", "noise: n", "noise: spread only", "not testable")


def to_terminal(findings: Sequence[Finding], rows: Sequence[Row], assume: int) -> str:
    """Lay out every judged cell, what was assumed, the checks, and the counts last."""
    out = [_table(title, lines) for title, lines in _tables(findings)]
    for title, sentences in _sections(rows, assume):
        out.append("\n".join([title, *(_wrapped(sentence) for sentence in sentences)]))
    out.append("\n".join(grid(_SUMMARY, summary(findings))))
    return "\n\n".join(out)


def to_markdown(findings: Sequence[Finding], rows: Sequence[Row], assume: int) -> str:
    """Return the same as GitHub Markdown, the counts first."""
    out = ["# Bold cells of published tables", "", *_markdown(_SUMMARY, summary(findings))]
    for title, sentences in _sections(rows, assume):
        out += ["", f"## {title}", "", *(f"- {sentence}" for sentence in sentences)]
    for title, lines in _tables(findings):
        head = ["block", *_HEAD[1:]]
        body = [[block, *cells] for block, cells in _filled(lines)]
        out += ["", f"## {title}", "", *_markdown(head, body)]
    return "\n".join(out) + "\n"


def _markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for cells in body:
        yield "| " + " | ".join(cell.replace("|", r"\|").replace("<", "&lt;") for cell in cells) + " |"


def _wrapped(sentence: str) -> str:
    return textwrap.fill(sentence, WIDTH, initial_indent="  ", subsequent_indent="    ")


def _tables(findings: Sequence[Finding]) -> Iterator[tuple[str, list[Finding]]]:
    for _, found in groupby(findings, lambda one: (one.row.paper, one.row.table)):
        lines = list(found)
        yield _title(lines[0]), lines


def _title(one: Finding) -> str:
    row = one.row
    mark = "bold as printed" if row.mark == "bold" else "no bold in source: best of block"
    listed = f" · {row.prompt_list}" if row.prompt_list else ""
    return f"{name(row.paper)} ({row.paper}) {row.table} · {_count(one)}{listed} · {mark}"


def name(paper: str) -> str:
    """Return what a paper proposes."""
    ids = dict.fromkeys(row.paper for row in load())
    return dict(zip(ids, PAPERS.values(), strict=True)).get(paper, paper)


def _count(one: Finding) -> str:
    if one.known == "stated":
        return f"n = {one.prompts}"
    if one.known == "inferred":
        return f"n not stated, {one.prompts} inferred"
    return f"n not stated, {one.prompts} assumed"


def _table(title: str, findings: Sequence[Finding]) -> str:
    body: list[tuple[str, ...]] = []
    for block, found in groupby(_filled(findings), lambda line: line[0]):
        body += [("" if place else block, *cells) for place, (_, cells) in enumerate(found)]
    widths = [max(map(len, column)) for column in zip(_HEAD, *body, strict=True)]
    lines = [
        "  ".join(
            text.rjust(width) if place in _NUMBERS else text.ljust(width)
            for place, (text, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in (_HEAD, *body)
    ]
    return "\n".join([title, *lines])


def _filled(findings: Sequence[Finding]) -> Iterator[tuple[str, list[str]]]:
    for one in findings:
        short = _short(one)
        factor = scale(one.row.metric)
        ends = [] if one.half is None else [f"{factor * end:.2f}" for end in one.half]
        half = "–".join(dict.fromkeys(ends)) or "–"
        wide = one.spread
        yield _brief(one.row.block), [
            (one.row.measure.label or one.row.metric).removesuffix(" to full"),
            short(one.row), one.row.printed, short(one.runner_up), one.runner_up.printed,
            f"{factor * one.gap:+.{_digits(one.row)}f}",
            half + ("!" if one.by_n == "no" else "?" if one.by_n == "open" else ""),
            "–" if wide is None else f"{factor * wide.width:.2f}" + "!" * (one.by_spread == "no"),
            one.verdict,
        ]  # fmt: skip


def _digits(row: Row) -> int:
    return len(row.printed.partition(".")[2])


def _short(one: Finding) -> Callable[[Row], str]:
    """Name methods as briefly as their block allows: by field, by method, else by model and method."""
    pair = (one.row, one.runner_up)
    if all(parts(row.method)[1] for row in pair):
        return lambda row: row.method.partition("(")[2].rstrip(")")
    if len({row.model for row in pair}) == 1 and one.row.model in one.row.block:
        return lambda row: row.method
    return lambda row: row.model if row.method == NATIVE else _brief(f"{row.model} + {row.method}")


def _brief(text: str) -> str:
    return text.replace("_forcing", "").replace(" frames", "f")


def _sections(rows: Sequence[Row], assume: int) -> Iterator[tuple[str, list[str]]]:
    yield "How it is judged", assumptions(assume)
    yield "Checks", [*_quality(rows), *_grains(rows), *_repeats(rows)]


def assumptions(assume: int) -> list[str]:
    """List what the verdicts rest on."""
    return [
        "VBench × 100; ! = the gap is not above it, ? = the gap lies between its ends, – = nothing is known.",
        f"±n: half the 95 % interval of a paired difference as measured at {MEASURED_N} prompts of 60 s "
        "(Dwell-Jing/commit-forcing, bootstrap over prompts), least–most over pairs of methods, times "
        f"√({MEASURED_N}/n); assumed to hold for 30 s and for other pairs.",
        "±n of the dynamic degree: binomial, from all clips independent to all clips of a video alike; the "
        f"design effect is not known (measured at {MEASURED_N} prompts, paired: 2–4.5).",
        f"n: {assume} where a paper does not state it and its dynamic degrees do not tell.",
        "spread: largest minus smallest number of the native rule at that model, metric and length across "
        "papers, or of one configuration that a paper prints twice, the wider. Papers differ in prompts, "
        "flag and seeds, so within one table it is strict: the counts tell apart what falls by it alone.",
        f"{SURVIVES}: gap above the upper ±n, and above the spread where there is one; {INSIDE}: not above "
        f"the lower ±n, or not above the spread; {UNTESTABLE}: no interval known, or the gap between ends.",
        "No p-values: a published table is one number per cell.",
    ]


def _quality(rows: Sequence[Row]) -> Iterator[str]:
    found = recompute(rows)
    for one in found:
        if abs(one.deviation) > TOLERANCE:
            row = one.row
            yield (
                f"Quality of {name(row.paper)} {row.table} {row.model} {row.method} is printed "
                f"{row.printed}; its columns give {100 * one.quality:.2f}."
            )
    if found:
        most = 100 * max(abs(one.deviation) for one in found)
        good = sum(abs(one.deviation) <= TOLERANCE for one in found)
        yield (
            f"Quality follows from its seven columns within 0.01 in {good} of {len(found)} lines "
            f"(largest deviation {most:.3f})."
        )


def _grains(rows: Sequence[Row]) -> Iterator[str]:
    stated = {(row.paper, row.table): row.n_prompts for row in rows}
    for one in grains(rows):
        known = stated[one.paper, one.table]
        said = "n is not stated" if known is None else f"n = {known} is stated"
        yield (
            f"{name(one.paper)} {one.table}, {one.seconds:g} s: {one.fits} of {one.cells} dynamic degrees "
            f"are multiples of 1/({one.prompts} × {one.clips}); {said}."
        )


def _repeats(rows: Sequence[Row]) -> Iterator[str]:
    """Say which configurations a paper prints twice, unequal; one sentence per paper and metric."""
    apart: dict[tuple[str, str], list[float]] = {}
    for cells in repeated(rows):
        values = [row.value for row in cells]
        key = (cells[0].paper, cells[0].measure.label or cells[0].metric)
        apart.setdefault(key, []).append(scale(cells[0].metric) * (max(values) - min(values)))
    for paper, keys in groupby(apart, lambda key: key[0]):
        told = ", ".join(f"{key[1]} {max(apart[key]):.2f}" for key in keys)
        yield f"{name(paper)} prints one configuration twice, on equal prompts; largest difference: {told}."


def summary(findings: Sequence[Finding]) -> list[list[str]]:
    """Count verdicts per table; what falls by the spread alone stands apart."""
    lines = [_counts(lines, [name(lines[0].row.paper), lines[0].row.table]) for _, lines in _tables(findings)]
    return [*lines, _counts(list(findings), ["all", ""])] if len(lines) > 1 else lines


def _counts(lines: Sequence[Finding], names: list[str]) -> list[str]:
    known = {(one.prompts, one.known) for one in lines}
    count = "" if len(known) != 1 else f"{lines[0].prompts}" + ("" if lines[0].known == "stated" else "?")
    fallen = [one for one in lines if one.verdict == INSIDE]
    by_n = sum(one.by_n == "no" or one.gap <= 0 for one in fallen)
    numbers = (
        len(lines), sum(one.verdict == SURVIVES for one in lines), by_n, len(fallen) - by_n,
        sum(one.verdict == UNTESTABLE for one in lines),
    )  # fmt: skip
    return [*names, count, *map(str, numbers)]
