"""Mini analogues of *Future Forcing*'s tables (arXiv 2605.30083): its comparisons on the embedded model.

    make paper-mini                                    # two cores, some 20 minutes
    python scripts/paper_mini.py --full                # one GPU: 16 prompts, 60 s, batches of 16
    python scripts/paper_mini.py --only table2 table8

Columns are what `mini` can measure against the truth of its worlds, not VBench-Long. Every table says that it
is about a toy model. What is finished is not made again. Writes Markdown, LaTeX, CSV, rows and plots; the
last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ff_bench import files, metrics, records, runs
from ff_bench.compose import expand
from ff_bench.report.comparison import Line, Table
from ff_bench.report.frame import to_frame
from ff_bench.report.latex import to_latex
from ff_bench.report.plots import figures
from ff_bench.report.style import colour, legend_above, new_figure, paper_style, save
from ff_bench.report.summary import summarise
from ff_bench.report.tables import to_markdown, to_terminal

TOY = "a toy model of 13.6 M parameters: what is asked is the paper's, the numbers are no evidence about Wan"
LONG = (
    "world.memory", "world.revisit_psnr", "world.revisit_psnr_last", "world.sprite_psnr",
    "world.revisit_psnr_after_cut", "flicker.temporal_flickering", "guards.motion_ratio",
    "guards.gradient_ratio",
)  # fmt: skip
NO_MERGE = "policy.merge=none"
VALUE_MERGE = "policy.merge=value"


@dataclass(frozen=True)
class Analogue:
    """One table.

    Attributes:
        name: as `--only` takes it.
        title: which table of the paper it follows.
        commands: overrides of each sweep.
        columns: metrics.
        full: further overrides of every sweep under `--full`.
        note: how it differs from the paper's, columns apart.
        swept: hyper-parameter on the horizontal axis of its plot; empty for none.
        is_alone: whether its videos are made one at a time, since their seconds count.
        wide: further sweeps under `--full`.
    """

    name: str
    title: str
    commands: Sequence[Sequence[str]]
    columns: Sequence[str]
    full: Sequence[str]
    note: str = ""
    swept: str = ""
    is_alone: bool = False
    wide: Sequence[Sequence[str]] = ()


def _swept(name: str, title: str, field: str) -> Analogue:
    experiment = f"+experiment=mini_{name}"
    columns = [name for name in LONG if name != "world.revisit_psnr_last"]
    return Analogue(
        name, title, ((experiment,),), columns, ("subset=16", "length=60s"),
        "18 s instead of 30 s; no merging without --full, as the paper's merge greys this model", field,
        wide=((experiment, VALUE_MERGE),),
    )  # fmt: skip


ANALOGUES = (
    Analogue(
        "table1", "Table 1",
        (("+experiment=mini_table1",),
         ("+experiment=mini_table1", "policy=future_forcing", NO_MERGE)),
        LONG, ("subset=16", "length=60s"),
        "one model instead of four, 24 s instead of 30 s and 60 s; its native rule is the full cache; Deep "
        "Forcing is no policy here yet; seconds are those of processes side by side",
    ),
    Analogue(
        "table2", "Tables 2 and 3",
        (("+experiment=mini_table2",),
         ("+experiment=mini_table2", "policy=future_forcing", NO_MERGE)),
        ("fidelity.psnr", "fidelity.ssim", "flicker.temporal_flickering", "guards.motion_ratio",
         "guards.gradient_ratio"),
        ("subset=16",),
        "the training window is 60 latent frames instead of 21, scored after all was seen once; the rules of "
        "Reward, Deep and Dummy Forcing are left out",
    ),
    _swept("table4", "Tables 4 and 6", "horizon"),
    _swept("table5", "Tables 5 and 7", "lam"),
    Analogue(
        "efficiency", "Figures 11 and 12", (("+experiment=mini_efficiency",),),
        ("cost.fps", "cost.policy_share", "cost.chunk_p50", "cost.kv_bytes", "cost.state_bytes",
         "cost.transient_bytes"),
        ("subset=16", "length=60s"), "fp32 on this machine instead of an A100", is_alone=True,
    ),
)  # fmt: skip
DRIFT = ("table8", "Table 8")
FULL = ("device=cuda", "batch=16")


def generate(one: Analogue, options: argparse.Namespace) -> tuple[list[Path], bool]:
    """Run the sweeps of a table.

    Returns:
        Folders of their videos, and whether every sweep went well.
    """
    extra = [*one.full, *FULL] if options.full else []
    workers = 1 if one.is_alone else options.workers
    folders: dict[Path, None] = {}
    went_well = True
    for command in [*one.commands, *(one.wide if options.full else ())]:
        words = [*command, *extra, f"workers={workers}", f"runs_dir={options.runs}"]
        print(f"ff-bench {' '.join(words)}", flush=True)
        done = subprocess.run([sys.executable, "-m", "ff_bench", *words], stdout=subprocess.DEVNULL)
        went_well = went_well and done.returncode == 0
        for job in expand(words, multirun=True).jobs:
            folders |= dict.fromkeys(spec.folder for spec in runs.videos(job.config))
    return list(folders), went_well


def analogue_tables(one: Analogue, rows: pd.DataFrame) -> list[Table]:
    """Summarise the rows of one analogue; a table per list of prompts."""
    notes = [TOY, *([one.note] if one.note else [])]
    return [
        replace(
            table,
            title=f"Mini analogue of {one.title} · {table.title}",
            notes=[*notes, *table.notes],
            lines=sorted(table.lines, key=lambda line: _order(line, one.swept)),
        )
        for table in summarise(rows, headline=one.columns)
    ]


def _order(line: Line, field: str) -> tuple[str, float]:
    """Order an ablation by merge, then by its field; leave other tables as they are."""
    if not field:
        return "", 0.0
    fields = json.loads(line.fields)
    return str(fields.get("merge")), float(fields.get(field, 0))


def ablation(table: Table, field: str, metric: str = "world.revisit_psnr") -> Figure:
    """Draw a metric over one hyper-parameter with its 95 % interval, one line for each way to merge."""
    figure = new_figure(1.9)
    panel = figure.subplots()
    handles, labels = [], []
    for merge, style in (("none", "-"), ("value", "--")):
        points = [
            (float(fields[field]), cell.mean)
            for line in table.lines
            for fields in [json.loads(line.fields)]
            for cell in [line.cells[metric]]
            if fields["merge"] == merge and cell.mean is not None
        ]
        if points:
            places, means = zip(*sorted(points, key=lambda point: point[0]), strict=True)
            lows = [mean.mean - (mean.mean if mean.low is None else mean.low) for mean in means]
            highs = [(mean.mean if mean.high is None else mean.high) - mean.mean for mean in means]
            handles.append(
                panel.errorbar(
                    places, [mean.mean for mean in means], [lows, highs], color=colour("future_forcing"),
                    linestyle=style, marker="s", capsize=2, elinewidth=0.7,
                )
            )  # fmt: skip
            labels.append(f"merge={merge}")
    measure = metrics.measure(metric)
    panel.set_xlabel({"horizon": "horizon Δmax (latent frames)", "lam": "weight of the future λ"}[field])
    panel.set_ylabel(f"{measure.label} ({measure.unit})" if measure else metric)
    panel.set_xticks(sorted({float(json.loads(line.fields)[field]) for line in table.lines}))
    legend_above(figure, handles, labels)
    return figure


def draw(one: Analogue, tables: Sequence[Table], folder: Path) -> list[Path]:
    """Draw the plots of the tables of one analogue."""
    written = []
    with paper_style():
        for table in tables:
            name = f"{one.name}-{table.key['prompt_set']}"
            drawn = {one.swept: ablation(table, one.swept)} if one.swept else figures(table)
            if not one.is_alone:  # seconds of processes side by side are no measure of cost
                drawn.pop("cost", None)
            for kind, figure in drawn.items():
                written += save(figure, folder / f"{name}-{kind}")
    return written


def stationarity(out: Path, *, frames: int) -> str:
    """Measure how much queries move before and after rotation; return a table in Markdown."""
    kept = out / f"{DRIFT[0]}-{frames}.json"
    if not kept.is_file():
        script = Path(__file__).with_name("query_drift.py")
        words = [sys.executable, str(script), "--length", str(frames)]
        print(" ".join(words[1:]), flush=True)
        printed = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
        files.write_atomically(kept, printed.splitlines()[-1] + "\n")
    found = json.loads(kept.read_text(encoding="utf-8"))
    before, after = found["drift"]["before rotation"], found["drift"]["after rotation"]
    lines = [f"| {name} | {before[name]:.3f} | {after[name]:.3f} |" for name in before]
    notes = [
        TOY,
        f"full cache, {frames} latent frames, clean passes, all layers and heads, `{found['prompt']}`",
        "w1: Wasserstein-1 of a channel between two chunks over its standard deviation, as in the paper, "
        "which prints 0.123 before and 1.176 after, two channels of five models; lags in chunks",
    ]
    head = ["| drift of queries | before rotation | after rotation |", "| --- | ---: | ---: |"]
    body = "\n".join([*head, *lines])
    listed = "\n".join(f"- {note}" for note in notes)
    return f"## Mini analogue of {DRIFT[1]} · stationarity of queries\n\n{body}\n\n{listed}\n"


def main() -> int:
    """Make every table and plot that is asked for."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    found: list[Table] = []
    texts, parts, plots, seconds, failed = [], [], [], {}, []
    for one in ANALOGUES:
        if one.name not in options.only:
            continue
        start = time.monotonic()
        folders, went_well = generate(one, options)
        failed += [] if went_well else [one.name]
        rows = records.table(folders)
        tables = analogue_tables(one, rows)
        plots += draw(one, tables, options.out / "plots")
        seconds[one.name] = round(time.monotonic() - start)
        print("\n\n".join(to_terminal(table, ansi=False) for table in tables) + "\n", flush=True)
        found += tables
        texts.append(to_markdown(tables))
        parts.append(rows)
    if DRIFT[0] in options.only:
        start = time.monotonic()
        texts.append(stationarity(options.out, frames=240 if options.full else 96))
        seconds[DRIFT[0]] = round(time.monotonic() - start)
        print(texts[-1])
    _write(options.out, found, texts, parts)
    print(json.dumps({"out": str(options.out), "plots": len(plots), "seconds": seconds, "failed": failed}))
    return 1 if failed else 0


def _write(out: Path, found: Sequence[Table], texts: Sequence[str], parts: Sequence[pd.DataFrame]) -> None:
    files.write_atomically(out / "tables.md", "\n\n".join(text.rstrip() for text in texts) + "\n")
    if found:
        files.write_atomically(out / "tables.tex", to_latex(found))
        files.write_atomically(out / "tables.csv", to_frame(found).to_csv(index=False))
        rows = pd.concat(parts, ignore_index=True).drop_duplicates(list(records.KEY), ignore_index=True)
        records.write_tables(rows, out)


def _options() -> argparse.Namespace:
    names = [*(one.name for one in ANALOGUES), DRIFT[0]]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="16 prompts and 60 s on a GPU")
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names)
    )
    parser.add_argument("--workers", type=int, default=2, help="processes side by side")
    parser.add_argument("--runs", type=Path, default=Path("runs/paper-mini"), help="where videos lie")
    parser.add_argument("--out", type=Path, default=Path("runs/reports/paper-mini"), help="where tables go")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
