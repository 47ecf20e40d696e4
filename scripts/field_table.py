"""Policies x worlds at one budget, from tables of rows: the mean over common pairs, a paired interval, ranks.

In every world only those (prompt, seed) pairs count that all policies have. A cell is the mean and half the
95 % interval of the paired difference to the baseline (bootstrap over prompts, then seeds), in brackets the
rank among the policies. References, which are no policies, stand without a rank. Last come Kendall's tau of
the policies' means between checkpoints, where there are two, and one JSON document.

    python scripts/field_table.py docs/data/field-60s.parquet --budget 1024
    python scripts/field_table.py docs/data/field-60s.parquet --budget 4096 --model mini
    python scripts/field_table.py docs/data/field-60s.parquet --against working_set --least 64
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from transfer_table import EQUAL

from ff_bench import records, shipped
from ff_bench.models.facts import facts
from ff_bench.report.agreement import agreement
from ff_bench.report.statistics import Pair, bootstrap, differences
from policies import POLICIES

REFERENCES = ("full", "gt_coverage")
Values = Mapping[str, Mapping[Pair, float]]


def label(row: pd.Series) -> str:
    """Name a policy with the fields and protocol fields that are not its defaults."""
    name = str(row["policy"]).partition("+")[0]
    own, protocol = json.loads(row["policy_fields"]), json.loads(row["protocol_fields"])
    usual = shipped.policy_fields(name) if name in POLICIES else own
    equal = EQUAL | {"position": facts(row["model"]).position}
    pinned = str(row["pinned"]).split(",")
    told = [f"{key}={value}" for key, value in own.items() if str(usual.get(key, value)) != str(value)]
    told += [
        f"{key}={protocol[key]}"
        for key, value in equal.items()
        if key in protocol and key not in pinned and str(protocol[key]) != value
    ]
    return str(row["policy"]) + (f"({', '.join(told)})" if told else "")


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the column `label`; one label per video."""
    kinds = ["policy", "policy_fields", "protocol_fields", "model", "pinned"]
    names = {key: label(part.iloc[0]) for key, part in rows.groupby(kinds, dropna=False)}
    keys = zip(*(rows[kind] for kind in kinds), strict=True)
    return rows.assign(label=[names[key] for key in keys])


def worlds_of(rows: pd.DataFrame, least: int) -> dict[str, dict[str, dict[Pair, float]]]:
    """Return world -> label -> value by pair, for labels with at least so many pairs in every world."""
    found: dict[str, dict[str, dict[Pair, float]]] = {}
    for (world, name), part in rows.groupby(["prompt_set", "label"]):
        pairs = zip(part["prompt_id"].astype(str), part["seed"].astype(int), strict=True)
        found.setdefault(str(world), {})[str(name)] = dict(zip(pairs, part["value"], strict=True))
    whole = set.intersection(
        *({name for name, values in by.items() if len(values) >= least} for by in found.values())
    )
    return {world: _common({name: by[name] for name in whole}) for world, by in found.items()}


def _common(by_label: Values) -> dict[str, dict[Pair, float]]:
    common = set.intersection(*(set(values) for values in by_label.values()))
    return {name: {pair: values[pair] for pair in common} for name, values in by_label.items()}


def ranks(by_label: Values) -> dict[str, int]:
    """Rank policies by their means, the best first; references are left out."""
    means = {
        name: float(np.mean(list(values.values())))
        for name, values in by_label.items()
        if name.partition("(")[0] not in REFERENCES
    }
    return {name: place for place, name in enumerate(sorted(means, key=lambda one: -means[one]), 1)}


def cell(by_label: Values, name: str, baseline: str, rank: int | None) -> str:
    """Return mean, half the paired interval and rank; against itself the mean alone."""
    mean = float(np.mean(list(by_label[name].values())))
    found = None if name == baseline else bootstrap(differences(by_label[name], by_label[baseline]))
    if found is None or found.low is None or found.high is None:
        spread = ""
    else:
        spread = f" ±{(found.high - found.low) / 2:.2f}"
    return f"{mean:.2f}{spread}" + (f" ({rank})" if rank else "")


