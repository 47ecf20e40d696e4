"""What a user should know of a configuration that is allowed but says less than it seems to."""

from __future__ import annotations

from collections.abc import Iterable

from ff_bench import weights
from ff_bench.config import RunConfig
from ff_bench.models.mini.prompt import MiniPrompt
from ff_bench.plan import size
from ff_bench.quantities import ELEMENT_BYTES


def remarks(configs: Iterable[RunConfig]) -> list[str]:
    """Return one sentence per kind of remark, each once: unused prompts, idle budgets, lost scores."""
    kinds = (_unused, _native, _loose, _beyond, _short, _unreached, _unscored)
    found = [kind(config) for config in configs for kind in kinds]
    return [sentence for sentence in dict.fromkeys(found) if sentence]


def _unused(config: RunConfig) -> str:
    total = len(config.prompts.prompts)
    if len(config.chosen) == total:
        return ""
    return f"used {len(config.chosen)} of {total} prompts of {config.prompts.name}; limit=null uses all"


def _native(config: RunConfig) -> str:
    native = config.facts.native
    if not config.policy.rule:
        return ""
    return (
        f"policy=native of {config.model.name} is {native.rule}: policy {native.policy} with {native.budget} "
        "of context; budget= does not apply to it"
    )


def _loose(config: RunConfig) -> str:
    if config.policy.is_full or config.policy.rule:
        return ""
    if config.budget.tokens is not None or config.budget.asked == "full":
        return ""
    asked, length = config.budget.asked, config.length.asked
    return f"budget={asked} holds the whole video of {length}: no policy drops anything"


def _beyond(config: RunConfig) -> str:
    """A model of text has not learnt to attend to more than its training window."""
    facts, length = config.facts, config.length
    held = length.latent_frames * facts.frame_tokens if config.budget.tokens is None else config.budget.tokens
    frames = held // facts.frame_tokens
    if facts.prompt_sets or config.policy.rule or frames <= facts.window_frames:
        return ""
    kept = size(facts.kv_bytes(held, element_bytes=ELEMENT_BYTES[config.dtype]))
    return (
        f"budget={config.budget.asked} of {length.asked} is {frames} latent frames, {kept} of keys "
        f"and values a video; {config.model.name} was trained on {facts.window_frames}"
    )


def _short(config: RunConfig) -> str:
    """The prefix is made with the full cache; a video no longer than it never meets its budget."""
    if config.protocol.prefix == "none" or config.budget.tokens is None:
        return ""
    whole = config.length.latent_frames
    covered = sum(MiniPrompt.parse(prompt.text).prefix_frames() >= whole for prompt in config.chosen)
    if not covered:
        return ""
    return (
        f"length={config.length.asked} is no longer than the prefix of {covered} of {len(config.chosen)} "
        f"prompts of {config.prompts.name}: no budget applies; take a longer video or protocol.prefix=none"
    )


def _unreached(config: RunConfig) -> str:
    """A switch holds from the next chunk on; behind the start of the last one it does nothing."""
    facts, frames = config.facts, config.length.latent_frames
    last = sum(facts.chunks(frames)[:-1])
    late = sum(
        any(facts.latent_at(seconds) > last for seconds, _ in prompt.switches) for prompt in config.chosen
    )
    if not late:
        return ""
    return (
        f"length={config.length.asked} ends before a switch of {late} of {len(config.chosen)} prompts of "
        f"{config.prompts.name} holds, which is at the start of a chunk; take a longer video"
    )


def _unscored(config: RunConfig) -> str:
    """A score whose weights are not here will be a row `unavailable`; better to know it before."""
    if "score" not in config.stages:
        return ""
    lost: dict[str, None] = {}
    names: dict[str, None] = {}
    for family, settings in config.metrics.items():
        asked = settings.get("dimensions")
        for part in weights.FAMILIES.get(family, ()):
            needed = _absent(part) if not isinstance(asked, list) or part in asked else []
            lost |= {f"{family}.{part}": None} if needed else {}
            names |= dict.fromkeys(needed)
    if not lost:
        return ""
    return (
        f"weights are missing, so that {', '.join(lost)} will be unavailable: "
        f"ff-bench weights fetch {' '.join(names)}"
    )


def _absent(part: str) -> list[str]:
    serving = [weight.name for weight in weights.manifest().values() if part in weight.serves]
    return [name for name in serving if weights.sha256(name) == weights.ABSENT]
