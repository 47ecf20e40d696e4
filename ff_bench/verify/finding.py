"""What a check found, and a guard that turns whatever a check raises into a finding."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

LOGGER = logging.getLogger(__name__)
State = Literal["PASS", "FAIL", "SKIP"]


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        name: of the check.
        state: PASS, FAIL or SKIP.
        seen: what was measured, or why nothing was.
    """

    name: str
    state: State
    seen: str


def judged(name: str, is_good: bool, seen: str) -> Finding:
    """Return PASS or FAIL."""
    return Finding(name, "PASS" if is_good else "FAIL", seen)


def skipped(name: str, reason: str) -> Finding:
    """Return SKIP."""
    return Finding(name, "SKIP", reason)


def guarded(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield what a check finds; what it raises is a FAIL, so that the checks behind it still run.

    Args:
        name: of the line where it raises.
        check: makes the findings.
    """
    began = time.perf_counter()
    try:
        yield from check()
    except Exception as error:  # the table must be complete whatever breaks
        LOGGER.debug("check %s", name, exc_info=True)
        told = " ".join(str(error).split()) or type(error).__name__
        yield Finding(name, "FAIL", told[:300])
    LOGGER.info("%s: %.1f s", name, time.perf_counter() - began)