def table(worlds: Mapping[str, Values], baseline: str) -> list[str]:
    """Return the table as lines of Markdown, ordered by the mean rank."""
    places = {world: ranks(by) for world, by in worlds.items()}
    names = list(next(iter(worlds.values())))
    ranked = set(places[min(worlds)])
    mean_rank = {
        name: float(np.mean([places[world][name] for world in worlds])) if name in ranked else 0.0
        for name in names
    }
    heads = [f"{world}, n={len(next(iter(by.values())))}" for world, by in worlds.items()]
    lines = [_line(["policy", *heads, "mean", "mean rank"]), _line(["---", *["---:"] * (len(heads) + 2)])]
    for name in sorted(names, key=lambda one: (mean_rank[one], one)):
        cells = [cell(by, name, baseline, places[world].get(name)) for world, by in worlds.items()]
        middle = float(np.mean([np.mean(list(by[name].values())) for by in worlds.values()]))
        shown = f"{mean_rank[name]:.1f}" if mean_rank[name] else ""
        lines.append(_line([name if mean_rank[name] else f"*{name}*", *cells, f"{middle:.2f}", shown]))
    return lines


def against(worlds: Mapping[str, Values], name: str) -> list[str]:
    """Return what one policy wins or loses against every other, as lines of Markdown."""
    lines = [_line([f"{name} against", *worlds]), _line(["---", *["---:"] * len(worlds)])]
    others = sorted(set(next(iter(worlds.values()))) - {name})
    for other in others:
        found = [bootstrap(differences(by[name], by[other])) for by in worlds.values()]
        told = [f"{one.mean:+.2f} [{one.low:.2f}, {one.high:.2f}]" for one in found if one]
        lines.append(_line([other, *told]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def agreements(by_model: Mapping[str, Mapping[str, Values]]) -> list[str]:
    """Return Kendall's tau of the policies' means on every two checkpoints, world by world."""
    lines = []
    for first, second in combinations(by_model, 2):
        for world in sorted(by_model[first].keys() & by_model[second].keys()):
            ranked = [_ranked(by_model[model][world]) for model in (first, second)]
            found = agreement(*ranked)
            if found is not None:
                spread = f"{found.tau:.2f} [{found.low:.2f}, {found.high:.2f}]"
                counts = f"{found.policies} policies, {found.pairs} pairs of {found.prompts} prompts"
                lines.append(f"{first} and {second}, {world}: tau {spread}, {counts}")
    return lines


def _ranked(by_label: Values) -> dict[str, Mapping[Pair, float]]:
    return {name: by_label[name] for name in ranks(by_label)}


def asked(options: argparse.Namespace) -> pd.DataFrame:
    """Return the whole-video rows of the metric, budget, length and worlds that are asked for."""
    rows = pd.concat([records.read_table(path) for path in options.rows], ignore_index=True)
    rows = rows.drop_duplicates(["video_id", "metric", "clip"])
    budget = rows["budget_tokens"].isna() | (rows["budget_tokens"] == options.budget)
    chosen: pd.DataFrame = rows[
        budget & (rows["metric"] == options.metric) & (rows["clip"] == -1) & (rows["status"] == "ok")
        & (rows["latent_frames"] == options.latent_frames) & rows["prompt_set"].isin(options.worlds)
    ]  # fmt: skip
    return chosen


def main() -> None:
    """Read rows, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path, nargs="+", help="tables of rows, .parquet or .csv")
    parser.add_argument("--budget", type=int, default=1024, help="tokens")
    parser.add_argument("--metric", default="world.revisit_psnr")
    parser.add_argument("--model", nargs="+", help="checkpoints; all by default")
    parser.add_argument("--worlds", nargs="+", default=["orbit", "cut", "change", "occlusion", "pendulum"])
    parser.add_argument("--latent-frames", type=int, default=240)
    parser.add_argument("--baseline", default="random", help="what intervals of the table are paired with")
    parser.add_argument("--against", help="print the differences of this policy to every other")
    parser.add_argument("--least", type=int, default=16, help="pairs that a policy must have in every world")
    options = parser.parse_args()
    rows = labelled(asked(options))
    by_model = {}
    for model in options.model or list(dict.fromkeys(rows["model"])):
        found = worlds_of(rows[rows["model"] == model], options.least)
        by_model[model] = {world: found[world] for world in options.worlds if world in found}
        print(f"\n**{model}**, {options.budget} tokens, {options.metric}\n")
        print("\n".join(table(by_model[model], options.baseline)))
        if options.against:
            print("\n" + "\n".join(against(by_model[model], options.against)))
    lines = agreements(by_model)
    print("\n" + "\n".join(lines))
    print(json.dumps({"metric": options.metric, "budget": options.budget, "agreements": lines}))


if __name__ == "__main__":
    main()
