"""The typed configuration of one run: every field checked and resolved before torch is imported."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ff_bench import checks, prompts, protocol, traits
from ff_bench.errors import UsageError, out_of_range
from ff_bench.files import checkpoint_sha256
from ff_bench.models.facts import MODELS, ModelFacts, facts
from ff_bench.prompts import PromptSet, PromptSpec
from ff_bench.protocol import ProtocolConfig
from ff_bench.quantities import (
    ELEMENT_BYTES,
    Budget,
    Length,
    check_budget,
    parse_budget,
    parse_length,
)

PACKAGE = Path(__file__).parent
STAGES = ("generate", "score", "report")
SAVES = ("record", "video")
TOP = (
    "model", "policy", "protocol", "metrics", "tracker", "budget", "length", "prompts", "limit", "ids",
    "seed", "steps", "dtype", "batch", "device", "workers", "stages", "save", "overwrite", "dry_run",
    "runs_dir",
)  # fmt: skip


def conf_dir() -> Path:
    """Return the directory of configurations: beside pyproject.toml, else inside the package."""
    checkout = PACKAGE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "conf" / "config.yaml").is_file():
        return checkout / "conf"
    return PACKAGE / "conf"


@dataclass(frozen=True)
class ModelConfig:
    """Which model, with the sha256 of its checkpoint ('absent' where the weights are not there)."""

    name: str
    checkpoint: str

    @property
    def facts(self) -> ModelFacts:
        """Sizes of the model."""
        return facts(self.name)


@dataclass(frozen=True)
class PolicyConfig:
    """Which policy, with its hyper-parameters.

    Attributes:
        name: name or .py path, as `policies.load` takes it.
        fields: hyper-parameters, complete.
        is_full: whether it keeps everything whatever the budget.
        source_sha256: digest of a .py file of the user's, else empty.
    """

    name: str
    fields: dict[str, object]
    is_full: bool = False
    source_sha256: str = ""

    @property
    def label(self) -> str:
        """Name for folders and tables."""
        return Path(self.name).stem if self.name.endswith(".py") else self.name


@dataclass(frozen=True)
class RunConfig:
    """One run: a policy under a budget, over prompts × seeds."""

    model: ModelConfig
    policy: PolicyConfig
    protocol: ProtocolConfig
    budget: Budget
    length: Length
    prompts: PromptSet
    chosen: tuple[PromptSpec, ...]
    seeds: tuple[int, ...]
    steps: int
    dtype: str
    batch: int
    device: str
    workers: int
    stages: tuple[str, ...]
    save: tuple[str, ...]
    metrics: dict[str, dict[str, object]]
    tracker: dict[str, object]
    overwrite: bool
    dry_run: bool
    runs_dir: Path

    @property
    def facts(self) -> ModelFacts:
        """Sizes of the model."""
        return self.model.facts


def build(tree: Mapping[str, Any], base: Mapping[str, Any]) -> RunConfig:
    """Check a composed configuration and resolve it.

    Args:
        tree: the composition with every override.
        base: the composition with the same choices of groups and no other override: keys and types of fields.

    Raises:
        UsageError: with field, value and what is allowed.
    """
    checks.keys("", {"metrics": {}, **tree}, TOP)
    model = _model(tree["model"], base["model"])
    policy = _policy(tree["policy"], base["policy"])
    dtype = checks.choice("dtype", tree["dtype"], list(ELEMENT_BYTES))
    length = parse_length(tree["length"], model.facts)
    budget = _budget(tree["budget"], policy, model.facts, dtype=dtype, length=length)
    kept = protocol.resolve(
        tree["protocol"],
        base["protocol"],
        policy=policy.name,
        label=policy.label,
        budget=budget,
        facts=model.facts,
    )
    check_budget(budget, model.facts, sink=kept.sink, recent=kept.recent)
    listed = prompts.load(tree["prompts"], conf_dir() / "prompts", model=model.name)
    config = RunConfig(
        model=model, policy=policy, protocol=kept, budget=budget, length=length, prompts=listed,
        chosen=prompts.choose(listed, ids=checks.names("ids", tree["ids"]), limit=_limit(tree["limit"])),
        seeds=checks.seeds(tree["seed"]), steps=_steps(tree["steps"], model.facts),
        dtype=dtype, batch=checks.whole("batch", tree["batch"], low=1, high=256),
        device=_device(tree["device"]), workers=checks.whole("workers", tree["workers"], low=1, high=256),
        stages=checks.words("stages", tree["stages"], STAGES), save=checks.words("save", tree["save"], SAVES),
        metrics=_metrics(tree.get("metrics"), base.get("metrics", {})),
        tracker=checks.fields("tracker", tree["tracker"], base["tracker"]),
        overwrite=checks.flag("overwrite", tree["overwrite"]),
        dry_run=checks.flag("dry_run", tree["dry_run"]),
        runs_dir=Path(checks.text("runs_dir", tree["runs_dir"])).expanduser(),
    )  # fmt: skip
    _check_together(config)
    return config


def _check_together(config: RunConfig) -> None:
    if not config.stages:
        raise out_of_range("stages", config.stages, f"a non-empty list of {', '.join(STAGES)}")
    if {"generate", "score"} <= set(config.stages) and "record" not in config.save:
        raise UsageError(
            f"save=[{','.join(config.save)}] is not allowed with stages=[{','.join(config.stages)}]: "
            "scores read the record; add it to save or leave score out of stages"
        )
    if config.runs_dir.exists() and not config.runs_dir.is_dir():
        raise UsageError(
            f"runs_dir={config.runs_dir} is not allowed: it is a file, runs_dir must be a directory"
        )


def _budget(value: object, policy: PolicyConfig, facts: ModelFacts, *, dtype: str, length: Length) -> Budget:
    """Resolve the budget; a policy that keeps everything has the full one, a wrong one is still refused."""
    frames, element_bytes = length.latent_frames, ELEMENT_BYTES[dtype]
    asked = parse_budget(value, facts, latent_frames=frames, element_bytes=element_bytes)
    return Budget(asked="full", tokens=None) if policy.is_full else asked


def _model(tree: object, base: Mapping[str, Any]) -> ModelConfig:
    fields = checks.fields("model", tree, base)
    name = checks.choice("model", fields["name"], list(MODELS))
    return ModelConfig(name=name, checkpoint=checkpoint_sha256(facts(name).weights))


def _policy(tree: object, base: Mapping[str, Any]) -> PolicyConfig:
    fields = checks.fields("policy", tree, base)
    name = checks.text("policy.name", fields.pop("name"))
    if name != base["name"]:
        raise UsageError(f"policy.name={name} is not allowed: choose a policy by policy={name}")
    source = hashlib.sha256(Path(name).read_bytes()).hexdigest() if name.endswith(".py") else ""
    return PolicyConfig(name=name, fields=fields, is_full=traits.is_full(name), source_sha256=source)


def _metrics(tree: object, base: Mapping[str, Any]) -> dict[str, dict[str, object]]:
    if not isinstance(tree, Mapping) or not tree:
        raise out_of_range("metrics", tree, "a non-empty list of metrics (ff-bench ls metrics)")
    return {name: checks.fields(f"metrics.{name}", tree[name], base.get(name, {})) for name in sorted(tree)}


def _limit(value: object) -> int | None:
    return None if value is None else checks.whole("limit", value, low=1, high=10**6)


def _steps(value: object, facts: ModelFacts) -> int:
    return facts.steps if value is None else checks.whole("steps", value, low=1, high=1000)


def _device(value: object) -> str:
    allowed = "auto, cpu, cuda or cuda:N with N from 0"
    if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", value):
        raise out_of_range("device", value, allowed)
    return value
