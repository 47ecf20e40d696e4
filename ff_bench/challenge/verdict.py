"""What the videos say: paired differences per checkpoint, and one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ff_bench.challenge.plan import BYTES, TOKENS
from ff_bench.metrics.base import WHOLE
from ff_bench.report.contrast import BETTER, EQUIVALENT, OPEN, WORSE
from ff_bench.report.margins import UNITS
from ff_bench.report.power import LEAST

if TYPE_CHECKING:
    import pandas as pd

    from ff_bench.report.comparison import Line

FULL = "full"
METRIC = "world.revisit_psnr"
MARGIN = UNITS["dB"]
OPPOSITE = {BETTER: WORSE, WORSE: BETTER, EQUIVALENT: EQUIVALENT, OPEN: OPEN}


@dataclass(frozen=True)
class Row:
    """A rival, and how the challenger stands to it.

    Attributes:
        name: of the policy.
        tokens: its budget after paying for state; None is everything.
        pairs: videos that both have.
        mean: of the rival, dB.
        difference: challenger minus rival, dB; None for the challenger itself.
        low: end of the 95 % interval of the difference.
        high: the other end.
        verdict: of the challenger, in the words of `report.contrast`.
        needed: prompts that tell a difference of the margin.
        worlds: world -> mean of the rival, dB.
    """

    name: str
    tokens: int | None
    pairs: int
    mean: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str = ""
    needed: int | None = None
    worlds: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Comparison:
    """The challenger against everybody on one checkpoint, with tokens or bytes equal."""

    model: str
    equal: str
    prompts: int
    rows: tuple[Row, ...]


def compare(rows: pd.DataFrame, label: str) -> list[Comparison]:
    """Compare the challenger with every rival, on each checkpoint, at equal tokens and at equal bytes.

    Args:
        rows: of all videos, charged ones and others.
        label: of the challenger.
    """
    models = list(dict.fromkeys(rows["model"]))
    parts = [(model, rows[rows["model"] == model]) for model in models]
    if len(models) > 1:
        parts.insert(0, (" and ".join(models), _pooled(rows)))
    return [one for name, part in parts for one in _of_model(name, part, label)]


def _pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """Put checkpoints together: a prompt on another checkpoint is another prompt."""
    apart = rows["prompt_id"] + "@" + rows["model"]
    same = {name: "" for name in ("checkpoint", "prompt_set", "prompt_list_sha256")}
    return rows.assign(prompt_id=apart, model="mini", **same)


def _of_model(name: str, rows: pd.DataFrame, label: str) -> Iterator[Comparison]:
    import pandas as pd

    from ff_bench.report.summary import summarise

    is_charged = rows["protocol_fields"].astype(str).str.contains('"charge_state": ?true', regex=True)
    with_state = set(rows.loc[is_charged, "policy"])
    shared = set(rows.loc[is_charged, "prompt_id"])
    free = rows[~is_charged]
    alike = free[~free["policy"].isin(with_state) & free["prompt_id"].isin(shared)]
    parts = {TOKENS: free, BYTES: pd.concat([rows[is_charged], alike])}
    for equal, found in parts.items():
        if found.empty or (equal == BYTES and not with_state):
            continue
        part = found.assign(protocol="equal", pinned="[]")
        budget = part.loc[part["policy"] == label, "budget_tokens"].max()
        part.loc[part["policy"] == FULL, "budget_tokens"] = budget  # compared although it has none
        tables = summarise(part, baseline=label, headline=(METRIC,))
        lines = [line for table in tables for line in table.lines if METRIC in line.cells]
        if any(line.policy == label for line in lines):
            yield _comparison(name, equal, lines, label, part)


def _comparison(model: str, equal: str, lines: Sequence[Line], label: str, rows: pd.DataFrame) -> Comparison:
    made = [row for line in lines for row in _row(line, label, rows)]
    own = [row for row in made if row.name == label]
    others = sorted((row for row in made if row.name != label), key=lambda row: -row.mean)
    return Comparison(model, equal, own[0].pairs if own else 0, (*own, *others))


def _row(line: Line, label: str, rows: pd.DataFrame) -> Iterable[Row]:
    cell = line.cells[METRIC]
    if cell.mean is None:
        return
    worlds = _worlds(rows, line.policy)
    if line.policy == label:
        yield Row(label, line.budget_tokens, cell.pairs, cell.mean.mean, worlds=worlds)
        return
    paired, contrast = cell.paired, cell.contrast
    tokens = None if line.policy == FULL else line.budget_tokens
    yield Row(
        line.policy, tokens, paired.pairs if paired else 0, cell.mean.mean,
        -paired.mean if paired else None,
        -paired.high if paired and paired.high is not None else None,
        -paired.low if paired and paired.low is not None else None,
        OPPOSITE.get(contrast.verdict, "") if contrast else "",
        contrast.n_needed if contrast else None, worlds,
    )  # fmt: skip


def _worlds(rows: pd.DataFrame, policy: str) -> dict[str, float]:
    own = rows[(rows["policy"] == policy) & (rows["metric"] == METRIC) & (rows["clip"] == WHOLE)]
    own = own[own["status"] == "ok"]
    by_world = own.groupby(own["prompt_id"].str.partition("-")[0], sort=False)["value"].mean()
    return {str(world): float(mean) for world, mean in by_world.items()}


def sentence(found: Sequence[Comparison], label: str) -> str:
    """Say in one sentence what the challenge showed."""
    first = found[0].model if found else ""  # both checkpoints together, where there are two
    own = [one for one in found if one.model == first]
    told = [_clause(one) if one.equal == TOKENS else _beside(one, own) for one in own]
    told = [clause for clause in told if clause]
    return f"{label} {'; '.join(told)}." if told else f"Nothing can be said of {label}: no video was scored."


def _clause(one: Comparison) -> str:
    where = f"on {one.model} ({one.prompts} prompts, equal {one.equal})"
    if one.prompts < LEAST:
        gaps = ", ".join(
            f"{row.difference:+.1f} dB to {row.name}" for row in one.rows if row.difference is not None
        )
        return f"cannot be judged {where}, which takes {LEAST} prompts or more, and stands {gaps}"
    groups = [
        _group("better than", one, BETTER), _group("equivalent to", one, EQUIVALENT),
        _group("worse than", one, WORSE), _open(one),
    ]  # fmt: skip
    return f"is {where} " + ", ".join(group for group in groups if group)


def _group(words: str, one: Comparison, verdict: str) -> str:
    names = [f"{row.name} ({row.difference:+.1f} dB)" for row in one.rows if row.verdict == verdict]
    return f"{words} {_listed(names)}" if names else ""


def _open(one: Comparison) -> str:
    rows = [row for row in one.rows if row.verdict == OPEN]
    if not rows:
        return ""
    needed = max((row.needed or 0 for row in rows), default=0)
    ending = f" ({needed} prompts would tell {MARGIN:g} dB)" if needed else ""
    return f"not distinguishable from {_listed([row.name for row in rows])}{ending}"


def _beside(one: Comparison, found: Sequence[Comparison]) -> str:
    """Say what equal bytes change, over what equal tokens gave."""
    free = next((other for other in found if (other.model, other.equal) == (one.model, TOKENS)), None)
    if free is None or one.prompts < LEAST:
        return ""
    before = {row.name: row.verdict for row in free.rows}
    changed = [row for row in one.rows if row.verdict and row.verdict != before.get(row.name)]
    told = ", ".join(f"{_worded(row.verdict)} {row.name}" for row in changed)
    return f"is at equal bytes ({one.prompts} prompts on {one.model}) {told or 'the same'}"


def _worded(verdict: str) -> str:
    return {
        BETTER: "better than",
        WORSE: "worse than",
        EQUIVALENT: "equivalent to",
        OPEN: "not distinguishable from",
    }[verdict]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
