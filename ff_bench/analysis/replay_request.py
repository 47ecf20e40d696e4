"""What a replay is asked to do, read from words: policies under budgets, what is recorded and compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ff_bench.analysis import asking
from ff_bench.compose import compose
from ff_bench.config import RunConfig
from ff_bench.errors import UsageError, out_of_range
from ff_bench.files import user_path

if TYPE_CHECKING:
    from ff_bench.analysis.recording import Choice
    from ff_bench.analysis.replay import Entry

OWN = {
    "policies": "[random,sliding_window,attention_sink,streaming_llm,h2o,future_forcing:merge=none]",
    "budgets": "[1k]", "layers": "all", "heads": "all", "noisy": "auto", "stride": "1", "ahead": "16",
    "reference": "true", "max_gb": "5", "rows": "", "metric": "world.revisit_psnr", "out": "",
}  # fmt: skip
"""Settings of the command; every other word is one of a run."""


@dataclass(frozen=True)
class Request:
    """What was asked.

    Attributes:
        full: the full-cache run that is recorded.
        entries: policies under budgets.
        references: configurations of `greedy_error`.
        choice: what is recorded.
        stride: one of so many query rows is measured.
        ahead: chunks ahead.
        max_bytes: most that recordings may take.
        rows: table of real runs; None compares with nothing.
        metric: of that table.
        out: where results go.
    """

    full: RunConfig
    entries: tuple[Entry, ...]
    references: tuple[RunConfig, ...]
    choice: Choice
    stride: int
    ahead: int
    max_bytes: float
    rows: Path | None
    metric: str
    out: Path


def read(words: Sequence[str]) -> Request:
    """Read the command line and compose every policy under every budget.

    Raises:
        UsageError: with one sentence for the user.
    """
    own, overrides = asking.split("replay", words, OWN)
    full = asking.full_cache(overrides)

    from ff_bench.analysis.recording import Choice

    facts = full.facts
    noisy = _noisy(own["noisy"], full)
    choice = Choice(
        asking.numbers("layers", own["layers"], low=0, high=facts.layers - 1),
        asking.numbers("heads", own["heads"], low=0, high=facts.heads - 1), noisy,
    )  # fmt: skip
    budgets = asking.items("budgets", own["budgets"])
    entries = tuple(
        entry(name, budget, overrides, full) for budget in budgets for name in _policies(own["policies"])
    )
    has_reference = asking.one_of("reference", own["reference"], ("true", "false")) == "true"
    references = [entry("random", budget, overrides, full).config for budget in budgets] * has_reference
    rows = user_path(own["rows"]) if own["rows"] else None
    if rows is not None and not rows.is_file():
        raise out_of_range("rows", own["rows"], "a file of rows, .parquet or .csv")
    return Request(
        full, entries, tuple(references), choice,
        asking.whole("stride", own["stride"], low=1, high=facts.chunk_tokens),
        asking.whole("ahead", own["ahead"], low=1, high=10**4), _gigabytes(own["max_gb"]), rows,
        own["metric"], asking.folder(full, own["out"], "replay"),
    )  # fmt: skip


def entry(name: str, budget: str, overrides: Sequence[str], full: RunConfig) -> Entry:
    """Compose `NAME:FIELD=VALUE:...` under a budget.

    Raises:
        UsageError: for what does not exist, or holds no keys that could be replayed.
    """
    from ff_bench import generate, pipeline
    from ff_bench.analysis.replay import Entry
    from policies.base import Policy

    policy, *fields = name.split(":")
    for field in fields:
        if "=" not in field:
            raise out_of_range("policies", name, "NAME or NAME:FIELD=VALUE:FIELD=VALUE")
    words = [*overrides, f"policy={policy}", f"budget={budget}", *(f"policy.{field}" for field in fields)]
    config = replace(compose(words).config, device=full.device)
    pipeline.check_policy(config)
    if config.budget.tokens is None:
        raise UsageError(
            f"policies={name} with budgets={budget} is not allowed: it keeps everything, the full cache is "
            "what all are measured against"
        )
    made = generate.make_policy(config)
    if type(made).recompute_frames is not Policy.recompute_frames:
        raise UsageError(
            f"policies={name} is not allowed: it makes its keys anew from latents, which are not recorded"
        )
    return Entry(name, config)


def announce(asked: Request) -> str:
    """Say how large the recordings will be.

    Raises:
        UsageError: where that is more than allowed.
    """
    from ff_bench import runs
    from ff_bench.analysis import recording

    facts, choice = asked.full.facts, asked.choice
    each = choice.nbytes(facts, latent_frames=asked.full.length.latent_frames, dtype=asked.full.dtype)
    specs = runs.videos(asked.full)
    missing = sum(recording.read(recording.place(spec, choice)) is None for spec in specs)
    total = each * len(specs)
    told = (
        f"recordings: {len(specs)} videos × {each / 1e9:.3f} GB = {total / 1e9:.2f} GB "
        f"({len(choice.layers)} layers, {len(choice.heads)} heads, {1 + choice.noisy} passes), "
        f"{missing} to be made"
    )
    if total > asked.max_bytes:
        raise UsageError(
            f"max_gb={asked.max_bytes / 1e9:g} is not enough: {told}; choose fewer layers, heads or prompts, "
            f"or allow more by max_gb={math.ceil(total / 1e9)}"
        )
    return told


def _policies(text: str) -> list[str]:
    names = asking.items("policies", text)
    if len(set(names)) < len(names):
        raise out_of_range("policies", text, "a list without repeats")
    return names


def _noisy(text: str, full: RunConfig) -> int:
    """Read how many noisy passes are recorded; by default those that the protocol lets policies observe.

    Only the first of them stands for all, as each costs as much room as the clean pass.
    """
    if text == "auto":
        return 1 if full.protocol.passes == "all" else 0
    noisy = asking.whole("noisy", text, low=0, high=full.steps)
    if noisy == 0 and full.protocol.passes == "all":
        raise out_of_range("noisy", text, "1 or more with protocol.passes=all")
    return noisy


def _gigabytes(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < math.inf:
        raise out_of_range("max_gb", text, "a number of gigabytes above 0")
    return found * 1e9
