"""`ff-bench challenge FILE|NAME [policy.FIELD=...] [out=DIR] [minutes=10]`: one file in, one page out."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ff_bench.challenge.request import Request, read

if TYPE_CHECKING:
    from pathlib import Path

    from ff_bench.challenge.plan import Step
    from ff_bench.challenge.replaying import Replayed
    from policies.checking import Result

AFTER = 40.0
"""Seconds that are kept for the page."""
PACE = 1.25
"""Seconds taken per second estimated, before it is measured: scores and starting up are not estimated."""
FIRST, GROUP = 2, 4
"""Steps that are started together, the first ones to learn the pace; the clock is read between groups."""
NEEDED = ("runs", "scores are numbers")
"""Properties without which no video is worth making."""


@dataclass
class Made:
    """What a challenge has made so far.

    Attributes:
        results: of the properties.
        steps: whose videos are there.
        failures: a sentence per video that failed.
        replayed: the replay, or why there is none.
    """

    results: list[Result] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    replayed: Replayed | None = None
    no_replay: str = ""


def run(words: Sequence[str]) -> int:
    """Examine, replay, generate, score, write the page; the last line is JSON.

    Args:
        words: of the command line after `challenge`.

    Returns:
        0 done · 1 a property or a video failed.

    Raises:
        UsageError: with one sentence for the user.
    """
    asked = read(words)
    if asked.is_dry:
        _plan(asked, 0.0)
        return 0
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    began, made = time.monotonic(), Made()
    every: list[Step] = []
    if _examine(asked, made):
        _replay(asked, made)
        every = _plan(asked, time.monotonic() - began)
        _make(asked, every, made, began)
    page, verdict = _write(asked, every, made)
    seconds = round(time.monotonic() - began)
    print(f"\n{verdict}\n\npage    {page}")
    for sentence in made.failures:
        print(f"failed: {sentence}")
    print(json.dumps({
        "policy": asked.label, "verdict": verdict, "page": str(page), "steps": len(made.steps),
        "failed": len(made.failures), "properties": _count(made.results), "seconds": seconds,
    }))  # fmt: skip
    return 1 if made.failures or any(one.status == "failed" for one in made.results) else 0


def _examine(asked: Request, made: Made) -> bool:
    """Examine the properties, tell those that failed, and say whether videos are worth making."""
    from ff_bench.challenge import examination

    for result in examination.examine(asked.policy):
        made.results.append(result)
        if result.status == "failed":
            print(f"failed: {result.name}: {result.reason}", flush=True)
    print(f"properties: {_count(made.results)}", flush=True)
    return not any(one.status == "failed" and one.name in NEEDED for one in made.results)


def _plan(asked: Request, elapsed: float) -> list[Step]:
    """Show what will be made in the time that is left, and return every step that could be."""
    from ff_bench.challenge import plan

    every = plan.steps(asked)
    chosen = plan.fit(every, _seconds(asked, elapsed) / PACE)
    print(plan.describe(asked, chosen, every), flush=True)
    return every


def _seconds(asked: Request, elapsed: float) -> float:
    """Return the seconds of one core that are left for videos."""
    return max(0.0, (60 * asked.minutes - elapsed - AFTER) * asked.workers)


def _count(results: Sequence[Result]) -> str:
    from policies.checking import FAILED, NOT_APPLICABLE, PASSED

    states = [result.status for result in results]
    return ", ".join(f"{states.count(state)} {state}" for state in (PASSED, FAILED, NOT_APPLICABLE))


def _replay(asked: Request, made: Made) -> None:
    from ff_bench import errors
    from ff_bench.challenge import replaying

    try:
        made.replayed = replaying.replay(asked, asked.out)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a ValueError is a policy's own sentence: it does not fit what was recorded
        made.no_replay = str(error) if isinstance(error, ValueError) else errors.told(error)
        print(f"no replay: {made.no_replay}")


def _make(asked: Request, every: Sequence[Step], made: Made, began: float) -> None:
    """Make videos step by step until the next ones would take too long."""
    from ff_bench import pipeline
    from ff_bench.bars import Bars
    from ff_bench.challenge import plan

    pace = PACE
    while len(made.steps) < len(every):
        rest = every[len(made.steps) :][: GROUP if made.steps else FIRST]
        group = plan.fit(rest, _seconds(asked, time.monotonic() - began) / pace, least=not made.steps)
        if not group:
            return
        bars, started = Bars(), time.monotonic()
        try:
            outcome = pipeline.execute([config for step in group for config in step.configs], progress=bars)
        finally:
            bars.close()
        estimate = sum(step.seconds for step in group)
        pace = (time.monotonic() - started) * asked.workers / estimate if estimate else pace
        made.steps += group
        made.failures += outcome.failures
        print(f"{len(made.steps)} prompts done after {time.monotonic() - began:.0f} s", flush=True)


def _write(asked: Request, every: Sequence[Step], made: Made) -> tuple[Path, str]:
    """Write the page; of a policy that cannot run it has the properties alone."""
    from ff_bench import files, records, report, runs
    from ff_bench.challenge import front, plan, verdict
    from ff_bench.report.page import write_page

    specs = {
        spec.folder: spec for step in made.steps for config in step.configs for spec in runs.videos(config)
    }
    folders = [folder for folder in specs if folder.is_dir()]
    rows = records.table(folders)
    is_there = len(rows) > 0 and asked.label in set(rows["policy"])  # not where all of its videos failed
    found = verdict.compare(rows, asked.label) if is_there else []
    told = verdict.sentence(found, asked.label)
    if not made.steps:
        told = f"{asked.label} cannot be compared: {next(one.reason for one in made.results if one.reason)}."
    first = front.render(
        asked.label, told, made.results, found,
        left_out=plan.left_out(made.steps, every) if made.steps else "all videos",
        figure=made.replayed.figure if made.replayed else None,
        figure_note=made.replayed.note if made.replayed else made.no_replay,
    )  # fmt: skip
    asked.out.mkdir(parents=True, exist_ok=True)
    if len(rows):
        baseline = asked.label if is_there else "full"
        return report.make(folders, asked.out, baseline=baseline, front=first).paths[0], told
    page = write_page(asked.out, [], {}, shown={}, front=first)
    files.sweep_up(asked.out, deep=False)
    return page, told
