"""The typed configuration of one run: every field checked and resolved before torch is imported."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import policies
from ff_bench import checks, model_config, prompts, protocol, shipped, traits
from ff_bench.errors import UsageError, not_one_of, out_of_range, shown
from ff_bench.files import checkpoint_sha256, user_path
from ff_bench.model_config import ModelConfig
from ff_bench.models.facts import ModelFacts
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
from ff_bench.shipped import conf_dir

__all__ = ["ModelConfig", "PolicyConfig", "RunConfig", "build", "conf_dir"]

STAGES = ("generate", "score", "report")
SAVES = ("record", "video")
TOP = (
    "model", "policy", "protocol", "metrics", "tracker", "budget", "length", "prompts", "limit",
    "ids", "subset", "seed", "steps", "dtype", "batch", "device", "workers", "score_minutes", "stages",
    "save", "overwrite", "dry_run", "runs_dir",
)  # fmt: skip


@dataclass(frozen=True)
class PolicyConfig:
    """Which policy, with its hyper-parameters.

    Attributes:
        name: name or .py path, as `policies.load` takes it.
        fields: hyper-parameters, complete.
        is_full: whether it keeps everything whatever the budget.
        source_sha256: digest of a .py file of the user's, else empty.
        rule: name of the context rule where the model chose the policy (`policy=native`), else empty.
        wrap: what goes around it, the innermost first (`policies.WRAPPERS`).
    """

    name: str
    fields: dict[str, object]
    is_full: bool = False
    source_sha256: str = ""
    rule: str = ""
    wrap: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name for folders and tables: the method's, followed by what goes around it."""
        return "+".join((self.method, *self.wrap))

    @property
    def method(self) -> str:
        """Name without what goes around it."""
        if self.rule:
            return traits.NATIVE
        return Path(self.name).stem if self.name.endswith(".py") else self.name

    @property
    def shown(self) -> dict[str, object]:
        """Hyper-parameters for rows and identities; of `native` also its rule and the policy that does it."""
        wrap = {"wrap": list(self.wrap)} if self.wrap else {}
        rule = {"rule": self.rule, "policy": self.name} if self.rule else {}
        return {**rule, **traits.told(self.name, self.fields), **wrap}


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
    score_minutes: int
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
    model = model_config.resolve(tree["model"], base["model"])
    known = model.facts
    policy = _policy(tree["policy"], base["policy"], known)
    dtype = known.dtype if tree["dtype"] is None else tree["dtype"]
    dtype = checks.choice("dtype", dtype, list(ELEMENT_BYTES))
    length = parse_length(tree["length"], known)
    budget = _budget(tree["budget"], policy, known, dtype=dtype, length=length)
    kept = protocol.resolve(
        tree["protocol"],
        base["protocol"],
        policy=policy.name,
        label=policy.method,
        budget=budget,
        facts=known,
        forced=known.native.protocol if policy.rule else {},
    )
    check_budget(budget, known, policy=policy.label, sink=kept.sink, recent=kept.recent)
    asked = known.default_prompts if tree["prompts"] is None else tree["prompts"]
    listed = prompts.load(asked, conf_dir() / "prompts", model=known)
    chosen = _chosen(listed, tree, base)
    config = RunConfig(
        model=_with_digests(model, texts(chosen), dtype), policy=policy, protocol=kept, budget=budget,
        length=length, prompts=listed, chosen=chosen,
        seeds=checks.seeds(tree["seed"]), steps=_steps(tree["steps"], known),
        dtype=dtype, batch=checks.whole("batch", tree["batch"], low=1, high=256),
        device=_device(tree["device"]), workers=checks.whole("workers", tree["workers"], low=1, high=256),
        score_minutes=checks.whole("score_minutes", tree["score_minutes"], low=1, high=10**5),
        stages=checks.words("stages", tree["stages"], STAGES), save=checks.words("save", tree["save"], SAVES),
        metrics=_metrics(tree.get("metrics"), base.get("metrics", {})),
        tracker=checks.fields("tracker", tree["tracker"], base["tracker"]),
        overwrite=checks.flag("overwrite", tree["overwrite"]),
        dry_run=checks.flag("dry_run", tree["dry_run"]),
        runs_dir=user_path(checks.text("runs_dir", tree["runs_dir"])),
    )  # fmt: skip
    _check_together(config)
    return config


def texts(chosen: Sequence[PromptSpec]) -> tuple[str, ...]:
    """Return every text that a model reads for these prompts."""
    return tuple(dict.fromkeys(text for prompt in chosen for text in (prompt.text, *prompt.later)))


def _check_together(config: RunConfig) -> None:
    if not config.stages:
        raise out_of_range("stages", config.stages, f"a non-empty list of {', '.join(STAGES)}")
    if {"generate", "score"} <= set(config.stages) and "record" not in config.save:
        raise UsageError(
            f"save=[{','.join(config.save)}] is not allowed with stages=[{','.join(config.stages)}]: "
            "scores read the record; add it to save or leave score out of stages"
        )
    if config.protocol.noise == "upstream" and config.batch > 1:
        raise UsageError(
            f"batch={config.batch} is not allowed with protocol.noise=upstream: the original draws for one "
            "video at a time, allowed is 1"
        )
    if config.batch > 1 and "adakv" in config.policy.wrap:
        raise UsageError(
            f"batch={config.batch} is not allowed with policy.wrap=[{','.join(config.policy.wrap)}]: adakv "
            "gives every video sizes of its own, allowed is 1"
        )
    if config.runs_dir.exists() and not config.runs_dir.is_dir():
        raise UsageError(
            f"runs_dir={config.runs_dir} is not allowed: it is a file, runs_dir must be a directory"
        )


