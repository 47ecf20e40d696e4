"""Paired differences between two policies in a table of rows, with their 95 % bootstrap interval.

Pairs are (prompt, seed); the interval resamples prompts, then seeds within each. One line per prompt set and
budget, and last one JSON document.

    python scripts/paired_differences.py docs/data/mini-60s-1k-h200.parquet h2o sliding_window
    python scripts/paired_differences.py ROWS future_forcing:merge=none random --metric world.anchor_psnr
    python scripts/paired_differences.py CPU.parquet h2o h2o --other GPU.parquet   # one cell on two machines
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from ff_bench import records
from ff_bench.report.statistics import Pair, bootstrap, differences


def chosen(rows: pd.DataFrame, policy: str, metric: str) -> pd.DataFrame:
    """Whole-video values of one metric of one policy, given as ``name`` or ``name:field=value``."""
    name, _, setting = policy.partition(":")
    whole = (rows["clip"] == -1) & (rows["status"] == "ok") & (rows["metric"] == metric)
    found = rows[whole & (rows["policy"] == name)]
    if setting:
        field, _, value = setting.partition("=")
        fields = found["policy_fields"].map(json.loads)
        found = found[fields.map(lambda known: str(known.get(field)) == value)]
    return found


def values_of(rows: pd.DataFrame) -> dict[Pair, float]:
    """Value of each (prompt, seed)."""
    keys = zip(rows["prompt_id"], rows["seed"], strict=True)
    return {
        (str(prompt), int(seed)): float(value)
        for (prompt, seed), value in zip(keys, rows["value"], strict=True)
    }


def main() -> None:
    """Read, pair, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path, help="table of rows, .parquet or .csv")
    parser.add_argument("policy", help="name or name:field=value")
    parser.add_argument("baseline", help="likewise")
    parser.add_argument("--metric", default="world.revisit_psnr")
    parser.add_argument("--other", type=Path, default=None, help="table that the baseline is read from")
    options = parser.parse_args()
    rows = records.read_table(options.rows)
    others = rows if options.other is None else records.read_table(options.other)
    first, second = (
        chosen(rows, options.policy, options.metric),
        chosen(others, options.baseline, options.metric),
    )
    printed = []
    for (prompt_set, budget), part in first.groupby(["prompt_set", "budget_tokens"], dropna=False):
        base = second[(second["prompt_set"] == prompt_set)]
        base = base[base["budget_tokens"].isna() | (base["budget_tokens"] == budget)]
        found = bootstrap(differences(values_of(part), values_of(base)))
        if found is None:
            continue
        printed.append({"prompt_set": prompt_set, "budget_tokens": budget, "pairs": found.pairs,
                        "mean": round(found.mean, 3), "low": found.low, "high": found.high})  # fmt: skip
        shown = "" if found.low is None else f" [{found.low:.2f}, {found.high:.2f}]"
        names = f"{options.policy} - {options.baseline}"
        print(f"{prompt_set:10s} {budget:6.0f} tokens  {names}: {found.mean:+.2f}{shown}  n={found.pairs}")
    print(json.dumps({"metric": options.metric, "differences": printed}))


if __name__ == "__main__":
    main()
