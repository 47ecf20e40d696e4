"""A table in cells of text, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ff_bench.report.claims import mark_of
from ff_bench.report.comparison import Cell, Column, Line, Table, name_text

_BOLD, _DIM, _UNDERLINED, _PLAIN = "\033[1m", "\033[2m", "\033[4m", "\033[0m"
BEST, SECOND = "*", "'"
"""Signs behind the best and the second of a budget where there is no bold and no underline."""
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
    "†": r"$\dagger$", "§": r"\S{}", "‡": r"$\ddagger$",
    "–": "--", "·": r"$\cdot$", "Δ": r"$\Delta$",
    "°": r"$^{\circ}$", "⁺": r"$^{+}$", "⁻": r"$^{-}$", "⁼": r"$^{=}$",
    "−": r"$-$", "≥": r"$\geq$", "≤": r"$\leq$", "|": r"$|$", "×": r"$\times$", "<": r"$<$", ">": r"$>$",
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
    """Return ``mean ±half-width`` and a mark; the half-width is that of the paired difference if any.

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
    return f"{shown} ±{'–' if width is None else f'{width / scale:.{digits}f}'}{mark_of(cell)}"


def is_grey(cell: Cell) -> bool:
    """Say whether a cell is no further from the baseline than rounding alone would put it."""
    return cell.contrast is not None and cell.contrast.is_within_floor


def count_text(line: Line) -> str:
    """Return the number of videos as prompts × seeds where the design is even."""
    seeds, rest = divmod(line.pairs, line.prompts)
    return str(line.pairs) if rest or seeds == 1 else f"{line.prompts}×{seeds}"


def ranks_note(table: Table, *, best: str, second: str) -> list[str]:
    """Say how best and second are shown, where the table has them."""
    cells = [cell for line in table.lines for cell in line.cells.values()]
    if not any(cell.is_best for cell in cells):
        return []
    return [
        f"{best}: best of its budget" + (f"; {second}: second" if any(c.is_second for c in cells) else "")
    ]


def to_terminal(table: Table, *, ansi: bool) -> str:
    """Lay a table out in columns; best bold, second underlined, or with signs where there is no bold."""
    head = ["policy", "budget", "n", *(heading(column) for column in table.columns)]
    cells = [[line.cells[column.metric] for column in table.columns] for line in table.lines]
    texts = [[cell_text(cell, c) for cell, c in zip(row, table.columns, strict=True)] for row in cells]
    if not ansi:
        texts = [
            [text + _sign(cell) for text, cell in zip(*pair, strict=True)]
            for pair in zip(texts, cells, strict=True)
        ]
    body = [[*short_names(line), *row] for line, row in zip(table.lines, texts, strict=True)]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    out = [table.title if not ansi else f"{_BOLD}{table.title}{_PLAIN}", _spread(head, widths)]
    out.append("  ".join("─" * width for width in widths))
    for row, line_cells in zip(body, cells, strict=True):
        out.append(_spread(row, widths, ["", "", "", *(_look(cell) if ansi else "" for cell in line_cells)]))
    best, second = ("bold", "underlined") if ansi else (BEST, SECOND)
    notes = [*table.notes, *ranks_note(table, best=best, second=second)]
    return "\n".join([*out, *(f"{_DIM if ansi else ''}  {note}{_PLAIN if ansi else ''}" for note in notes)])


def short_names(line: Line) -> list[str]:
    """Return policy, budget without its shares, and number of videos."""
    return [
        name_text(line),
        line.budget.partition(", ")[0] + (")" if "(" in line.budget else ""),
        count_text(line),
    ]


def _sign(cell: Cell) -> str:
    return BEST if cell.is_best else SECOND if cell.is_second else ""


def _look(cell: Cell) -> str:
    """Return the terminal's codes for a cell."""
    rank = _BOLD if cell.is_best else _UNDERLINED if cell.is_second else ""
    return rank + (_DIM if is_grey(cell) else "")


def _spread(texts: Sequence[str], widths: Sequence[int], looks: Sequence[str] = ()) -> str:
    """Pad cells: names to the left, numbers to the right; the look is that of the text, not of the gap."""
    cells = []
    for place, (text, width) in enumerate(zip(texts, widths, strict=True)):
        look, gap = looks[place] if looks else "", " " * (width - len(text))
        shown = f"{look}{text}{_PLAIN}" if look else text
        cells.append(shown + gap if place < 2 else gap + shown)
    return "  ".join(cells).rstrip()


def to_markdown(tables: Iterable[Table]) -> str:
    """Return all tables as GitHub Markdown, titles as headings, notes as lists."""
    parts = []
    for table in tables:
        head = ["policy", "budget", "n", *(heading(column) for column in table.columns)]
        lines = [_markdown_row(head), _markdown_row(["---", "---", *["---:"] * (len(head) - 2)])]
        for line in table.lines:
            names = [_plain(text) for text in (name_text(line), line.budget, count_text(line))]
            lines.append(_markdown_row([*names, *(_markdown_cell(line, c) for c in table.columns)]))
        told = [*table.notes, *ranks_note(table, best="bold", second="underlined")]
        notes = [f"- {_plain(note)}" for note in told]
        parts.append("\n".join([f"## {_plain(table.title)}", "", *lines, "", *notes]))
    return "\n\n".join(parts) + "\n"


def _markdown_cell(line: Line, column: Column) -> str:
    cell = line.cells[column.metric]
    text = _plain(cell_text(cell, column))
    return f"**{text}**" if cell.is_best else f"<ins>{text}</ins>" if cell.is_second else text


def _markdown_row(texts: Iterable[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _plain(text: str) -> str:
    """Keep a text from ending its table cell or opening a tag."""
    return text.replace("|", r"\|").replace("<", "&lt;").replace("\n", " ")


def escape_latex(text: str) -> str:
    """Escape what LaTeX reads as commands, and spell signs that its fonts lack."""
    arrows = {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}
    return "".join({**_LATEX, **arrows}.get(sign, sign) for sign in text)
