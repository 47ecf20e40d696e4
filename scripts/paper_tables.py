"""Our numbers of *Future Forcing*'s tables (arXiv 2605.30083) beside the printed ones, for real backbones.

Run the experiments first (`ff-bench ls experiments`, names that begin with ff_); any part of them will do:

    ff-bench +experiment=ff_table1_self_causal subset=16
    python scripts/paper_tables.py runs
    python scripts/paper_tables.py ROWS.parquet --paper deep_forcing --out runs/reports/deep

For every table of ours: ours with its interval, theirs, the difference and what is not comparable; no p-value
against a single number. Writes Markdown, LaTeX and CSV; the last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ff_bench import files, metrics
from ff_bench.report.beside import Beside, beside, to_latex, to_markdown, to_terminal
from ff_bench.report.published import PAPERS, Row, load, scale
from ff_bench.report.published.methods import parts
from ff_bench.report.reading import read_rows
from ff_bench.report.summary import HEADLINE, PANELS, summarise
from policies import POLICIES

EFFICIENCY = ("cost.fps", "cost.peak_bytes")


def published(paper: str) -> list[Row]:
    """Return the numbers of one paper, or of all."""
    every = load()
    if paper == "all":
        return list(every)
    own = {name: number for name, number in zip(PAPERS, _firsts(every), strict=True)}
    return [row for row in every if row.paper == own[paper]]


def _firsts(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.paper for row in rows))


def compared(rows: pd.DataFrame, theirs: Sequence[Row]) -> list[Beside]:
    """Set every table of ours beside what is published for its models, methods and lengths."""
    panels = {name: columns for name, columns in PANELS.items() if name.startswith("VBench")}
    headlines = [[*HEADLINE, "fidelity.ssim", "fidelity.lpips", *EFFICIENCY], *panels.values()]
    wanted = [tuple(name for name in dict.fromkeys(names) if metrics.measure(name)) for names in headlines]
    tables = [table for names in wanted for table in summarise(rows, baseline="native", headline=names)]
    return [beside(table, theirs) for table in tables if table.columns]


def missing(theirs: Sequence[Row]) -> list[str]:
    """Name the published methods that are no policy here, and so have no line of ours."""
    names = dict.fromkeys(parts(row.method)[0] for row in theirs)
    return [name for name in names if name != "native" and name not in POLICIES]


def main() -> int:
    """Read, compare, write."""
    options = _options()
    theirs = published(options.paper)
    found = [one for one in compared(read_rows(options.rows), theirs) if one.pairs]
    print("\n\n".join(to_terminal(one) for one in found) or "nothing of these rows is published")
    without = missing(theirs)
    if without:
        print(f"\nno line of ours, as they are no policies here yet: {', '.join(without)}")
    options.out.mkdir(parents=True, exist_ok=True)
    left_out = f"\nNo policies here yet, so left out: {', '.join(without)}.\n" if without else ""
    files.write_atomically(options.out / "beside.md", to_markdown(found) + left_out)
    files.write_atomically(options.out / "beside.tex", to_latex(found))
    files.write_atomically(options.out / "beside.csv", frame(found).to_csv(index=False))
    print(json.dumps({"out": str(options.out), "pairs": sum(len(one.pairs) for one in found)}))
    return 0


def frame(found: Sequence[Beside]) -> pd.DataFrame:
    """Return one line per pair, values as the paper prints them."""
    return pd.DataFrame(
        {
            "table": pair.theirs.table, "model": pair.theirs.model, "policy": pair.line.label,
            "seconds": pair.theirs.seconds, "metric": pair.column.metric,
            "ours": scale(pair.theirs.metric) * pair.ours.mean, "our_prompts": pair.ours.prompts,
            "theirs": pair.theirs.printed, "their_prompts": pair.theirs.n_prompts,
            "difference": scale(pair.theirs.metric) * pair.difference, "differs_in": " ".join(pair.caveats),
            "paper": pair.theirs.paper,
        }
        for one in found
        for pair in one.pairs
    )  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="+", type=Path, help="folders of runs, tables of rows (.parquet, .csv)")
    parser.add_argument("--paper", choices=[*PAPERS, "all"], default="future_forcing")
    parser.add_argument("--out", type=Path, default=Path("runs/reports/paper"), help="where tables go")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
