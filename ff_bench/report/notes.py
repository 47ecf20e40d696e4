"""What stands around a table in words: title, budgets, and every caveat."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import pandas as pd

from ff_bench import traits
from ff_bench.foreign import FOREIGN
from ff_bench.metrics.base import WHOLE
from ff_bench.models.facts import find
from ff_bench.report.claims import claims
from ff_bench.report.comparison import Column, Line
from ff_bench.report.joining import facts_of, is_foreign

_CONSISTENT = ("subject_consistency", "background_consistency")
_ALIKE = ("subject_similarity", "background_similarity", "coherence")
_SUMS = "parts are missing"
_MOSTLY = 0.5
"""Share of its frames from which on a video is said to be black or to stand still."""
_BETWEEN = "score between clips: "
CONTROLS = ("random", "full")
"""Policies that belong in every table."""


def budget_text(tokens: int | None, key: Mapping[str, object]) -> str:
    """Show a budget as tokens, latent frames, share of the video and share of the training window."""
    if tokens is None:
        return "full"
    facts = find(str(key.get("model")))
    if facts is None:
        return f"{tokens} tokens"
    frames = tokens / facts.frame_tokens
    decoded = int(str(key.get("frames") or 0))
    video = facts.whole_chunks(facts.needed_latents(decoded)) if decoded else 0
    share = f", {100 * frames / video:.0f} % video" if video else ""
    return f"{tokens} ({frames:g}f{share}, {100 * frames / facts.window_frames:.0f} % window)"


def title(key: Mapping[str, object]) -> str:
    """Name what a table compares: model, prompts, length, protocol, steps, device."""
    what = f"{key['model']} · prompts {key['prompt_set']}"
    if not key["frames"]:
        return f"{what} · no video could be read"
    length = f"{round(seconds_of(key), 1):g} s ({key['frames']} frames)"
    if key["checkpoint"] == FOREIGN:
        protocol = "" if key["protocol"] == FOREIGN else f" · protocol {key['protocol']}"
        kind = f"{float(str(key['fps'])):.4g} fps · {key['size']}{protocol}"
        return f"{what} · {length} · {kind} · made elsewhere"
    return (
        f"{what} · {length} · "
        f"protocol {key['protocol']} · {key['steps']} steps · {key['device']} {key['dtype']}"
    )


def seconds_of(key: Mapping[str, object]) -> float:
    """Return the length of a table's videos; 0 where none could be read."""
    fps = float(str(key["fps"]))
    return float(str(key["frames"])) / fps if fps else 0.0


def other_lists(keys: Sequence[Mapping[str, object]]) -> list[str]:
    """Say for each table whether it is apart from another one for its list of prompts alone.

    Args:
        keys: of the tables.

    Returns:
        A sentence for each, empty where there is no such other table.
    """
    rest = [{name: value for name, value in key.items() if not name.startswith("prompt_")} for key in keys]
    told = []
    for place, key in enumerate(keys):
        own = key["prompt_list_sha256"]
        others = {
            f"{other['prompt_set']} {str(other['prompt_list_sha256'])[:8]}"
            for at, other in enumerate(keys)
            if rest[at] == rest[place] and other["prompt_list_sha256"] != own
        }
        text = f"list of prompts {str(own)[:8]}: never pooled with {', '.join(sorted(others))}"
        told.append(text if others else "")
    return told


def lacks_motion(metric: str, there: Collection[str]) -> bool:
    """Say whether a metric is a consistency whose table would not show how much moves.

    A still picture is perfectly consistent: the number means nothing without the dynamic degree beside it.
    """
    family, _, name = metric.rpartition(".")
    if family == "drift":
        return name.startswith(_ALIKE) and "drift.motion" not in there
    return name.startswith(_CONSISTENT) and f"{family}.dynamic_degree" not in there


def caveats(
    lines: Sequence[Line],
    rows: pd.DataFrame,
    baseline: str,
    *,
    columns: Sequence[Column] = (),
    headline: Sequence[str] = (),
) -> list[str]:
    """List what a reader must know before quoting a number.

    Args:
        lines: of the table.
        rows: of its videos.
        baseline: policy that differences are taken to.
        columns: of the table.
        headline: metrics that the table would show if they had values.
    """
    notes = []
    if any(line.policy == baseline for line in lines):
        notes.append(
            f"mean ± half the 95 % interval of the paired difference to {baseline} "
            "(bootstrap over prompts, then seeds); – with one pair"
        )
    else:
        notes.append(f"no video of the baseline {baseline}: ± is half the 95 % interval of the mean itself")
    notes += claims(lines, columns, baseline)
    missing = [name for name in CONTROLS if all(line.policy != name for line in lines)]
    if missing and not is_foreign(rows).all():
        notes.append(f"missing controls: {', '.join(missing)}")
    pinned = sorted({(line.label, _pins(line.policy)) for line in lines if line.is_pinned})
    if pinned:
        notes.append(
            "† protocol fields pinned by the policy: "
            + "; ".join(f"{name} {fields}" for name, fields in pinned)
        )
    if any(line.is_bland for line in lines):
        notes.append(
            "‡ bland: half of the videos or more lost a fifth of their detail or contrast; not ranked"
        )
    notes += _foreign_notes(lines, rows[is_foreign(rows)])
    if len({line.pairs for line in lines}) > 1:
        notes.append("lines rest on different numbers of videos; only the ± compares equal pairs")
    notes += [*_shortfalls(lines), *_failures(rows), *_dead(rows), *_absent(rows, headline)]
    for name, what in (("code_version", "code versions"), ("hardware", "kinds of hardware")):
        seen = sorted({*rows[name].dropna().astype(str)} - {""})
        if len(seen) > 1:
            notes.append(f"rows of several {what}: {', '.join(seen)}")
    return notes


