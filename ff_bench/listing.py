"""`ff-bench ls`: what can be chosen, and what was run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

import policies
from ff_bench import prompt_sets, prompts, runs, shipped, traits
from ff_bench.config import conf_dir
from ff_bench.errors import UsageError, not_one_of
from ff_bench.models.facts import architecture, facts
from ff_bench.plan import grid
from ff_bench.prompts_command import COLUMNS, shown


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
    for name in shipped.models():
        known = facts(name)
        rows.append(
            [
                name,
                f"{known.layers} layers x {known.heads} heads x {known.head_dim}",
                f"{known.width}x{known.height} at {known.fps} fps",
                f"{known.frame_tokens}, {known.chunk_frames} frames",
                str(known.steps),
                known.native.rule,
                "yes" if _is_here(name) else "no",
            ]
        )
    columns = ("model", "cache", "video", "tokens per frame, chunk", "steps", "native rule", "weights here")
    lines = grid(columns, rows)
    return [*lines, "", "ff-bench doctor names what is not here and the command that gets it"]


def _is_here(name: str) -> bool:
    """Say whether the weights of a shipped model itself are on this machine."""
    fields = shipped.model_fields(name)
    room = architecture(str(fields["architecture"]))
    return all(need.found for need in room.needs(room.read(fields)) if need.what.startswith(name))


def _policies(_: Sequence[str]) -> list[str]:
    rows = []
    for path in sorted((conf_dir() / "policy").glob("*.yaml")):
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
        name = fields.pop("name")
        shown = " ".join(f"{key}={value}" for key, value in fields.items())
        if name == traits.NATIVE:
            shown = "the rule that the model was released with (ff-bench ls models)"
        rows.append(
            [
                name,
                shown or "-",
                " ".join(f"{key}={value}" for key, value in traits.pins(name).items()) or "-",
            ]
        )
    rows += [[name, "installed package", ""] for name in traits.installed()]
    lines = grid(("policy", "fields", "pins"), rows)
    return [*lines, "", f"policy.wrap=[...] puts around one of them: {', '.join(policies.WRAPPERS)}"]


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
        listed = prompts.load(name, conf_dir() / "prompts", model=facts(_reader(name)))
        rows.append([name, str(len(listed.prompts)), listed.licence, "shipped", listed.source])
    rows += [list(shown(one)) for one in prompt_sets.manifest().values()]
    return [*grid(COLUMNS, rows), "", "ff-bench prompts fetch NAME gets what is absent"]


def _reader(name: str) -> str:
    """Return a model that reads a set: one that names it, else one that reads any text."""
    sets = {model: facts(model).prompt_sets for model in shipped.models()}
    return next((model for model, own in sets.items() if name in own), next(m for m in sets if not sets[m]))


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
