"""The same table for the terminal, Markdown, LaTeX and CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from ff_bench.report.comparison import Cell, Column, Line, Table, name_text
from ff_bench.report.statistics import Interval

_BOLD, _DIM, _PLAIN = "\033[1m", "\033[2m", "\033[0m"
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
    "†": r"$\dagger$", "§": r"\S{}", "‡": r"$\ddagger$",
    "–": "--", "·": r"$\cdot$", "Δ": r"$\Delta$", "×": r"$\times$", "<": r"$<$", ">": r"$>$",
}  # fmt: skip
_UNITS = {"1": "", "bytes": "MiB", "fps": ""}
MIB = 2**20


def heading(column: Column) -> str:
    """Return a column's title with its unit; an arrow says which way is better."""
    measure = column.measure
    unit = _UNITS.get(measure.unit, measure.unit)
    label = measure.label or column.metric
    if measure.unit == "dB":  # the unit says so
        label = label.replace("PSNR", "").replace("  ", " ").strip()
    arrow = {True: " ↑", False: " ↓", None: ""}[measure.higher_is_better]
    return f"{label}{f' {unit}' if unit and not label.endswith(f' {unit}') else ''}{arrow}"


def cell_text(cell: Cell, column: Column) -> str:
    """Return ``mean ±half-width``; the half-width is that of the paired difference where there is one.

    Costs stand without: they vary with the machine, not with prompts.
    """
    if cell.mean is None:
        return "–"
    scale, digits = (MIB, 1) if column.measure.unit == "bytes" else (1, column.measure.digits)
    interval = cell.paired if cell.has_baseline else cell.mean
    shown = f"{cell.mean.mean / scale:.{digits}f}"
    if cell.is_baseline or column.metric.startswith("cost."):
        return shown
    width = interval.half_width if interval else None
    return f"{shown} ±{'–' if width is None else f'{width / scale:.{digits}f}'}"


def count_text(line: Line) -> str:
    """Return the number of videos as prompts × seeds where the design is even."""
    seeds, rest = divmod(line.pairs, line.prompts)
    return str(line.pairs) if rest or seeds == 1 else f"{line.prompts}×{seeds}"


def to_terminal(table: Table, *, ansi: bool) -> str:
    """Lay a table out in columns; the best of each budget is bold, or starred where there is no bold."""
    head = ["policy", "budget", "n", *(heading(column) for column in table.columns)]
    body = [
        [*_names(line), *(cell_text(line.cells[c.metric], c) for c in table.columns)] for line in table.lines
    ]
    best = [[False] * 3 + [line.cells[c.metric].is_best for c in table.columns] for line in table.lines]
    if not ansi:
        body = [
            [_starred(text, flag) for text, flag in zip(*pair, strict=True)]
            for pair in zip(body, best, strict=True)
        ]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    out = [table.title if not ansi else f"{_BOLD}{table.title}{_PLAIN}", _spread(head, widths)]
    out.append("  ".join("─" * width for width in widths))
    for texts, flags in zip(body, best, strict=True):
        out.append(_spread(texts, widths, [ansi and flag for flag in flags]))
    marked = "bold" if ansi else "*"
    notes = [*table.notes, *([f"{marked}: best of its budget"] if any(map(any, best)) else [])]
    return "\n".join([*out, *(f"{_DIM if ansi else ''}  {note}{_PLAIN if ansi else ''}" for note in notes)])


def _names(line: Line) -> list[str]:
    return [
        name_text(line),
        line.budget.partition(", ")[0] + (")" if "(" in line.budget else ""),
        count_text(line),
    ]


def _starred(text: str, flag: bool) -> str:
    return f"{text}*" if flag else text


def _spread(texts: Sequence[str], widths: Sequence[int], bold: Sequence[bool] | None = None) -> str:
    """Pad cells: names to the left, numbers to the right."""
    padded = [
        text.ljust(width) if place < 2 else text.rjust(width)
        for place, (text, width) in enumerate(zip(texts, widths, strict=True))
    ]
    flags = bold or [False] * len(padded)
    cells = [f"{_BOLD}{text}{_PLAIN}" if flag else text for text, flag in zip(padded, flags, strict=True)]
    return "  ".join(cells).rstrip()


