"""Votes of the blind page: read back, checked, and joined with the assignment that tells whose they are."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ff_bench.errors import UsageError
from ff_bench.report.trials import LEFT, RIGHT, TIE, Key, Trial, key_name, read_key

FORMAT, VERSION = "ff-bench votes", 1
CHOICES = (LEFT, RIGHT, TIE)
_FIELDS = ("format", "version", "assignment", "voter", "votes", "checksum")
_LARGEST = 32 * 2**20  # bytes; a vote takes about 60


@dataclass(frozen=True)
class Vote:
    """What one voter said of one trial.

    Attributes:
        choice: `left`, `right` or `tie`.
        ms: Milliseconds from the sight of the pair to the vote.
    """

    choice: str
    ms: int


@dataclass(frozen=True)
class Ballot:
    """One vote file.

    Attributes:
        path: Where it lies.
        assignment: Digest of the assignment.
        voter: Made-up name of the browser in which it was filled.
        votes: By the name of the trial.
    """

    path: Path
    assignment: str
    voter: str
    votes: Mapping[str, Vote]


@dataclass(frozen=True)
class Preference:
    """One vote with the two videos that it is about.

    Attributes:
        trial: The two videos.
        score: Of the left one: 1 preferred, 0.5 tie, 0 not preferred.
        voter: Who voted.
    """

    trial: Trial
    score: float
    voter: str


def checksum(assignment: str, voter: str, votes: Mapping[str, Vote]) -> str:
    """Return CRC-32 (8 hexadecimal digits) of what a file says: against accidents, not against fraud."""
    lines = [f"{trial} {vote.choice} {vote.ms}" for trial, vote in votes.items()]
    return f"{zlib.crc32(chr(10).join([assignment, voter, *lines]).encode()):08x}"


def read(paths: Iterable[Path]) -> list[Ballot]:
    """Read vote files.

    Raises:
        UsageError: Where one is absent, is no vote file, was edited, or votes twice in one voter's name.
    """
    ballots: list[Ballot] = []
    for path in paths:
        ballot = _ballot(path, _content(path))
        for other in ballots:
            twice = (other.assignment, other.voter) == (ballot.assignment, ballot.voter)
            if twice and other.votes.keys() & ballot.votes.keys():
                raise UsageError(
                    f"votes={path} is not allowed: {other.path} holds votes of the same voter on the same "
                    "pairs; name the later file alone"
                )
        ballots.append(ballot)
    return ballots


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"votes={path} is not allowed: there is no such file")
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is too large")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"votes={path} is not allowed: it is no JSON ({str(error)[:80]})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UsageError(f"votes={path} is not allowed: it is no file that the blind page exported")
    if content.get("version") != VERSION:
        told = str(content.get("version"))[:20]
        raise UsageError(f"votes={path} has version {told}, this ff-bench reads version {VERSION}")
    return content


def _ballot(path: Path, content: Mapping[str, Any]) -> Ballot:
    """Check fields and checksum.

    Raises:
        UsageError: Where anything is not as the page writes it.
    """
    assignment, voter, listed = (content.get(name) for name in ("assignment", "voter", "votes"))
    votes: dict[str, Vote] = {}
    is_whole = (
        set(content) == set(_FIELDS)
        and isinstance(assignment, str)
        and re.fullmatch(r"[0-9a-f]{64}", assignment) is not None
        and isinstance(voter, str)
        and re.fullmatch(r"[0-9a-f]{12}", voter) is not None
        and isinstance(listed, list)
        and all(_add(votes, item) for item in listed)
    )
    if not is_whole or content["checksum"] != checksum(str(assignment), str(voter), votes):
        raise UsageError(f"votes={path} is not allowed: it was cut or edited since the page exported it")
    return Ballot(path, str(assignment), str(voter), votes)


def _add(votes: dict[str, Vote], item: object) -> bool:
    """Add one vote; False where it is none, or the second on its trial."""
    if not isinstance(item, dict) or set(item) != {"trial", "choice", "ms"}:
        return False
    trial, choice, ms = item["trial"], item["choice"], item["ms"]
    is_vote = isinstance(trial, str) and choice in CHOICES and type(ms) is int and ms >= 0
    if not is_vote or trial in votes:
        return False
    votes[trial] = Vote(choice, ms)
    return True


def preferences(ballots: Sequence[Ballot], folders: Sequence[Path]) -> list[Preference]:
    """Join votes with their assignments.

    Args:
        ballots: What was voted.
        folders: Where keys may lie, at any depth; one beside its votes is found as well.

    Raises:
        UsageError: Where a key is not there, or lacks a trial.
    """
    return [found for ballot in ballots for found in _joined(ballot, folders)]


def _joined(ballot: Ballot, folders: Sequence[Path]) -> Iterator[Preference]:
    key = _find_key(ballot, folders)
    trials = {trial.trial: trial for trial in key.trials}
    scores = {LEFT: 1.0, RIGHT: 0.0, TIE: 0.5}
    for name, vote in ballot.votes.items():
        if name not in trials:
            raise UsageError(f"votes={ballot.path} is not allowed: its assignment has no pair '{name[:20]}'")
        yield Preference(trials[name], scores[vote.choice], ballot.voter)


def _find_key(ballot: Ballot, folders: Sequence[Path]) -> Key:
    """Find the assignment with the right digest; a file that was changed has another and does not count."""
    name = key_name(ballot.assignment)
    below = (path for folder in folders if folder.is_dir() for path in sorted(folder.rglob(name)))
    for path in chain([ballot.path.parent / name], below):
        key = read_key(path)
        if key is not None and key.digest == ballot.assignment:
            return key
    raise UsageError(
        f"votes={ballot.path} is of another comparison: its key {name}, which report --blind wrote beside "
        "the page, is not below RUNS, in out or beside the votes, or was changed"
    )
