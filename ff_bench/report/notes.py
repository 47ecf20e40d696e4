"""What stands around a table in words: title, budgets, and every caveat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from ff_bench import traits
from ff_bench.models.facts import find
from ff_bench.report.comparison import Line

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
    seconds = float(str(key["frames"])) / float(str(key["fps"]))
    return (
        f"{key['model']} · prompts {key['prompt_set']} · {round(seconds, 1):g} s ({key['frames']} frames) · "
        f"protocol {key['protocol']} · {key['steps']} steps · {key['device']} {key['dtype']}"
    )


def caveats(lines: Sequence[Line], rows: pd.DataFrame, baseline: str) -> list[str]:
    """List what a reader must know before quoting a number."""
    notes = []
    if any(line.policy == baseline for line in lines):
        notes.append(
            f"mean ± half the 95 % interval of the paired difference to {baseline} "
            "(bootstrap over prompts, then seeds); – with one pair"
        )
    else:
        notes.append(f"no video of the baseline {baseline}: ± is half the 95 % interval of the mean itself")
    missing = [name for name in CONTROLS if all(line.policy != name for line in lines)]
    if missing:
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
    if len({line.pairs for line in lines}) > 1:
        notes.append("lines rest on different numbers of videos; only the ± compares equal pairs")
    notes += [*_shortfalls(lines), *_failures(rows)]
    for name, what in (("code_version", "code versions"), ("hardware", "kinds of hardware")):
        seen = sorted(rows[name].dropna().astype(str).unique())
        if len(seen) > 1:
            notes.append(f"rows of several {what}: {', '.join(seen)}")
    return notes


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


def _failures(rows: pd.DataFrame) -> Iterator[str]:
    """Count the videos and metrics that failed or were skipped, with the first reason."""
    broken = rows[
        rows["metric"].astype(str).str.endswith("error") & rows["status"].isin(["failed", "skipped"])
    ]
    for (policy, metric, status), part in broken.groupby(["policy", "metric", "status"], sort=True):
        what = "videos" if metric == "error" else f"videos at metrics={str(metric).partition('.')[0]}"
        yield f"{policy}: {part['video_id'].nunique()} {what} {status} ({part['reason'].iloc[0]})"
