"""What a challenge is asked to do, read from words: the policy, how long, and where results go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import policies
from ff_bench import check_policy_command, checks
from ff_bench.compose import compose
from ff_bench.config import RunConfig
from ff_bench.errors import UsageError, out_of_range
from ff_bench.files import user_path

RIVALS = ("full", "random", "sliding_window", "attention_sink", "h2o", "future_forcing", "working_set")
"""Policies that every policy is compared with; the last is the best known here."""
OWN = ("out", "minutes", "workers", "budget", "runs_dir")
FLAG = "--dry-run"


@dataclass(frozen=True)
class Request:
    """What was asked.

    Attributes:
        policy: `policy=...` and `policy.FIELD=...`.
        label: its name in tables.
        rivals: what it is compared with.
        budget: context tokens, as words of a run have it.
        minutes: most that all of it may take.
        workers: processes side by side.
        runs_dir: where videos are kept, from one challenge to the next.
        out: folder of the page.
        is_dry: whether only the plan is shown.
    """

    policy: tuple[str, ...]
    label: str
    rivals: tuple[str, ...]
    budget: str
    minutes: float
    workers: int
    runs_dir: Path
    out: Path
    is_dry: bool = False


def read(words: Sequence[str]) -> Request:
    """Read the command line; nothing of the policy is loaded.

    Raises:
        UsageError: with one sentence for the user.
    """
    own = dict(word.split("=", 1) for word in words if word.partition("=")[0] in OWN and "=" in word)
    rest = [word for word in words if word.partition("=")[0] not in OWN and word != FLAG]
    settings = [*(f"{name}=..." for name in OWN), FLAG]
    name, fields = check_policy_command.read("challenge", rest, settings)
    label = Path(name).stem if name.endswith(".py") else name
    if label in RIVALS and name.endswith(".py"):
        raise UsageError(
            f"policy={name} is not allowed: tables would call it {label} as they call a policy of ours, "
            "rename the file"
        )
    if label in ("full", "native"):
        raise UsageError(f"policy={label} is not allowed: it is what the others are measured against")
    runs_dir = user_path(own.get("runs_dir", "runs"))
    out = user_path(own["out"]) if "out" in own else runs_dir / "challenges" / label
    if out.exists() and not out.is_dir():
        raise out_of_range("out", str(out), "a directory")
    rivals = tuple(rival for rival in RIVALS if rival != label and rival in policies.POLICIES)
    return Request(
        (f"policy={name}", *fields), label, rivals,
        own.get("budget", "1k"), _minutes(own.get("minutes", "10")),
        _whole("workers", own.get("workers", "2")), runs_dir, out, FLAG in words,
    )  # fmt: skip


def composed(asked: Request, policy: Sequence[str], words: Sequence[str]) -> RunConfig:
    """Compose one run of a challenge.

    Args:
        asked: of the challenge.
        policy: words that choose the policy.
        words: of the run.

    Raises:
        UsageError: with field, value and what is allowed.
    """
    common = [f"budget={asked.budget}", f"workers={asked.workers}", f"runs_dir='{asked.runs_dir}'"]
    return compose([*policy, *common, *words]).config


def _minutes(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 1 <= found <= 10_000:
        raise out_of_range("minutes", text, "a number of minutes from 1 to 10000")
    return found


def _whole(field: str, text: str) -> int:
    return checks.whole(field, int(text) if text.isascii() and text.isdigit() else text, low=1, high=256)
