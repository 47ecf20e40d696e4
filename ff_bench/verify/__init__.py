"""`ff-bench verify model=NAME`: one command for whoever has the weights; ends in a table of PASS and FAIL.

Files and their digests, text encoder and VAE alone, a training window with the original's noise and its own
context rule (against the original repository where one is given), a 60 s rollout, time, memory and cost.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ff_bench.compose import compose
from ff_bench.errors import UsageError, nearest
from ff_bench.files import user_path
from ff_bench.plan import grid

if TYPE_CHECKING:
    from ff_bench.config import RunConfig
    from ff_bench.models.wan.member import Member
    from ff_bench.verify.finding import Finding

OWN = {
    "policy": "native", "limit": "1", "batch": "1", "stages": "[generate]", "save": "[record,video]"
}  # fmt: skip
"""Fields that this command sets; the user cannot."""
SET_LATER = ("length", "protocol.noise")
DEFAULTS = {"runs_dir": "runs/verify"}
FLAGS = ("--upstream", "--python", "--quick")
LONG = "60s"


@dataclass(frozen=True)
class Request:
    """What was asked.

    Attributes:
        words: fields of the configuration.
        upstream: checkout of the original repository, or None.
        python: interpreter that has its packages; None looks for one.
        quick: whether the long rollout is two chunks longer than the training window.
    """

    words: tuple[str, ...]
    upstream: Path | None = None
    python: str | None = None
    quick: bool = False


def run(words: Sequence[str]) -> int:
    """Check a model and print the table: `verify model=NAME [KEY=VALUE ...] [--upstream DIR] [--quick]`.

    Returns:
        1 where a check failed, else 0.

    Raises:
        UsageError: with one sentence for the user.
    """
    asked = read(words)
    config = composed(asked, length=LONG)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    findings = []
    for finding in check(asked, config):
        findings.append(finding)
        print(f"{finding.state}  {finding.name}", file=sys.stderr, flush=True)
    print("\n".join(table(findings)))
    failed = [finding.name for finding in findings if finding.state == "FAIL"]
    verdict = f"FAIL: {', '.join(failed)}" if failed else "PASS"
    print(f"\n{config.model.name}: {verdict}")
    states = {finding.name: finding.state for finding in findings}
    word = "FAIL" if failed else "PASS"
    print(json.dumps({"model": config.model.name, "verdict": word, "checks": states}))
    return 1 if failed else 0


def table(findings: Sequence[Finding]) -> list[str]:
    """Lay findings out as lines of a table."""
    return grid(("check", "", "seen"), [(one.name, one.state, one.seen) for one in findings])


def read(words: Sequence[str]) -> Request:
    """Read the command line.

    Raises:
        UsageError: for an unknown flag, a field that this command sets, or a missing model or folder.
    """
    rest, fields = list(words), []
    values: dict[str, str] = {}
    while rest:
        word = rest.pop(0)
        flag, has_value, value = word.partition("=")
        if not word.startswith("-"):
            fields.append(word)
        elif flag not in FLAGS or (flag == "--quick" and has_value):
            near = nearest(flag, FLAGS)
            hint = f"; did you mean '{near}'?" if near and near != flag else ""
            raise UsageError(f"verify takes no {word}: flags are {', '.join(FLAGS)}{hint}")
        elif flag == "--quick" or has_value:
            values[flag] = value
        elif rest:
            values[flag] = rest.pop(0)
        else:
            raise UsageError(f"{flag} needs a value: verify model=NAME {flag} ...")
    _check_fields(fields)
    folder = user_path(values["--upstream"]) if "--upstream" in values else None
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--upstream={folder} is not allowed: it must be a checkout of the original")
    upstream = None if folder is None else folder.resolve()
    return Request(tuple(fields), upstream, values.get("--python"), "--quick" in values)


def _check_fields(fields: Sequence[str]) -> None:
    keys = [field.partition("=")[0] for field in fields]
    for field, key in zip(fields, keys, strict=True):
        if "=" not in field:
            raise UsageError(f"verify takes KEY=VALUE and flags, not '{field}'; name a model as model=NAME")
        if key in OWN or key in SET_LATER:
            raise UsageError(f"{key} is not allowed: verify sets it itself")
    if "model" not in keys:
        raise UsageError("verify needs a model: ff-bench verify model=NAME (ff-bench ls models lists them)")


def composed(asked: Request, *, length: str, noise: str = "own") -> RunConfig:
    """Compose the run of one check.

    Raises:
        UsageError: with field, value and what is allowed; for a model without files to check.
    """
    keys = {word.partition("=")[0] for word in asked.words}
    own = {**{key: value for key, value in DEFAULTS.items() if key not in keys}, **OWN}
    own |= {"length": length, "protocol.noise": noise}
    config = compose([*asked.words, *(f"{key}={value}" for key, value in own.items())]).config
    if config.model.architecture != "wan":
        raise UsageError(
            f"model={config.model.name} has nothing to verify: allowed are models with downloaded weights "
            "(ff-bench ls models)"
        )
    from ff_bench.pipeline import device_of

    return replace(config, device=device_of(config.device))


def check(asked: Request, config: RunConfig) -> Iterator[Finding]:
    """Run every check in order; one that fails does not stop the others.

    Args:
        asked: the command line.
        config: of the long rollout.
    """
    import torch

    from ff_bench.verify import parts
    from ff_bench.verify.finding import guarded

    member, device, dtype = _member(config), config.device, getattr(torch, config.dtype)
    yield from guarded("files", lambda: parts.check_files(member))
    yield from guarded("text encoder", lambda: parts.check_text(member, device=device, dtype=dtype))
    yield from guarded("VAE", lambda: parts.check_vae(member, device=device, dtype=dtype))
    yield from guarded("training window", lambda: _window(asked, config))
    yield from guarded("rollout", lambda: _long(asked, config))


def _window(asked: Request, config: RunConfig) -> Iterator[Finding]:
    """Generate the 21 frames of the original's default with its noise, and compare."""
    from ff_bench.verify import rollouts, upstream

    frames = config.facts.whole_chunks(21)
    made = rollouts.make(composed(asked, length=f"{frames}f", noise="upstream"))
    yield from rollouts.check_window(made, f"{frames} frames")
    yield from upstream.check(made, asked.upstream, python=asked.python)


def _long(asked: Request, config: RunConfig) -> Iterator[Finding]:
    from ff_bench.verify import rollouts

    known = config.facts
    frames = known.whole_chunks(known.window_frames + 2 * known.chunk_frames)
    made = rollouts.make(composed(asked, length=f"{frames}f") if asked.quick else config)
    name = "short rollout" if asked.quick else f"{LONG} rollout"
    yield from rollouts.check_long(made, name)
    yield from rollouts.check_cost(made)


def _member(config: RunConfig) -> Member:
    from ff_bench.models.wan.member import Member

    assert isinstance(config.model.fields, Member), config.model
    return config.model.fields
