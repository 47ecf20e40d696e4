"""Fuzzed command lines: every field with odd values, odd words of every command; nothing is run for real."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from ff_bench.commands import COMMANDS, FLAGS
from fuzzing import odd
from fuzzing.judge import Target, command

KEYS = (
    "model", "policy", "protocol", "metrics", "tracker", "budget", "length", "prompts", "limit", "ids",
    "subset", "seed", "steps", "dtype", "batch", "device", "workers", "score_minutes", "stages", "save",
    "overwrite", "dry_run", "runs_dir",
    "policy.lam", "policy.name", "policy.wrap", "protocol.sink", "protocol.recent", "protocol.passes",
    "protocol.prefix", "protocol.position", "protocol.query_stride", "protocol.share", "protocol.unit",
    "protocol.denominator", "protocol.charge_state", "protocol.noise", "model.height", "model.steps",
    "model.name", "model.native", "metrics.drift", "tracker.name", "hydra.mode", "hydra.launcher",
    "hydra/launcher", "experiment",
)  # fmt: skip
GOOD = (
    "policy=h2o", "policy=full", "budget=1k", "length=6s", "seed=[0,1]", "prompts=orbit", "limit=2",
    "protocol=published", "model=self_forcing", "policy=future_forcing", "steps=2", "device=cpu", "-m",
)  # fmt: skip
BEFORE = ("", "", "", "", "", "+", "++", "~", "-", "--", " ", "@")
"""What stands before a key."""
SAFE = {"--config-dir", "--package", "--cfg", "--info"}
"""Flags that take a value."""


def composition(draw: random.Random, _: Path) -> None:
    """Compose and check a configuration with odd overrides; it is planned, not run."""
    words = [draw.choice(GOOD) for _number in range(draw.randrange(2))]
    for _number in range(draw.randrange(1, 3)):
        words.append(f"{draw.choice(BEFORE)}{odd.some(draw, KEYS)}{draw.choice('====: ')}{odd.text(draw)}")
    draw.shuffle(words)
    command([word for word in words if word not in ("-h", "--help")] + ["--dry-run"])


def flag(draw: random.Random, _: Path) -> None:
    """Give flags odd values."""
    words = [odd.some(draw, FLAGS), odd.text(draw), odd.some(draw, GOOD)][: draw.randrange(1, 4)]
    draw.shuffle(words)
    command([*words, "--dry-run"])


def other(draw: random.Random, folder: Path) -> None:
    """Give other commands words that are no good; those that would work for long get no good ones."""
    name = draw.choice(
        [name for name in COMMANDS if name not in ("run", "doctor", "stationarity", "challenge", "replay")]
    )
    words = [_word(draw, folder) for _ in range(draw.randrange(4))]
    command([odd.some(draw, [name]), *words])


def long(draw: random.Random, _: Path) -> None:
    """Give commands that work for long a word that none of them takes."""
    words = [odd.text(draw) for _ in range(draw.randrange(3))]
    command([draw.choice(("stationarity", "challenge", "replay", "doctor")), *words, "no_such_field=1"])


def unknown(draw: random.Random, _: Path) -> None:
    """Name a command that does not exist."""
    name = odd.text(draw)
    command([f"x{name}".replace("=", ""), odd.text(draw)])


def _word(draw: random.Random, folder: Path) -> str:
    words: Sequence[str] = (
        "list", "verify", "models", "runs", "policies", "out=x", "baseline=h2o", "metrics=*", "margin=0.1",
        "--blind", "blind=3", "votes=a.json", "tracker=none", "model=mini", "prompts=a.csv", "--csv",
        "--from", str(folder), "a.mp4", "VIDEOS", "no_such_file",
    )  # fmt: skip
    return odd.some(draw, words) if draw.random() < 0.6 else odd.text(draw)


TARGETS = (
    Target("compositions", composition, 3),
    Target("flags", flag, 0.5),
    Target("other commands", other, 1.5),
    Target("long commands", long, 0.5),
    Target("unknown commands", unknown, 2),
)
