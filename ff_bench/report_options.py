"""What the report command is asked for beside its folders: a baseline, a blind page, votes to read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ff_bench.errors import UsageError, out_of_range

MOST = 10_000
DEFAULT = 200
"""Pairs of a blind page: an hour or more of watching."""


@dataclass(frozen=True)
class Asked:
    """What a report is asked for.

    Attributes:
        baseline: Policy that differences are taken to.
        blind: Pairs of the blind page at most; 0 makes none.
        votes: Files that a blind page exported.
        columns: Metrics, or patterns of them, that become columns; none means the usual ones.
        margins: Smallest differences worth a claim, by metric, pattern or unit.
    """

    baseline: str = "full"
    blind: int = 0
    votes: tuple[Path, ...] = ()
    columns: tuple[str, ...] = ()
    margins: Mapping[str, float] = field(default_factory=dict)


def read(options: Mapping[str, str], *, is_blind: bool) -> Asked:
    """Read the options of the command line.

    Args:
        options: `baseline`, `blind` (`true`, `false` or a number of pairs), `votes` (files, by commas),
            `metrics` (names or patterns, by commas) and `margin` (`0.3` or `dB:0.3,world.memory:0.02`).
        is_blind: Whether `--blind` stands there as well.

    Raises:
        UsageError: For a value that is not allowed, or a file that is not there.
    """
    from ff_bench.report.margins import parse

    return Asked(
        options.get("baseline", "full"),
        _pairs(options, is_blind),
        _files(options.get("votes")),
        tuple(word.strip() for word in options.get("metrics", "").split(",") if word.strip()),
        parse(options["margin"]) if "margin" in options else {},
    )


def _pairs(options: Mapping[str, str], is_blind: bool) -> int:
    asked = options.get("blind", "true" if is_blind else "false").lower()
    if asked in ("true", "false"):
        return DEFAULT if asked == "true" else 0
    if asked.isascii() and asked.isdigit() and len(asked) < 6 and 1 <= int(asked) <= MOST:
        return int(asked)
    raise out_of_range("blind", options["blind"], f"true, false or a number of pairs from 1 to {MOST}")


def _files(asked: str | None) -> tuple[Path, ...]:
    if asked is None:
        return ()
    words = [asked] if Path(asked).is_file() else asked.split(",")
    for word in words:
        if not Path(word).is_file():
            raise UsageError(
                f"votes={word or asked} is not allowed: votes must be files that the blind page exported, "
                "separated by commas, and this one is not there"
            )
    return tuple(map(Path, words))