def to_markdown(tables: Iterable[Table]) -> str:
    """Return all tables as GitHub Markdown, titles as headings, notes as lists."""
    parts = []
    for table in tables:
        head = ["policy", "budget", "n", *(heading(column) for column in table.columns)]
        lines = [_markdown_row(head), _markdown_row(["---", "---", *["---:"] * (len(head) - 2)])]
        for line in table.lines:
            cells = [_cell(line, column, lambda text: f"**{text}**") for column in table.columns]
            lines.append(_markdown_row([name_text(line), line.budget, count_text(line), *cells]))
        notes = [f"- {_plain(note)}" for note in (*table.notes, "bold: best of its budget")]
        parts.append("\n".join([f"## {_plain(table.title)}", "", *lines, "", *notes]))
    return "\n\n".join(parts) + "\n"


def _cell(line: Line, column: Column, emphasise: Callable[[str], str]) -> str:
    cell = line.cells[column.metric]
    text = cell_text(cell, column)
    return emphasise(text) if cell.is_best else text


def _markdown_row(texts: Iterable[str]) -> str:
    return "| " + " | ".join(_plain(text) for text in texts) + " |"


def _plain(text: str) -> str:
    """Keep a text from ending its table cell or opening a tag."""
    return text.replace("|", r"\|").replace("<", "&lt;").replace("\n", " ")


def to_latex(tables: Iterable[Table]) -> str:
    """Return all tables for LaTeX with booktabs; the caption carries title and notes."""
    parts = ["% needs \\usepackage{booktabs}"]
    for table in tables:
        head = ["policy", "budget", "n", *(heading(column) for column in table.columns)]
        rows = [[escape_latex(text) for text in head]]
        for line in table.lines:
            cells = [_cell(line, c, lambda text: f"\\textbf{{{text}}}") for c in table.columns]
            names = [escape_latex(text) for text in (name_text(line), line.budget, count_text(line))]
            rows.append([*names, *(_latex_cell(cell) for cell in cells)])
        caption = escape_latex(". ".join([table.title, *table.notes, "Bold: best of its budget"])) + "."
        body = [" & ".join(row) + r" \\" for row in rows]
        parts.append("\n".join([
            r"\begin{table}[t]", r"\centering\small", rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}", r"\toprule", body[0], r"\midrule", *body[1:],
            r"\bottomrule", r"\end{tabular}", r"\end{table}",
        ]))  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _latex_cell(text: str) -> str:
    """Escape a cell whose only command may be the bold around it."""
    opening = "\\textbf{"
    if text.startswith(opening):
        return f"{opening}{escape_latex(text[len(opening) : -1])}}}"
    return escape_latex(text)


def escape_latex(text: str) -> str:
    """Escape what LaTeX reads as commands, and spell signs that its fonts lack."""
    arrows = {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}
    return "".join({**_LATEX, **arrows}.get(sign, sign) for sign in text)


def to_frame(tables: Iterable[Table]) -> pd.DataFrame:
    """Return one line per policy, budget and metric at full precision, for summary.csv."""
    return pd.DataFrame(
        [_record(table, line, column) for table in tables for line in table.lines for column in table.columns]
    )


def _record(table: Table, line: Line, column: Column) -> dict[str, object]:
    cell = line.cells[column.metric]
    return {
        **table.key,
        "policy": line.policy,
        "label": line.label,
        "budget_tokens": line.budget_tokens,
        "metric": column.metric,
        "unit": column.measure.unit,
        "higher_is_better": column.measure.higher_is_better,
        **_ends("mean", cell.mean),
        "baseline": table.baseline,
        **_ends("difference", cell.paired),
        "pairs": cell.pairs,
        "paired": cell.paired.pairs if cell.paired else 0,
        "prompts": line.prompts,
        "best": cell.is_best,
        "bland": line.is_bland,
        "pinned": line.is_pinned,
        "reason": cell.reason,
    }


def _ends(name: str, interval: Interval | None) -> dict[str, float | None]:
    values = (None, None, None) if interval is None else (interval.mean, interval.low, interval.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
