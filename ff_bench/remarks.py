"""What a user should know of a configuration that is allowed but says less than it seems to."""

from __future__ import annotations

from collections.abc import Iterable

from ff_bench.config import RunConfig
from ff_bench.models.mini.prompt import MiniPrompt


def remarks(configs: Iterable[RunConfig]) -> list[str]:
    """Return one sentence per kind of remark, each once: unused prompts, budgets that never bind."""
    found = [sentence for config in configs for sentence in (_unused(config), _loose(config), _short(config))]
    return [sentence for sentence in dict.fromkeys(found) if sentence]


def _unused(config: RunConfig) -> str:
    total = len(config.prompts.prompts)
    if len(config.chosen) == total:
        return ""
    return f"used {len(config.chosen)} of {total} prompts of {config.prompts.name}; limit=null uses all"


def _loose(config: RunConfig) -> str:
    if config.policy.is_full or config.budget.tokens is not None or config.budget.asked == "full":
        return ""
    asked, length = config.budget.asked, config.length.asked
    return f"budget={asked} holds the whole video of {length}: no policy drops anything"


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
