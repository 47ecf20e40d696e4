"""The replay of a challenge: what each policy holds of one recorded video, and its error of attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ff_bench.challenge.plan import LENGTH, PROMPTS
from ff_bench.challenge.request import Request, composed
from ff_bench.config import RunConfig

if TYPE_CHECKING:
    from ff_bench.analysis.replay import Entry

MODEL = "mini"
STRIDE, AHEAD = 4, 8
"""One of so many query rows is measured; chunks ahead that `recall_ahead` sums over."""


@dataclass(frozen=True)
class Replayed:
    """What a replay gave.

    Attributes:
        errors: policy -> mean relative error of attention.
        figure: PNG.
        note: what it shows.
    """

    errors: dict[str, float]
    figure: Path
    note: str


def replay(asked: Request, out: Path) -> Replayed:
    """Record the first video of the challenge with the full cache and replay every policy on it.

    Args:
        asked: of the challenge.
        out: folder of the figure.

    Raises:
        ValueError: where a policy cannot run on what was recorded.
    """
    import pandas as pd

    from ff_bench import generate, pipeline, runs
    from ff_bench.analysis import recording, replay_figure
    from ff_bench.analysis import replay as replaying
    from ff_bench.analysis.replay_text import means
    from ff_bench.analysis.streams import Setting
    from ff_bench.report.style import paper_style, save

    full = _config(asked, ("policy=full",))
    full = replace(full, device=pipeline.device_of("cpu"))
    choice = recording.Choice(tuple(range(full.facts.layers)), tuple(range(full.facts.heads)))
    spec = runs.videos(full)[0]
    made = recording.record(lambda: generate.load_model(full.model, full.device, full.dtype), spec, choice)
    setting = Setting(choice, made, spec.seed, STRIDE)
    found = replaying.replay(setting, replaying.Plan(full, tuple(_entries(asked, full)), AHEAD))
    known = {"model": MODEL, "prompt_id": spec.prompt.id, "seed": spec.seed}
    rows = pd.DataFrame([{**known, **row} for row in found.rows], columns=list(replaying.COLUMNS))
    overlap = pd.DataFrame([{**known, **row} for row in found.overlap], columns=list(replaying.OVERLAP))
    facts = full.facts
    seconds = facts.chunk_frames * facts.temporal_stride / facts.fps
    with paper_style():
        figure = save(replay_figure.draw(rows, overlap, chunk_seconds=seconds), out / "plots" / "replay")[0]
    errors = {str(row["policy"]): float(row["error"]) for row in means(rows).reset_index().to_dict("records")}
    note = (
        f"One video of {MODEL} ({spec.prompt.id}) recorded with the full cache: how far the attention of "
        "each policy is from it, what it holds, and how alike they choose. Nothing builds up here as it "
        "does in a video."
    )
    return Replayed(errors, figure, note)


def _entries(asked: Request, full: RunConfig) -> list[Entry]:
    from ff_bench.analysis.replay import Entry

    named = [(asked.label, asked.policy), *((rival, (f"policy={rival}",)) for rival in asked.rivals)]
    found = []
    for name, policy in named:
        config = replace(_config(asked, policy), device=full.device)
        if config.budget.tokens is not None:
            found.append(Entry(name, config))
    return found


def _config(asked: Request, policy: Sequence[str]) -> RunConfig:
    words = [f"model={MODEL}", f"prompts='{PROMPTS[MODEL]}'", "limit=1", f"length={LENGTH}"]
    return composed(asked, policy, words)
