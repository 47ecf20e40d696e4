"""Tables for LaTeX with booktabs."""

from __future__ import annotations

from collections.abc import Iterable

from ff_bench.report.comparison import Column, Line, Table
from ff_bench.report.tables import cell_text, escape_latex, heading, is_grey, ranks_note, short_names

PREAMBLE = r"% needs \usepackage{booktabs,graphicx,xcolor}"
_NARROW = 4
"""Columns of numbers up to which a table fits one column of text."""


def to_latex(tables: Iterable[Table]) -> str:
    """Return all tables; the caption carries title, protocol and n, the notes stand below."""
    return "\n\n".join([PREAMBLE, *(_table(table) for table in tables)]) + "\n"


def _table(table: Table) -> str:
    head = [escape_latex(text) for text in ("policy", "budget", "n", *map(heading, table.columns))]
    rows = []
    for line in table.lines:
        cells = [_cell(line, column) for column in table.columns]
        rows.append([*map(escape_latex, short_names(line)), *cells])
    body = [" & ".join(row) + r" \\" for row in (head, *rows)]
    kind = "table" if len(table.columns) <= _NARROW else "table*"
    notes = [*table.notes, *ranks_note(table, best="Bold", second="underlined")]
    return "\n".join([
        rf"\begin{{{kind}}}[t]", r"\centering\small\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escape_latex(caption(table))}.}}",
        # Wider than the text is made to fit, never larger than it is.
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}", r"\toprule", body[0], r"\midrule", *body[1:],
        r"\bottomrule", r"\end{tabular}}",
        r"\par\smallskip\raggedright\footnotesize",
        *(rf"{escape_latex(note)}.\par" for note in notes),
        rf"\end{{{kind}}}",
    ])  # fmt: skip


def caption(table: Table) -> str:
    """Return the title, which holds the protocol, and the number of videos."""
    counts = sorted({line.pairs for line in table.lines})
    prompts = sorted({line.prompts for line in table.lines})
    told = ["–".join(str(end) for end in sorted({ends[0], ends[-1]})) for ends in (counts, prompts) if ends]
    return f"{table.title}; n = {told[0]} videos of {told[1]} prompts" if told else table.title


def _cell(line: Line, column: Column) -> str:
    cell = line.cells[column.metric]
    text = escape_latex(cell_text(cell, column))
    if is_grey(cell):
        text = rf"\textcolor{{gray}}{{{text}}}"
    return rf"\textbf{{{text}}}" if cell.is_best else rf"\underline{{{text}}}" if cell.is_second else text
