"""`ff-bench audit-published [PAPER ...]`: which bold cells of published tables survive."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from ff_bench import audit_text, files
from ff_bench.audit import ASSUMED_N, VERDICTS, Finding, audit
from ff_bench.errors import UsageError, not_one_of, out_of_range
from ff_bench.report import published
from ff_bench.report.published import PAPERS, Row

FLAGS = ("--csv", "--markdown", "--assume-n")


@dataclass(frozen=True)
class Request:
    """What was asked.

    Attributes:
        papers: arXiv ids or names of files; none means all.
        csv: File for one line per cell.
        markdown: File for the tables.
        assume: Prompts where none are stated.
    """

    papers: tuple[str, ...] = ()
    csv: Path | None = None
    markdown: Path | None = None
    assume: int = ASSUMED_N


def run(words: Sequence[str]) -> int:
    """Judge the bold cells, print tables and, last, JSON with the counts.

    Args:
        words: Of the command line after `audit-published`.

    Returns:
        0.

    Raises:
        UsageError: With one sentence for the user.
    """
    asked = read(words)
    rows = published.load()
    chosen = select(rows, asked.papers)
    findings = audit(chosen, evidence=rows, assume=asked.assume)
    print(audit_text.to_terminal(findings, chosen, asked.assume))
    if asked.csv:
        files.write_atomically(asked.csv, to_csv(findings))
    if asked.markdown:
        files.write_atomically(asked.markdown, audit_text.to_markdown(findings, chosen, asked.assume))
    counts = {verdict: sum(one.verdict == verdict for one in findings) for verdict in VERDICTS}
    written = {"csv": asked.csv, "markdown": asked.markdown}
    print(json.dumps({"bold": len(findings), **counts, **{k: str(v) for k, v in written.items() if v}}))
    return 0


def read(words: Sequence[str]) -> Request:
    """Read the command line.

    Raises:
        UsageError: For an unknown flag, a flag without its value, or a folder that is not there.
    """
    papers: list[str] = []
    given: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, has_value, value = word.partition("=")
        if not word.startswith("-"):
            papers.append(word)
            continue
        if flag not in FLAGS:
            raise not_one_of("audit-published flag", flag, FLAGS)
        if not has_value and not rest:
            raise UsageError(f"{flag} needs a value: ff-bench audit-published {flag}=...")
        given[flag] = value if has_value else rest.pop(0)
    return Request(
        tuple(papers),
        _file(given, "--csv"),
        _file(given, "--markdown"),
        _prompts(given.get("--assume-n", str(ASSUMED_N))),
    )


def _file(given: dict[str, str], flag: str) -> Path | None:
    if flag not in given:
        return None
    path = Path(given[flag])
    if not given[flag] or path.is_dir() or not path.parent.is_dir():
        raise out_of_range(flag, given[flag], "a file in a folder that is there")
    return path


def _prompts(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise out_of_range("--assume-n", text, "a whole number of prompts above 0")
    return int(text)


def select(rows: Sequence[Row], words: Sequence[str]) -> list[Row]:
    """Return the rows of the papers that are named by arXiv id or file; all for no word.

    Raises:
        UsageError: For a word that names no paper, with the nearest.
    """
    ids = dict(zip(PAPERS, dict.fromkeys(row.paper for row in rows), strict=True))
    for word in words:
        if word not in ids and word not in ids.values():
            raise not_one_of("audit-published", word, [*ids, *ids.values()])
    wanted = {ids.get(word, word) for word in words} or set(ids.values())
    return [row for row in rows if row.paper in wanted]


def to_csv(findings: Sequence[Finding]) -> str:
    """Return one line per bold cell at full precision, in the metric's unit."""
    stream = StringIO()
    lines = list(_lines(findings))
    writer = csv.DictWriter(stream, list(lines[0]) if lines else ["paper"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _lines(findings: Sequence[Finding]) -> Iterator[dict[str, object]]:
    for one in findings:
        row, spread = one.row, one.spread
        low, high = one.half or (None, None)
        yield {
            "paper": row.paper, "table": row.table, "block": row.block, "metric": row.metric,
            "seconds": row.seconds, "mark": row.mark, "model": row.model, "method": row.method,
            "value": row.value, "runner_up_model": one.runner_up.model,
            "runner_up_method": one.runner_up.method, "runner_up": one.runner_up.value, "gap": one.gap,
            "n_prompts": one.prompts, "n_known": one.known, "half_width_low": low, "half_width_high": high,
            "spread": spread.width if spread else None, "spread_cells": spread.cells if spread else None,
            "spread_papers": spread.papers if spread else None, "by_n": one.by_n,
            "by_spread": one.by_spread, "verdict": one.verdict,
        }  # fmt: skip
