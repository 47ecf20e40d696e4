"""Which videos a challenge makes: as many prompts as its minutes allow, from what such videos have cost here.

A step is one prompt on one checkpoint with every policy, so that every step alone is a fair comparison. Steps
have a fixed order; what rivals have finished in an earlier challenge costs nothing, so that a later one gets
further.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from ff_bench import plan as planning
from ff_bench import runs
from ff_bench.challenge.request import Request, composed
from ff_bench.config import RunConfig
from ff_bench.making import make_policy

LENGTH = "15s"
TOKENS, BYTES = "tokens", "bytes"
"""What is equal: context tokens, or bytes of keys, values and state."""
PROMPTS = {
    "mini": Path(__file__).with_name("challenge.txt"),
    "mini_short": Path(__file__).with_name("challenge_short.txt"),
}
ROUNDS: tuple[tuple[str, str, int, int], ...] = (
    ("mini", TOKENS, 0, 5), ("mini_short", TOKENS, 0, 4), ("mini", BYTES, 0, 5), ("mini", TOKENS, 5, 10),
    ("mini_short", TOKENS, 4, 9), ("mini_short", BYTES, 0, 4), ("mini", BYTES, 5, 10),
    ("mini", TOKENS, 10, 20), ("mini_short", BYTES, 4, 9), ("mini", BYTES, 10, 20),
    ("mini_short", TOKENS, 9, 18), ("mini", TOKENS, 20, 30), ("mini_short", BYTES, 9, 18),
    ("mini", BYTES, 20, 30),
)  # fmt: skip
"""Checkpoint, what is equal, and prompts from .. to of its list. Nine prompts are the least that can tell
seven policies apart after Holm's correction, so that these come before anything else."""
METRICS = "metrics=[world,guards,cost]"


@dataclass(frozen=True)
class Step:
    """One prompt on one checkpoint with every policy.

    Attributes:
        model: checkpoint.
        equal: tokens or bytes.
        prompt: id.
        configs: runs of one video each.
        seconds: of one core that are left to do, estimated.
    """

    model: str
    equal: str
    prompt: str
    configs: tuple[RunConfig, ...]
    seconds: float

    @property
    def world(self) -> str:
        """Of its prompt."""
        return self.prompt.partition("-")[0]


def steps(asked: Request) -> list[Step]:
    """List every step of the list, in order, with what is left to do of each.

    Raises:
        UsageError: for a budget or fields that do not fit.
    """
    whole = {key: configs for model in PROMPTS for key, configs in _configs(asked, model).items()}
    every = [config for configs in whole.values() for config in configs]
    planned = {
        video.spec.folder: 0.0 if video.is_done else video.seconds for video in planning.make(every).videos
    }
    found = []
    for model, equal, first, last in ROUNDS:
        if not whole[model, equal]:
            continue
        for place in range(first, last):
            own = tuple(_alone(config, place) for config in whole[model, equal])
            seconds = sum(planned[spec.folder] for config in own for spec in runs.videos(config))
            found.append(Step(model, equal, own[0].chosen[0].id, own, seconds))
    return found


def fit(every: Sequence[Step], seconds: float, *, least: bool = True) -> list[Step]:
    """Return the first steps that fit into seconds of one core; under `least` the first one in any case."""
    taken: list[Step] = []
    for step in every:
        seconds -= step.seconds
        if seconds < 0 and (taken or not least):
            break
        taken.append(step)
    return taken


def describe(asked: Request, chosen: Sequence[Step], every: Sequence[Step]) -> str:
    """Show a plan as text."""
    rows = []
    for model, equal in dict.fromkeys((step.model, step.equal) for step in chosen):
        own = [step for step in chosen if (step.model, step.equal) == (model, equal)]
        worlds = {step.world: sum(other.world == step.world for other in own) for step in own}
        told = ", ".join(f"{world} {count}" for world, count in worlds.items())
        left = sum(step.seconds for step in own)
        rows.append(
            (model, f"equal {equal}", str(len(own)), told, str(_videos(own)), planning.duration(left))
        )
    head = ("checkpoint", "compared at", "prompts", "worlds", "videos", "left, one core")
    total = sum(step.seconds for step in chosen) / asked.workers
    lines = [
        f"{asked.label} against {', '.join(asked.rivals)}",
        f"{LENGTH} at budget {asked.budget}, {asked.workers} workers, at most {asked.minutes:g} min", "",
        *planning.grid(head, rows), "",
        f"time     about {planning.duration(total)} for videos; the rest is properties, replay, scores, page",
        f"left out {left_out(chosen, every)}",
    ]  # fmt: skip
    return "\n".join(lines)


def left_out(chosen: Sequence[Step], every: Sequence[Step]) -> str:
    """Say what of the list is not in a plan."""
    rest = every[len(chosen) :]
    counts = {key: 0 for key in dict.fromkeys((step.model, step.equal) for step in rest)}
    for step in rest:
        counts[step.model, step.equal] += 1
    told = [f"{count} prompts on {model} at equal {equal}" for (model, equal), count in counts.items()]
    return f"{', '.join(told)}: more minutes= or another run gets further" if told else "nothing"


def _videos(own: Sequence[Step]) -> int:
    return len(
        {spec.folder for config in chain(*(step.configs for step in own)) for spec in runs.videos(config)}
    )


def _configs(asked: Request, model: str) -> dict[tuple[str, str], list[RunConfig]]:
    """Compose every policy over a whole list of prompts; at equal bytes those that have state alone.

    Whatever holds no state beside its keys and values has the same video at equal bytes as at equal tokens.
    """
    words = [
        f"model={model}", f"prompts='{PROMPTS[model]}'", "limit=null", f"length={LENGTH}", METRICS,
        "stages=[generate,score]",
    ]  # fmt: skip
    policies = [asked.policy, *((f"policy={rival}",) for rival in asked.rivals)]
    free = {policy: composed(asked, policy, words) for policy in policies}
    charged = [
        composed(asked, policy, [*words, "protocol.charge_state=true"])
        for policy, config in free.items()
        if has_state(config)
    ]
    return {(model, TOKENS): [*free.values()], (model, BYTES): charged}


def has_state(config: RunConfig) -> bool:
    """Say whether a policy pays for something beside keys and values."""
    policy = make_policy(config)
    return not policy.is_full and bool(policy.states)


def _alone(config: RunConfig, place: int) -> RunConfig:
    return replace(config, chosen=(config.prompts.prompts[place],))
