"""Break generate, score, report, sweeps and analyses in every way, start them again, and compare the results.

    python scripts/torture.py --faults 200 --seed 7

A *story* is one command (`scripts/recipes.py`) on a folder of its own: it meets a few faults at random steps
(`scripts/faults.py`: signals, memory of the machine and of a device, full and read-only disks, writes cut
short, a codec that fails or dies, a scorer that hangs, a policy that never returns, a GPU that vanishes; in
the runner or in a worker), is started again after each, and at last ends undisturbed. After every fault what
was finished must be as it was, and the command must have said one sentence and its exit code, within two
seconds of a signal. In the end rows, frames and what else is kept must equal those of an undisturbed run,
nothing may be half-written and nothing finished may have been computed twice. The model is a tiny one with
random weights, so that a story takes seconds. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from faults import EVERYWHERE, INSIDE, KINDS, PLACES, RUNNER, SIGNALLED, WORKER, WRITING, Fault, Ledger
from recipes import FOLDER, ORDER, RECIPES, VIDEOS, Recipe
from victims import Attempt, attempt, rehearse
from wreckage import State, differences, halves, lend, look

PROMPT = 2.0
"""Seconds within which a command ends after Ctrl-C or SIGTERM."""
OWN_CALLS = {"codec": 200, "codec_kill": 200, "gpu": 20, "gpu_memory": 20, "stuck": 40}
"""Calls of the codec, the model and a policy within which they fail."""
BUSIEST = 0.6
"""Share of the steps of the busiest worker that most of them make."""
AT_WRITING = 0.4
"""Share of the faults that strike where files are written, which is a small part of all steps."""


@dataclass
class Tally:
    """What a campaign has seen.

    Attributes:
        faults: that came about, by kind and place.
        restarts: of a command after a fault.
        stories: that have ended.
        lost: finished videos or scores that were gone or changed after a fault.
        wrong: sentences, one per result that differs or promise that was broken.
        slowest: longest time from a signal to the end of its command, in seconds.
    """

    faults: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    stories: int = 0
    lost: int = 0
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0


class Campaign:
    """Stories over recipes in turn until enough faults have come about."""

    def __init__(self, folder: Path, *, seed: int, recipes: Sequence[Recipe] = RECIPES) -> None:
        """Run every recipe undisturbed, which also counts the calls at which faults may strike."""
        self._folder = folder
        self._seed = seed
        self._recipes = {recipe.name: recipe for recipe in recipes}
        self._order = [name for name in ORDER if name in self._recipes]
        self._calls: dict[tuple[str, str, str], int] = {}
        self._whole: dict[str, State] = {}
        self.tally = Tally()
        rehearse()
        needed = {recipe.after for recipe in recipes} | {recipe.name for recipe in recipes} | {"generate"}
        for recipe in (recipe for recipe in RECIPES if recipe.name in needed):
            self._leave_alone(recipe)
            if recipe.name == "generate":
                lend(self._folder / recipe.name / "undisturbed", self._folder / VIDEOS)

    def _leave_alone(self, recipe: Recipe) -> None:
        """Run a recipe undisturbed."""
        ledger, folder = Ledger(), self._place(recipe, "undisturbed")
        done = attempt(self._words(recipe, folder), None, ledger)
        if done.code:
            raise SystemExit(f"the undisturbed '{recipe.name}' failed:\n{done.told}")
        for place, steps in PLACES:
            self._calls[recipe.name, place, steps] = ledger.calls(place, steps)
        self._whole[recipe.name] = look(folder)

    def run(self, faults: int) -> Tally:
        """Tell stories until so many faults have come about."""
        number = 0
        while self.tally.faults.total() < faults and number < 5 * faults:
            recipe = self._recipes[self._order[number % len(self._order)]]
            draw = random.Random(f"{self._seed}/{number}")
            before = Counter(self.tally.faults)
            self._story(
                recipe,
                draw,
                f"story {number} ({recipe.name})",
                min(draw.randint(2, 6), faults - before.total()),
            )
            met = ", ".join(f"{kind} × {count}" for kind, count in (self.tally.faults - before).items())
            print(
                f"story {number} ({recipe.name}, seed {self._seed}/{number}): {met or 'no fault'}", flush=True
            )
            number += 1
        return self.tally

    def _place(self, recipe: Recipe, name: str) -> Path:
        """Make the folder that a recipe starts from."""
        folder = self._folder / recipe.name / name
        if recipe.after:
            shutil.copytree(self._folder / recipe.after / "undisturbed", folder)
        return folder

    def _words(self, recipe: Recipe, folder: Path) -> list[str]:
        videos = str(self._folder / VIDEOS)
        return [word.replace(FOLDER, str(folder)).replace(VIDEOS, videos) for word in recipe.words]

    def _story(self, recipe: Recipe, draw: random.Random, name: str, faults: int) -> None:
        folder = self._place(recipe, "story")  # the same for all: a configuration is composed once
        words = self._words(recipe, folder)
        for _ in range(faults):
            before, ledger = look(folder), Ledger()
            fault = self._fault(recipe, draw, left=self._left(recipe, before))
            absent = fault.kind == "absent_gpu"
            asked = [word.replace("device=cpu", "device=cuda:0") for word in words] if absent else words
            done = attempt(asked, fault, ledger)
            told = f"{name}, {fault}"
            self._judge(told, fault, done, ledger=ledger, seen=(before, look(folder)), recipe=recipe)
            self.tally.restarts += 1
            if not ledger.struck and done.code == 0:
                break
            self.tally.faults[f"{fault.kind}/{fault.place}"] += bool(ledger.struck)
        done = attempt(words, None, Ledger())
        self._compare(name, recipe, done, folder)
        self.tally.stories += 1
        shutil.rmtree(folder)

    def _left(self, recipe: Recipe, state: State) -> float:
        """Estimate the share of the calls of a command that is left to do."""
        whole = self._whole[recipe.name]
        begun = self._whole[recipe.after].size if recipe.after else 0
        return 1 - 0.8 * (state.size - begun) / max(1, whole.size - begun)

    def _fault(self, recipe: Recipe, draw: random.Random, *, left: float) -> Fault:
        kind = draw.choice(recipe.kinds)
        place = draw.choice([place for place in recipe.places if place in KINDS[kind]])
        if kind in INSIDE and WORKER in recipe.places:
            place = WORKER  # the runner encodes, generates and scores nothing there
        steps = WRITING if draw.random() < AT_WRITING else EVERYWHERE
        calls = OWN_CALLS.get(kind, self._calls[recipe.name, place, steps])
        reach = BUSIEST if place == WORKER else 1.0
        call = 1 + int(left * reach * calls * draw.random())
        return Fault(kind, place, call, draw.random() < 0.7, draw.randint(0, 30_000), steps)

    def _judge(
        self,
        name: str,
        fault: Fault,
        done: Attempt,
        *,
        ledger: Ledger,
        seen: tuple[State, State],
        recipe: Recipe,
    ) -> None:
        """Check what must hold after every fault."""
        (before, after), allowed = seen, _codes(fault, recipe)
        lost = before.lost_in(after)
        self.tally.lost += len(lost)
        found = [f"lost: {what}" for what in lost]
        found += [f"half-written: {what}" for what in halves(after.folder, parts=False)]
        if ledger.struck and done.code not in allowed:
            found.append(f"exit code {done.code}, allowed are {allowed}")
        if "Traceback" in done.told:
            found.append("a traceback reached the user")
        if ledger.struck and fault.kind in SIGNALLED and (fault.place == RUNNER or fault.kind == "stuck"):
            seconds = done.ended - ledger.moment
            self.tally.slowest = max(self.tally.slowest, seconds)
            if seconds > PROMPT:
                found.append(f"ended {seconds:.1f} s after its signal")
            if "same command: ff-bench" not in done.told:
                found.append("did not say how to go on")
        for sentence in found:
            self._note(f"{name}: {sentence}", done)

    def _compare(self, name: str, recipe: Recipe, done: Attempt, folder: Path) -> None:
        """Check what must hold when a story has ended undisturbed."""
        found = [f"exit code {done.code}"] if done.code else []
        found += differences(self._whole[recipe.name], look(folder), exact=recipe.is_exact)
        found += [f"half-written: {what}" for what in halves(folder, parts=True)]
        for sentence in found:
            self._note(f"{name}, in the end: {sentence}", done)

    def _note(self, sentence: str, done: Attempt) -> None:
        print(f"WRONG {sentence}\n{done.told}", flush=True)
        self.tally.wrong.append(sentence)


def _codes(fault: Fault, recipe: Recipe) -> tuple[int, ...]:
    """Return the exit codes that a command may have after a fault."""
    if fault.place == WORKER and fault.kind != "stuck":
        return (0, 1)  # its work may be done by another one
    if fault.kind == "codec" and recipe.name == "foreign":
        return (0, 1)  # a sheet of pictures may leave one out
    return {
        "kill": (-9,), "codec_kill": (-9,), "terminate": (143,), "interrupt": (130,), "stuck": (130,),
        "absent_gpu": (2,), "codec": (1,), "gpu": (1,), "gpu_memory": (1,), "hang": (1,),
    }.get(fault.kind, (0, 1))  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Run a campaign; 0 where nothing was lost and nothing is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, help="of kinds and places; printed where it is drawn")
    parser.add_argument(
        "--recipes",
        default=",".join(recipe.name for recipe in RECIPES),
        help="of these commands only, by comma",
    )
    options = parser.parse_args(words)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    chosen = [recipe for recipe in RECIPES if recipe.name in options.recipes.split(",")]
    with TemporaryDirectory(prefix="torture-") as name:
        os.environ["FF_BENCH_CACHE"] = f"{name}/cache"  # digests of files are remembered there
        tally = Campaign(Path(name), seed=seed, recipes=chosen).run(options.faults)
    faults = tally.faults.total()
    print(
        f"{faults} faults, {tally.restarts} restarts, {tally.lost} videos or scores lost, "
        f"{len(tally.wrong)} wrong results; a signal ended its command in {tally.slowest:.2f} s at most"
    )
    print(json.dumps({
        "seed": seed, "faults": faults, "restarts": tally.restarts, "stories": tally.stories,
        "lost": tally.lost, "wrong": len(tally.wrong), "slowest_end_s": round(tally.slowest, 2),
        "seconds": round(time.monotonic() - began), "kinds": dict(sorted(tally.faults.items())),
    }))  # fmt: skip
    return 0 if faults >= options.faults and not tally.wrong else 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