def _foreign_notes(lines: Sequence[Line], rows: pd.DataFrame) -> Iterator[str]:
    """Say what is not known of videos that were not made here."""
    if any(line.is_foreign for line in lines):
        yield (
            "§ not made here: model and prompt are as declared, steps, number format and prefix are not known"
        )
    videos = rows[rows["frames"] > 0].drop_duplicates("video_id")
    if not videos["prompt_text"].fillna("").all():
        yield "prompts are not known of all videos: those pair by the names of their files"
    uneven = sum("rate" in facts_of(fields) for fields in videos["protocol_fields"])
    if uneven:
        yield f"{uneven} videos have a variable frame rate: times are by their average"


def _pins(policy: str) -> str:
    if policy == traits.NATIVE:
        return "those of the model's rule"
    try:
        return " ".join(f"{name}={value}" for name, value in traits.pins(policy).items())
    except (ValueError, ImportError):  # a policy of a user's file that is not here any more
        return "some"


def _shortfalls(lines: Sequence[Line]) -> Iterator[str]:
    """Say which cells rest on fewer videos than their line, and why; one sentence per line and reason."""
    for line in lines:
        found: dict[tuple[int, str], list[str]] = {}
        for name, cell in line.cells.items():
            is_own = line.policy == "full" and name.startswith("fidelity.")
            if cell.pairs < line.pairs and not is_own:
                found.setdefault((cell.pairs, cell.reason), []).append(name)
        for (pairs, reason), names in found.items():
            why = f" ({reason})" if reason else ""
            who = f"{line.label} {line.budget.partition(' ')[0]}"
            yield f"{who}: {pairs} of {line.pairs} videos have {', '.join(names)}{why}"


def _absent(rows: pd.DataFrame, headline: Sequence[str]) -> Iterator[str]:
    """Say which columns are not there since this machine could not make them, or must not stand alone."""
    whole = rows[(rows["clip"] == WHOLE) & rows["metric"].isin(headline)]
    there = set(whole.loc[whole["status"] == "ok", "metric"])
    lost = whole[(whole["status"] == "unavailable") & ~whole["metric"].isin(there)]
    reasons: dict[str, dict[str, None]] = {}
    for metric, reason in zip(lost["metric"], lost["reason"].astype(str), strict=True):
        short = _SUMS if reason.startswith(_SUMS) else reason.removeprefix(_BETWEEN)
        if all(metric not in names for names in reasons.values()):  # the first reason is enough
            reasons.setdefault(short, {})[metric] = None
    yield from (f"unavailable: {_together([*names])} ({reason})" for reason, names in reasons.items())
    alone = [name for name in headline if name in there and lacks_motion(name, there)]
    if alone:
        yield f"not shown without a dynamic degree, as a still video would win: {_together(alone)}"


def _together(names: Sequence[str]) -> str:
    """List metrics, with the family that they share once."""
    families: dict[str, list[str]] = {}
    for name in names:
        family, _, measure = name.rpartition(".")
        families.setdefault(family, []).append(measure)
    return "; ".join(f"{family} {', '.join(measures)}" for family, measures in families.items())


def _dead(rows: pd.DataFrame) -> Iterator[str]:
    """Count the videos that show nothing: their numbers stand in the table, and mean little."""
    whole = rows[(rows["clip"] == WHOLE) & (rows["status"] == "ok") & (rows["value"] >= _MOSTLY)]
    for metric, what in (("guards.black", "are black"), ("guards.still", "stand still")):
        for policy, part in whole[whole["metric"] == metric].groupby("policy", sort=True):
            yield f"{policy}: {part['video_id'].nunique()} videos {what} in half of their frames or more"


def _failures(rows: pd.DataFrame) -> Iterator[str]:
    """Count the videos and metrics that failed or were skipped, with the first reason."""
    broken = rows[
        rows["metric"].astype(str).str.endswith("error") & rows["status"].isin(["failed", "skipped"])
    ]
    for (policy, metric, status), part in broken.groupby(["policy", "metric", "status"], sort=True):
        what = "videos" if metric == "error" else f"videos at metrics={str(metric).partition('.')[0]}"
        yield f"{policy}: {part['video_id'].nunique()} {what} {status} ({part['reason'].iloc[0]})"