def _budget(value: object, policy: PolicyConfig, facts: ModelFacts, *, dtype: str, length: Length) -> Budget:
    """Resolve the budget; a policy that has its own takes that, a wrong one of the user is still refused."""
    frames, element_bytes = length.latent_frames, ELEMENT_BYTES[dtype]
    asked = parse_budget(value, facts, latent_frames=frames, element_bytes=element_bytes)
    if policy.is_full:
        return Budget(asked="full", tokens=None)
    if policy.rule:
        own = facts.native.budget
        return parse_budget(
            own, facts, latent_frames=frames, element_bytes=element_bytes, field="model.native.budget"
        )
    return asked


def _with_digests(model: ModelConfig, texts: Sequence[str], dtype: str) -> ModelConfig:
    """Digest the files of a model, as far as they are here."""
    if model.facts.weights:
        return replace(model, checkpoint=checkpoint_sha256(model.facts.weights))
    found = model.room.digests(model.fields, prompts=texts, dtype=dtype)
    others = tuple(sorted((key, value) for key, value in found.items() if key != "checkpoint"))
    return replace(model, checkpoint=found["checkpoint"], others=others)


def _policy(tree: object, base: Mapping[str, Any], facts: ModelFacts) -> PolicyConfig:
    fields = checks.fields("policy", tree, base)
    wrap = _wrap(fields.pop("wrap", ()))
    name = checks.text("policy.name", fields.pop("name"))
    if name != base["name"]:
        raise UsageError(f"policy.name={name} is not allowed: choose a policy by policy={name}")
    if wrap and (name == traits.NATIVE or traits.is_full(name)):
        raise UsageError(
            f"policy.wrap=[{','.join(wrap)}] is not allowed with policy={name}: it keeps what it was made to "
            "keep, allowed is policy.wrap=[]"
        )
    if name == traits.NATIVE:
        return _native(facts)
    source = hashlib.sha256(Path(name).read_bytes()).hexdigest() if name.endswith(".py") else ""
    return PolicyConfig(
        name=name, fields=fields, is_full=traits.is_full(name), source_sha256=source, wrap=wrap
    )


def _wrap(value: object) -> tuple[str, ...]:
    """Check what goes around a policy; the order given does not matter, merges stand inside budgets."""
    found = checks.words("policy.wrap", value, tuple(policies.WRAPPERS))
    try:
        policies.check_wrappers(found)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return found


def _native(facts: ModelFacts) -> PolicyConfig:
    """Turn `native` into the policy that the model was released with; a model that keeps all has `full`."""
    native = facts.native
    if native.policy not in policies.POLICIES:
        raise not_one_of("model.native.policy", native.policy, policies.POLICIES)
    if traits.is_full(native.policy):
        return PolicyConfig(name=native.policy, fields=dict(native.fields), is_full=True)
    base = shipped.policy_fields(native.policy)
    fields = checks.fields("model.native.fields", {**base, **native.fields}, base)
    return PolicyConfig(name=native.policy, fields=fields, rule=native.rule)


def _metrics(tree: object, base: Mapping[str, Any]) -> dict[str, dict[str, object]]:
    if not isinstance(tree, Mapping) or not tree:
        raise out_of_range("metrics", tree, "a non-empty list of metrics (ff-bench ls metrics)")
    return {name: checks.fields(f"metrics.{name}", tree[name], base.get(name, {})) for name in sorted(tree)}


def _chosen(listed: PromptSet, tree: Mapping[str, Any], base: Mapping[str, Any]) -> tuple[PromptSpec, ...]:
    """Choose prompts; `subset` stands instead of `limit` and `ids`, not beside them."""
    ids, limit = checks.names("ids", tree["ids"]), _limit(tree["limit"])
    if tree["subset"] is None:
        return prompts.choose(listed, ids=ids, limit=limit)
    for field in ("ids", "limit"):
        if tree[field] != base[field]:
            raise UsageError(
                f"subset={tree['subset']} is not allowed with {field}={shown(tree[field])}: it chooses the "
                "prompts by itself, leave one of them out"
            )
    size = checks.whole("subset", tree["subset"], low=1, high=10**6)
    return prompts.choose(listed, ids=None, limit=None, subset=size)


def _limit(value: object) -> int | None:
    return None if value is None else checks.whole("limit", value, low=1, high=10**6)


def _steps(value: object, facts: ModelFacts) -> int:
    if value is None:
        return facts.steps
    steps = checks.whole("steps", value, low=1, high=1000)
    if facts.has_own_steps and steps != facts.steps:
        raise UsageError(
            f"steps={steps} is not allowed with model={facts.name}: it was distilled for {facts.steps}, "
            "model.steps=[...] names others"
        )
    return steps


def _device(value: object) -> str:
    allowed = "auto, cpu, cuda or cuda:N with N from 0"
    if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", value):
        raise out_of_range("device", value, allowed)
    return value
