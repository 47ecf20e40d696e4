"""`ff-bench ls`: what can be chosen, and what was run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from ff_bench import prompts, runs, traits
from ff_bench.config import conf_dir
from ff_bench.errors import UsageError, not_one_of
from ff_bench.models.facts import MODELS
from ff_bench.plan import grid


def describe(words: Sequence[str]) -> str:
    """List one kind of thing.

    Args:
        words: the kind; `runs` takes paths after it.

    Raises:
        UsageError: for an unknown kind.
    """
    if not words:
        raise UsageError(f"ls needs one of {', '.join(KINDS)}")
    if words[0] not in KINDS:
        raise not_one_of("ls", words[0], KINDS)
    if words[0] != "runs" and len(words) > 1:
        raise UsageError(f"ls {words[0]} takes nothing after it, not '{words[1]}'")
    return "\n".join(KINDS[words[0]](words[1:]))


def _models(_: Sequence[str]) -> list[str]:
    rows = []
    for facts in MODELS.values():
        weights = "yes" if all(path.is_file() for path in facts.weights) else "missing"
        shape = f"{facts.layers} layers x {facts.heads} heads x {facts.head_dim}"
        rows.append(
            [
                facts.name,
                shape,
                f"{facts.width}x{facts.height} at {facts.fps} fps",
                str(facts.frame_tokens),
                weights,
            ]
        )
    return grid(("model", "cache", "video", "tokens per latent frame", "weights"), rows)


def _policies(_: Sequence[str]) -> list[str]:
    rows = []
    for path in sorted((conf_dir() / "policy").glob("*.yaml")):
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
        name = fields.pop("name")
        shown = " ".join(f"{key}={value}" for key, value in fields.items())
        rows.append(
            [
                name,
                shown or "-",
                " ".join(f"{key}={value}" for key, value in traits.pins(name).items()) or "-",
            ]
        )
    rows += [[name, "installed package", ""] for name in traits.installed()]
    return grid(("policy", "fields", "pins"), rows)


def _metrics(_: Sequence[str]) -> list[str]:
    from ff_bench import metrics

    rows = []
    for family in metrics.names():
        for name, measure in metrics.load(family).measures.items():
            better = {True: "higher", False: "lower", None: "-"}[measure.higher_is_better]
            rows.append([name, measure.unit, better, measure.doc])
    return grid(("metric", "unit", "better", "meaning"), rows)


def _prompts(_: Sequence[str]) -> list[str]:
    rows = []
    for name in prompts.set_files(conf_dir() / "prompts"):
        listed = prompts.load(name, conf_dir() / "prompts", model=_reader(name))
        rows.append([name, str(len(listed.prompts)), listed.licence, listed.sha256[:12], listed.source])
    return grid(("prompts", "lines", "licence", "sha256", "source"), rows)


def _reader(name: str) -> str:
    return next((facts.name for facts in MODELS.values() if name in facts.prompt_sets), "")


def _experiments(_: Sequence[str]) -> list[str]:
    rows = []
    for path in sorted((conf_dir() / "experiment").glob("*.yaml")):
        comments = [
            line[1:].strip()
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.startswith("# ")
        ]
        rows.append([path.stem, next((line for line in comments if not line.startswith("@")), "")])
    return (
        grid(("experiment", "run with"), rows)
        if rows
        else ["no experiments yet; --config-dir brings your own"]
    )


def _runs(words: Sequence[str]) -> list[str]:
    paths = [Path(word) for word in words] or [Path("runs")]
    if not words and not paths[0].exists():
        return ["no runs here yet"]
    rows = []
    for folder in runs.find(paths):
        manifest = runs.read_manifest(folder)
        if manifest is None:
            continue
        identity = manifest.identity
        budget = "full" if identity["budget_tokens"] is None else str(identity["budget_tokens"])
        rows.append(
            [
                manifest.video_id,
                identity["model"]["name"],
                identity["policy"]["name"],
                budget,
                str(manifest.frames),
                str(identity["seed"]),
                identity["prompt"][:60],
            ]
        )
    return (
        grid(("video", "model", "policy", "budget", "frames", "seed", "prompt"), rows)
        if rows
        else ["no finished video there"]
    )


KINDS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "models": _models,
    "policies": _policies,
    "metrics": _metrics,
    "prompts": _prompts,
    "experiments": _experiments,
    "runs": _runs,
}
