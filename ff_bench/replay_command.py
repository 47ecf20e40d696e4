"""`ff-bench replay policies=[...] budgets=[...] [KEY=VALUE ...]`: what policies hold, without generating."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ff_bench.analysis import asking
from ff_bench.analysis.replay_request import Request, announce, read
from ff_bench.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def run(words: Sequence[str]) -> int:
    """Record once, replay every policy under every budget, print; the last line is JSON.

    Args:
        words: of the command line after `replay`.

    Returns:
        0; 1 where latents are not finite or another process records the same video.

    Raises:
        UsageError: with one sentence for the user.
    """
    return asking.told(_run, words)


def _run(words: Sequence[str]) -> int:
    asked = read(words)
    began = time.monotonic()
    told = announce(asked)
    print(told, flush=True)
    rows, overlap = _replay(asked)

    from ff_bench import files, records
    from ff_bench.analysis import replay_figure, replay_text
    from ff_bench.report.style import paper_style, save

    tables = records.write_tables(rows, asked.out)
    files.write_atomically(asked.out / "overlap.csv", overlap.to_csv(index=False))
    facts = asked.full.facts
    seconds = facts.chunk_frames * facts.temporal_stride / facts.fps
    figures = []
    with paper_style():
        for tokens in sorted(set(rows["budget_tokens"])):
            parts = [table[table["budget_tokens"] == tokens] for table in (rows, overlap)]
            drawn = replay_figure.draw(parts[0], parts[1], chunk_seconds=seconds)
            figures += save(drawn, asked.out / f"replay-b{tokens:g}")[:1]
    print(f"\n{replay_text.to_terminal(rows, overlap)}")
    predicted = _predict(asked, rows, figures) if asked.rows else {}
    files.sweep_up(asked.out, deep=False)
    print("\n" + "\n".join([f"rows    {tables[0]}", *(f"figure  {path}" for path in figures)]))
    document: dict[str, Any] = {
        "videos": int(rows[["prompt_id", "seed"]].drop_duplicates().shape[0]),
        "seconds": round(time.monotonic() - began), "error": _errors(rows), "predicts": predicted,
        "rows": str(tables[0]), "figures": [str(path) for path in figures],
    }  # fmt: skip
    print(json.dumps(document))
    return 0


def _replay(asked: Request) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Record and replay every video; return the tidy rows and the overlaps."""
    import pandas as pd

    from ff_bench import generate, runs
    from ff_bench.analysis import recording, replay
    from ff_bench.analysis.streams import Setting

    full = asked.full
    plan = replay.Plan(full, asked.entries, asked.ahead, asked.references)
    rows: list[dict[str, Any]] = []
    overlap: list[dict[str, Any]] = []
    for spec in runs.videos(full):
        with tqdm(total=full.length.latent_frames, desc="recording", disable=None) as bar:
            made = recording.record(
                lambda: generate.load_model(full.model, full.device, full.dtype),
                spec, asked.choice, bar.update,
            )  # fmt: skip
        setting = Setting(asked.choice, made, spec.seed, asked.stride)
        with tqdm(total=2 * len(made.pieces), desc="replay", disable=None) as bar:
            try:
                found = replay.replay(setting, plan, bar.update)
            except ValueError as error:  # a policy's own sentence: it does not fit what was recorded
                raise UsageError(f"policies: {error}") from None
        known = {"model": full.model.name, "prompt_id": spec.prompt.id, "seed": spec.seed}
        rows += [{**known, **row} for row in found.rows]
        overlap += [{**known, **row} for row in found.overlap]
    if not rows:
        raise UsageError(
            f"budgets={asked.entries[0].config.budget.asked} is not allowed: nothing is ever dropped in a "
            f"video of {full.length.latent_frames} latent frames, choose smaller budgets"
        )
    return (
        pd.DataFrame(rows, columns=list(replay.COLUMNS)),
        pd.DataFrame(overlap, columns=list(replay.OVERLAP)),
    )


def _predict(asked: Request, rows: pd.DataFrame, figures: list[Path]) -> dict[str, Any]:
    """Join with the quality of real runs, print the correlations and draw the scatter.

    Args:
        asked: names the table and the metric.
        rows: tidy rows of the replays.
        figures: the figure is added here.

    Returns:
        Measure -> its rank correlations, for the last line.
    """
    from ff_bench import files, metrics, records
    from ff_bench.analysis import prediction, replay, replay_figure, replay_text
    from ff_bench.report.style import paper_style, save

    assert asked.rows is not None, "there is nothing to compare with"
    found, notes = prediction.quality(records.read_table(asked.rows), asked.entries, asked.metric)
    joined = prediction.points(rows, found)
    if joined.empty:
        raise UsageError(
            f"rows={asked.rows} is not allowed: it has none of these videos under these policies"
        )
    told = [prediction.agreement(joined, measure) for measure in replay.MEASURES if measure in joined]
    shown = [one for one in told if one is not None]
    measure = metrics.measure(asked.metric)
    label = f"{measure.label or asked.metric} ({measure.unit})" if measure else asked.metric
    files.write_atomically(asked.out / "points.csv", joined.to_csv(index=False))
    with paper_style():
        drawn = replay_figure.scatter(joined, shown, label=label)
        figures += save(drawn, asked.out / "predicts")[:1]
    print(f"\n{replay_text.predicted(shown, asked.metric)}")
    for note in notes:
        print(f"note: {note}")
    return {
        one.measure: {
            "spearman": round(one.spearman, 4), "low": round(one.low, 4), "high": round(one.high, 4),
            "kendall": round(one.kendall, 4), "policies": one.policies, "groups": one.groups,
        }
        for one in shown
    }  # fmt: skip


def _errors(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return budget -> policy -> mean relative error."""
    from ff_bench.analysis.replay_text import means

    found: dict[str, dict[str, float]] = {}
    for row in means(rows).reset_index().to_dict("records"):
        found.setdefault(f"{row['budget_tokens']:g}", {})[row["policy"]] = round(row["error"], 4)
    return found
