"""Fuzzed policies: classes that declare odd things and hooks that do them, run on a stream of noise."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import policies
from ff_bench import errors, traits
from ff_bench.errors import UsageError
from fuzzing import odd
from fuzzing.judge import Target, Wrong, not_a_sentence
from policies.checking import stream
from policies.soundness import Soundness

HEAD = """
from dataclasses import dataclass, field
import torch
from policies.base import Policy, Segment

@dataclass
class Own(Policy):
    name = "own"
"""
DECLARED = (
    "name = {0}", "pins = {0}", "pins = {{{0}: {0}}}", "is_full = {0}", "is_positional = {0}",
    "reads_attention = {0}", "widest_head = {0}", "slot_state = {0}", "slot_state = {{'a': {0}}}",
    "share: object = {0}", "share: list = field(default_factory=lambda: {0})", "share: int",
    "def __post_init__(self): {1}", "def __init__(self, a): pass", "unit = {0}", "states = {0}",
)  # fmt: skip
HOOKS = (
    "tell(self, prompts)", "check(self, protocol)", "begin(self)", "plan(self, caches)", "ranks(self, cache)",
    "observe(self, cache, step)", "fold(self, caches, kept)", "absorb(self, cache, start, count)",
    "view(self, cache, *, first_frame, frames, commit)", "held_nbytes(self, shape, batch)",
    "state_nbytes(self)", "score(self, cache, step)", "select(self, scores, tokens)",
    "apply(self, caches, index)", "start(self, *a, **k)", "checked_score(self, cache, step)",
)  # fmt: skip
VALUES = (
    "None", "3", "-1", "0", "float('nan')", "float('inf')", "'x'", "''", "'a\\nb'", "[]", "{}", "object()",
    "True", "torch.zeros(2)", "torch.full((2, 2), 64)", "torch.tensor([[40, 88], [64, 64]])", "10 ** 400",
    "torch.zeros(1, 2, dtype=torch.int64)", "torch.full((2, 2), -1)", "[Segment(0, 10 ** 6)]", "1e300", "1.5",
    "lambda: 1 / 0", "torch.zeros(1, 2, 3)", "torch.zeros(1, 2, 96, dtype=torch.float64)",
    "[{'a': [object()]}]",
)  # fmt: skip
BODIES = (
    "raise KeyError('no')", "raise SystemExit(3)", "raise ValueError('a\\n\\x1b[31mb')", "raise RuntimeError",
    "raise MemoryError", "raise GeneratorExit", "print('hello')", "return 1 / 0", "import sys; sys.exit('x')",
)  # fmt: skip
CHANGES = (
    "cache.size = 5", "cache.drop(0, 8)", "cache.keep(torch.arange(3))", "cache.values.mul_(2)",
    "cache._tokens.fill_(3)", "step.keys.zero_()", "step.queries.fill_(torch.nan)", "cache.clear()",
)  # fmt: skip
SCORE = "def score(self, cache, step):\n        {0}\n        return cache.tokens.float()"


def hook(draw: random.Random, folder: Path) -> None:
    """Load a policy and, where it is taken, run it; it must hold its budget, in order, each slot once."""
    path = folder / f"own{draw.randrange(10**9)}.py"
    path.write_text(HEAD + "".join(f"    {line}\n" for line in _lines(draw)), encoding="utf-8")
    out, sys.stdout = sys.stdout, open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        traits.defaults(str(path))
        kind = policies.load(str(path))
        _run(kind)
    finally:
        sys.stdout.close()
        sys.stdout = out
        sys.modules.pop(f"policy_file_{path.stem}", None)
        path.unlink()


def _lines(draw: random.Random) -> list[str]:
    lines = []
    for _ in range(draw.randrange(1, 3)):
        value, body = draw.choice(VALUES), draw.choice(BODIES)
        if draw.random() < 0.35:
            lines.append(draw.choice(DECLARED).format(value, body))
        else:
            does = f"return {value}" if draw.random() < 0.6 else body
            lines.append(f"def {draw.choice(HOOKS)}: {does}")
    if draw.random() < 0.2:
        lines.append(f"def observe(self, cache, step): {draw.choice(CHANGES)}")
    if not any("def score" in line for line in lines):
        lines.insert(0, SCORE.format(draw.choice(CHANGES) if draw.random() < 0.2 else "pass"))
    if draw.random() < 0.05:
        lines.append(odd.text(draw).replace("\n", " ").encode(errors="replace").decode())
    return sorted(lines, key=lambda line: "def " in line)


def _run(kind: Any) -> None:
    """Run a policy as a run does: whatever it raises becomes one sentence."""
    try:
        policy = kind()
        policy.tell(["a"])
        with mock.patch.object(Soundness, "clear", _read):
            made = stream.run(policy, chunks=4)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        told = errors.told(error)
        raise UsageError(told if not not_a_sentence(told) else f"{not_a_sentence(told)}\n") from None
    if kind.is_full:
        return
    for chunk, layers in enumerate(made.tokens):
        most = min(stream.BUDGET.tokens or 0, (chunk + 1) * stream.SHAPE.chunk_tokens)
        for tokens in layers:
            if tokens.shape[-1] > most and kind.widest_head == 1:
                raise Wrong(f"holds {tokens.shape[-1]} tokens of {most} after chunk {chunk}")
            if not bool((tokens.diff(dim=-1) > 0).all()) and kind.widest_head == 1:
                raise Wrong(
                    f"holds a slot twice, or out of order, after chunk {chunk}: {tokens[0, 0].tolist()}"
                )


def _read(soundness: Soundness) -> None:
    """Ask at the end of a chunk what is wrong, as a run does."""
    fault = soundness.fault()
    soundness.__init__()  # type: ignore[misc]
    if fault is not None:
        raise FloatingPointError(fault.told)


TARGETS = (Target("policies", hook, 2.5),)
