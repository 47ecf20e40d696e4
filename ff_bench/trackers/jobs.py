"""From configurations to jobs: stable ids, a common group, names for people, the resolved configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ff_bench import files, records, runs
from ff_bench.config import RunConfig
from ff_bench.trackers.readings import Job, Planned
from ff_bench.trackers.session import Plan


def plan_of(settings: Mapping[str, Any], configs: Sequence[RunConfig], *, name: str, root: Path) -> Plan:
    """Describe a run for a tracker.

    Args:
        settings: Of the tracker, checked.
        configs: Of the run, all of them; none where only a report is made.
        name: Of the run: the group of its jobs, where the settings name none.
        root: Directory of runs.
    """
    group = str(settings["group"] or name)
    jobs: dict[str, Job] = {}
    for config, named in zip(configs, _names(configs), strict=True):
        baseline = _baseline(configs, config, str(settings["baseline"]))
        job = _job(config, settings, named, group=group, baseline=baseline)
        jobs.setdefault(job.id, job)  # `full` under two budgets is one job
    tags = tuple(map(str, settings["tags"]))
    digest = files.short_hash({"group": group, "report": name})
    named = name if name.startswith("report") else f"report-{name}"
    told = {"baseline": settings["baseline"], "group": group, "jobs": sorted(jobs)}
    return Plan(settings, tuple(jobs.values()), Job(digest, named, group, "report", root, tags, told))


def _job(
    config: RunConfig, settings: Mapping[str, Any], name: str, *, group: str, baseline: RunConfig | None
) -> Job:
    is_baseline = config.policy.label == settings["baseline"]
    compared = {
        "policy": settings["baseline"], "is_baseline": is_baseline,
        "job": id_of(baseline, group) if baseline is not None else None,
    }  # fmt: skip
    tags = (*map(str, settings["tags"]), *(["baseline"] if is_baseline else []))
    videos = tuple(
        Planned(
            spec.folder.absolute(), spec.video_id, f"{spec.prompt.id}-s{spec.seed}", place,
            f"{config.policy.label}: {spec.prompt.text}",
        )
        for place, spec in enumerate(runs.videos(config))
    )  # fmt: skip
    described = {**describe(config), "baseline": compared, "group": group}
    return Job(id_of(config, group), name, group, "policy", config.runs_dir, tags, described, videos)


def id_of(config: RunConfig, group: str) -> str:
    """Digest what a job makes, so that the same command goes on with the same job."""
    ids = sorted({spec.video_id for spec in runs.videos(config)})
    return files.short_hash({"group": group, "videos": ids})


def describe(config: RunConfig) -> dict[str, Any]:
    """Return a resolved configuration in plain values, with the identity that its videos share."""
    specs = runs.videos(config)
    identity = {name: value for name, value in specs[0].identity.items() if name not in ("prompt", "seed")}
    return {
        "model": config.model.label, "checkpoint": config.model.checkpoint,
        "policy": config.policy.label, "policy_fields": config.policy.shown,
        "protocol": config.protocol.label, "protocol_fields": _plain(asdict(config.protocol)),
        "budget": config.budget.asked, "budget_tokens": config.budget.tokens,
        "length": config.length.asked, "frames": config.length.frames,
        "latent_frames": config.length.latent_frames, "fps": config.facts.fps,
        "prompts": config.prompts.name, "prompt_list_sha256": config.prompts.sha256,
        "prompt_ids": [prompt.id for prompt in config.chosen], "seeds": list(config.seeds),
        "steps": config.steps, "dtype": config.dtype, "batch": config.batch, "device": config.device,
        "hardware": records.hardware(config.device), "metrics": config.metrics,
        "stages": list(config.stages), "code_version": records.code_version(), "identity": identity,
        "video_ids": [spec.video_id for spec in specs],
    }  # fmt: skip


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _names(configs: Sequence[RunConfig]) -> list[str]:
    """Name jobs by policy, budget and protocol, and by what else differs between them."""
    columns = [
        [config.model.label for config in configs],
        [config.length.asked for config in configs],
        [config.prompts.name for config in configs],
    ]
    differing = [column for column in columns if len({*column}) > 1]
    found = []
    for place, config in enumerate(configs):
        budget = [] if config.policy.is_full else [config.budget.asked]
        others = [column[place] for column in differing]
        words = [config.policy.label, *budget, config.protocol.label, *others]
        found.append("-".join(words))
    count = Counter(found)
    numbers: Counter[str] = Counter()
    for place, name in enumerate(found):
        if count[name] > 1:
            numbers[name] += 1
            found[place] = f"{name}-{numbers[name]}"
    return found


def _baseline(configs: Sequence[RunConfig], config: RunConfig, baseline: str) -> RunConfig | None:
    """Return the baseline of a configuration: at its budget, else without one, as reports choose it."""
    budgets = [config.budget.tokens, None]

    def is_comparable(other: RunConfig) -> bool:
        shared = [(one.model, one.length, one.prompts.sha256) for one in (config, other)]
        return other.policy.label == baseline and other.budget.tokens in budgets and shared[0] == shared[1]

    same = [other for other in configs if is_comparable(other)]
    return min(same, key=lambda other: budgets.index(other.budget.tokens), default=None)
