"""Do findings published on real backbones hold on the embedded model's checkpoints?

Every finding of docs/data/transfer_claims.csv names the comparison that it maps to: two policies with their
budgets, worlds, a metric and a direction. Each is taken over (prompt, seed) pairs with a 95 % interval over
prompts, one by one, without a correction for their number: reproduced if the interval lies on the published
side of 0, contradicted if on the other, else not distinguishable. The table is printed as Markdown, the last
line is one JSON object.

    python scripts/transfer_table.py runs/table.parquet short.parquet
    python scripts/transfer_table.py ROWS --claims MY.csv

Policies are written ``name:field=value,...@protocol_field=value,...``; what is not written has the defaults
of the policy and of the protocol `equal`. A budget is in tokens, `full`, or a share of the training window
(`6/21`).
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pandas as pd

from ff_bench import records, shipped
from ff_bench.models.facts import ModelFacts, facts
from ff_bench.models.mini.recipe import is_mini
from ff_bench.report.statistics import Interval, Pair, bootstrap, differences
from policies import POLICIES

CLAIMS = Path(__file__).parent.parent / "docs" / "data" / "transfer_claims.csv"
REPRODUCED, CONTRADICTED, OPEN = "reproduced", "contradicted", "not distinguishable"
NOT_TESTABLE, NO_ROWS = "not testable", "no rows"
EQUAL = {"passes": "clean", "denominator": "all", "unit": "token", "share": "head"}
TOY = "A toy model: this is no evidence about Wan."


@dataclass(frozen=True)
class Side:
    """One policy of a comparison.

    Attributes:
        policy: name.
        fields: hyper-parameters that are asked for, as text.
        protocol: protocol fields that are asked for, as text.
        budget: tokens, `full`, or a share of the window.
    """

    policy: str
    fields: Mapping[str, str]
    protocol: Mapping[str, str]
    budget: str

    @classmethod
    def parse(cls, text: str, budget: str) -> Side:
        """Read ``name:field=value,...@protocol_field=value,...``."""
        head, _, protocol = text.partition("@")
        name, _, given = head.partition(":")
        return cls(name, _assignments(given), _assignments(protocol), budget)

    def tokens(self, known: ModelFacts) -> int | None:
        """Return the budget in tokens of a model; None for the full cache."""
        if self.budget == "full":
            return None
        if "/" not in self.budget:
            return int(self.budget)
        return round(Fraction(self.budget) * known.window_frames) * known.frame_tokens


@dataclass(frozen=True)
class Verdict:
    """What the rows of one checkpoint say about one finding.

    Attributes:
        claim: id of the finding.
        model: name of the checkpoint.
        word: one of the words of this module.
        found: difference better - worse in the metric's own sign; None without rows.
        reason: why there is none.
    """

    claim: str
    model: str
    word: str
    found: Interval | None = None
    reason: str = ""


def _assignments(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(",") if part)
    return {key: value for key, _, value in pairs}


def _fits(row: pd.Series, side: Side, known: ModelFacts) -> bool:
    """Say whether a video was made as asked; fields that its rows do not have were not there yet."""
    own = json.loads(row["policy_fields"])
    wanted = {key: str(value) for key, value in shipped.policy_fields(side.policy).items()}
    wanted |= dict(side.fields)
    if any(str(own.get(key, wanted[key])).lower() != wanted[key].lower() for key in wanted):
        return False
    protocol, pinned = json.loads(row["protocol_fields"]), str(row["pinned"]).split(",")
    equal = {key: value for key, value in (EQUAL | {"position": known.position}).items() if key not in pinned}
    asked = {**equal, **side.protocol}  # a protocol lists what changes its policy: `full` keeps no shares
    return all(str(protocol.get(key, value)) == value for key, value in asked.items())


def values_of(
    rows: pd.DataFrame, claim: Mapping[str, str], side: Side, known: ModelFacts
) -> dict[Pair, float]:
    """Return the metric of every (prompt, seed) of one side.

    Raises:
        SystemExit: where two videos of one pair fit.
    """
    tokens = side.tokens(known)
    frames = known.window_frames if claim["latent_frames"] == "window" else int(claim["latent_frames"])
    budgets = rows["budget_tokens"].isna() if tokens is None else rows["budget_tokens"] == tokens
    chosen = rows[
        (rows["policy"] == side.policy) & (rows["metric"] == claim["metric"]) & budgets
        & (rows["latent_frames"] == frames) & rows["prompt_set"].isin(claim["worlds"].split(";"))
        & (rows["clip"] == -1) & (rows["status"] == "ok")
    ]  # fmt: skip
    found: dict[Pair, float] = {}
    for _, row in chosen.iterrows():
        if not _fits(row, side, known):
            continue
        pair = (str(row["prompt_id"]), int(row["seed"]))
        if pair in found:
            raise SystemExit(
                f"{claim['id']}: two videos of {pair[0]}, seed {pair[1]}, fit policy {side.policy}"
            )
        found[pair] = float(row["value"])
    return found


def judge(claim: Mapping[str, str], rows: pd.DataFrame, model: str) -> Verdict:
    """Compare the two policies of a finding on one checkpoint.

    Args:
        claim: a line of the file of findings.
        rows: rows of that checkpoint.
        model: its name.
    """
    only = claim["only"].split(";") if claim["only"] else []
    if claim["not_testable"] and model not in only:
        return Verdict(claim["id"], model, NOT_TESTABLE, reason=claim["not_testable"])
    known = facts(model)
    absent = [
        name for name in (claim["better"], claim["worse"]) if Side.parse(name, "").policy not in POLICIES
    ]
    if absent:
        return Verdict(
            claim["id"], model, NOT_TESTABLE, reason=f"{' and '.join(absent)} is not in this package"
        )
    better = Side.parse(claim["better"], claim["better_budget"])
    worse = Side.parse(claim["worse"], claim["worse_budget"])
    first, second = (values_of(rows, claim, side, known) for side in (better, worse))
    found = bootstrap(differences(first, second))
    if found is None:
        absent = [side.policy for side, has in ((better, first), (worse, second)) if not has]
        told = f"of {' and '.join(absent)}" if absent else "with a pair in common"
        return Verdict(claim["id"], model, NO_ROWS, reason=f"no rows {told}")
    return Verdict(claim["id"], model, _word(found, claim["direction"]), found)


def _word(found: Interval, direction: str) -> str:
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        return OPEN
    return REPRODUCED if (found.low > 0) == (direction == "higher") else CONTRADICTED


def table(claims: Sequence[Mapping[str, str]], verdicts: Sequence[Verdict]) -> list[str]:
    """Return the table as lines of Markdown: findings down, checkpoints across."""
    by_place = {(one.claim, one.model): one for one in verdicts}
    models = list(dict.fromkeys(one.model for one in verdicts))
    head = ["finding", "published", "here", *models]
    lines = [TOY, "", _line(head), _line(["---"] * len(head))]
    for claim in claims:
        numbers = " > ".join(part for part in (claim["published_better"], claim["published_worse"]) if part)
        published = ", ".join(part for part in (claim["source"], claim["published_metric"], numbers) if part)
        here = f"`{claim['better']}` > `{claim['worse']}`, {claim['metric']}" if claim["better"] else "-"
        cells = [_cell(by_place[claim["id"], model]) for model in models]
        lines.append(_line([claim["finding"], published, here, *cells]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(verdict: Verdict) -> str:
    found = verdict.found
    if found is None:
        return f"{verdict.word}: {verdict.reason}"
    interval = "" if found.low is None else f" [{found.low:.3g}, {found.high:.3g}]"
    return f"{verdict.word} {found.mean:+.3g}{interval}, n={found.pairs}"


def main() -> None:
    """Read findings and rows, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path, nargs="+", help="tables of rows, .parquet or .csv")
    parser.add_argument("--claims", type=Path, default=CLAIMS)
    options = parser.parse_args()
    with options.claims.open(encoding="utf-8", newline="") as file:
        claims = list(csv.DictReader(file))
    rows = pd.concat([records.read_table(path) for path in options.rows], ignore_index=True)
    models = [name for name in dict.fromkeys(rows["model"]) if is_mini(name)]
    verdicts = [judge(claim, rows[rows["model"] == model], model) for model in models for claim in claims]
    print("\n".join(table(claims, verdicts)))
    counts: dict[str, dict[str, int]] = {model: {} for model in models}
    for one in verdicts:
        counts[one.model][one.word] = counts[one.model].get(one.word, 0) + 1
    print(json.dumps({"note": TOY, "counts": counts}))


if __name__ == "__main__":
    main()
