"""The first part of the page: one sentence, the properties, paired differences, and the replay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from ff_bench.challenge.verdict import MARGIN, Comparison, Row
from ff_bench.report import web
from ff_bench.report.power import LEAST

if TYPE_CHECKING:
    from policies.checking import Result

TOY = (
    "Made on the embedded models of this package: a toy model, not evidence about Wan. What fails here is "
    "worth mending first; what wins here is worth trying there."
)


def render(
    label: str,
    verdict: str,
    results: Sequence[Result],
    found: Sequence[Comparison],
    *,
    left_out: str,
    figure: Path | None,
    figure_note: str = "",
) -> str:
    """Return the front of the page as HTML.

    Args:
        label: of the challenger.
        verdict: one sentence.
        results: of the properties.
        found: of the videos.
        left_out: what the time did not allow.
        figure: PNG of the replay, or None.
        figure_note: what it shows.
    """
    from jinja2 import Environment, StrictUndefined

    from policies.checking import PROPERTIES

    meanings = {one.name: one.doc.replace("`", "") for one in PROPERTIES}
    counts = Counter(result.status for result in results)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("ff_bench.challenge").joinpath("front.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        label=label, verdict=verdict, note=f"{TOY} Left out: {left_out}.",
        counts=", ".join(f"{count} {status}" for status, count in counts.items()),
        results=[
            {"name": one.name, "status": one.status, "text": one.reason or meanings.get(one.name, "")}
            for one in results
        ],
        tables=[_table(one, label) for one in found], figure_note=figure_note,
        figure=web.data(figure.read_bytes(), "image/png") if figure else "",
    )  # fmt: skip


def _table(one: Comparison, label: str) -> dict[str, object]:
    worlds = list(dict.fromkeys(world for row in one.rows for world in row.worlds or ()))
    count = "1 prompt" if one.prompts == 1 else f"{one.prompts} prompts"
    few = f" Fewer than {LEAST} prompts tell no difference." if one.prompts < LEAST else ""
    return {
        "title": f"{label} on {one.model} at equal {one.equal}, {count}",
        "head": [
            "policy", "budget, tokens", "revisit PSNR, dB", f"{label} minus it, dB", "95 % interval",
            f"{label} is", f"prompts to tell {MARGIN:g} dB", *worlds,
        ],
        "rows": [_cells(row, worlds, is_judged=one.prompts >= LEAST) for row in one.rows],
        "note": "Revisited places against their first view in the same video, mean over prompts; differences "
        "are paired by prompt, intervals by bootstrap, words after Holm's correction over the rivals. "
        f"Columns to the right: mean of each world.{few}",
    }  # fmt: skip


def _cells(row: Row, worlds: Sequence[str], *, is_judged: bool) -> list[str]:
    verdict = row.verdict if is_judged or not row.verdict else "too few prompts"
    gap = "" if row.difference is None else f"{row.difference:+.2f}"
    ends = "" if row.low is None or row.high is None else f"[{row.low:+.2f}, {row.high:+.2f}]"
    means = [f"{row.worlds[world]:.1f}" if row.worlds and world in row.worlds else "" for world in worlds]
    tokens = "full" if row.tokens is None else str(row.tokens)
    needed = "" if row.needed is None else str(row.needed)
    return [row.name, tokens, f"{row.mean:.2f}", gap, ends, verdict, needed, *means]
