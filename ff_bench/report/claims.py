"""What the marks of a table claim, and what its videos cannot show: the notes on statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ff_bench.report.comparison import Cell, Column, Line
from ff_bench.report.contrast import BETTER, EQUIVALENT, HIGHER, LOWER, OPEN, WORSE
from ff_bench.report.power import ALPHA, LEAST, POWER

WITHIN_FLOOR = "°"
MARKS = {BETTER: "⁺", HIGHER: "⁺", WORSE: "⁻", LOWER: "⁻", EQUIVALENT: "⁼"}
"""Sign behind a cell, by verdict."""


def mark_of(cell: Cell) -> str:
    """Return the sign behind a cell; nothing where the difference is not distinguishable from none."""
    if cell.contrast is None:
        return ""
    return WITHIN_FLOOR if cell.contrast.is_within_floor else MARKS.get(cell.contrast.verdict, "")


def claims(lines: Sequence[Line], columns: Sequence[Column], baseline: str) -> Iterator[str]:
    """Yield what the marks mean, the margins, and how many prompts the open questions take.

    Args:
        lines: of a table.
        columns: of it.
        baseline: policy that differences are taken to.
    """
    own = [name for name in (column.metric for column in columns) if _stands_alone(lines, name)]
    if own:
        yield f"± of the mean itself, as {baseline} has no value: {', '.join(own)}"
    cells = [cell for line in lines for cell in line.cells.values() if cell.contrast is not None]
    marks = {mark_of(cell) for cell in cells} - {""}
    if marks & set("⁺⁻"):
        yield (
            f"⁺ better, ⁻ worse than {baseline} (higher, lower where no way is better): p < {ALPHA} after "
            "Holm within a metric and budget, by flipping the signs of prompts; no mark: not distinguishable"
        )
    if "⁼" in marks:
        yield f"⁼ equivalent: within the margin, p < {ALPHA} after Holm (two one-sided t tests over prompts)"
    if WITHIN_FLOOR in marks:
        yield (
            f"{WITHIN_FLOOR} on average no further from {baseline} than full_eps is from full: "
            "rounding alone does that"
        )
    margins = _margins(lines, columns) if cells else ""
    if margins:
        yield f"margins: {margins}"
    yield from _shortage(lines, columns)


def _stands_alone(lines: Sequence[Line], metric: str) -> bool:
    """Say whether a column has a baseline line but no number of it to compare with."""
    if not any(cell.is_baseline for line in lines for cell in line.cells.values()):
        return False
    cells = [line.cells[metric] for line in lines]
    return not metric.startswith("cost.") and all(not cell.has_baseline or cell.is_baseline for cell in cells)


def _margins(lines: Sequence[Line], columns: Sequence[Column]) -> str:
    """List margins with the columns that have them."""
    found: dict[str, list[str]] = {}
    for column in columns:
        contrasts = [line.cells[column.metric].contrast for line in lines]
        margin = next((one.margin for one in contrasts if one is not None), None)
        if margin is not None:
            unit = "" if column.measure.unit == "1" else f" {column.measure.unit}"
            found.setdefault(f"{margin:g}{unit}", []).append(_name(column))
    return "; ".join(f"{margin} ({', '.join(names)})" for margin, names in found.items())


def _name(column: Column) -> str:
    return column.measure.label or column.metric


def _shortage(lines: Sequence[Line], columns: Sequence[Column]) -> Iterator[str]:
    """Say how many prompts would settle what is open."""
    compared = [
        cell.paired.prompts for line in lines for cell in line.cells.values() if cell.contrast and cell.paired
    ]
    if compared and max(compared) < LEAST:
        yield f"{max(compared)} prompts: no difference can be significant with fewer than {LEAST}"
    needed: dict[str, int] = {}
    for column in columns:
        found = (line.cells[column.metric].contrast for line in lines)
        numbers = [one.n_needed for one in found if one and one.verdict == OPEN and one.n_needed is not None]
        if numbers:
            needed[_name(column)] = max(numbers)
    if needed:
        told = ", ".join(f"{name} {number}" for name, number in needed.items())
        yield (
            "prompts that settle every open cell, at its margin and the spread seen "
            f"(power {POWER:g}): {told}"
        )
