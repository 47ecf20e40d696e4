"""From evicting to the affine merge, one step at a time: what does each step do to attention and to videos?

Attention: a rollout with the full cache is recorded once, its queries, keys and values are given to each
step in order, and the output for the true later queries is compared with that of the full cache: error per
head, its norm over that of the full output, root mean square over clean passes behind the first eviction,
then mean over layers, heads and videos. No video is generated, so nothing can drift. With ``--videos`` each
step also generates videos, and their quality against the truth of the world is printed beside it.

    python scripts/merge_ladder.py                                # orbit, 2 videos, 1k, minutes on one core
    python scripts/merge_ladder.py --videos --length 24s
    python scripts/merge_ladder.py --world cut --budget 512

The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass

import torch
from torch import Tensor

import ff_bench
import policies
from ff_bench.compose import compose
from ff_bench.models.base import Model
from ff_bench.models.facts import facts
from ff_bench.models.mini.backbone import load
from ff_bench.models.mini.prompt import MiniPrompt
from ff_bench.rollout import Take, rollout
from policies.base import Budget, Pass, Protocol, Shape
from policies.cache import LayerCache
from policies.context import Context
from policies.full import Full

AFFINE = {"merge": "affine", "merge_where": "all"}
STEPS: dict[str, dict[str, object]] = {
    "none": {"merge": "none"},
    "value (pooled)": {"merge": "value"},
    "value (rows)": {"merge": "value", "profile": "rows"},
    "pairs by covariance, value": {**AFFINE, "key": "survivor", "bias": "none"},
    "+ tangent key": {**AFFINE, "key": "tangent", "bias": "none"},
    "+ log-mass, key kept": {**AFFINE, "key": "survivor", "bias": "explicit"},
    "+ tangent key + log-mass": {**AFFINE, "key": "tangent", "bias": "explicit"},
    "+ tangent key + absorbed": {**AFFINE, "key": "tangent", "bias": "absorbed"},
    "log-mass, where cheaper": {"merge": "affine", "bias": "explicit"},
    "absorbed, where cheaper": {"merge": "affine", "bias": "absorbed"},
}
METRICS = ("world.revisit_psnr", "world.sprite_psnr")
Step = tuple[Tensor, Tensor, Tensor]


class Recorder(Full):
    """A full cache that keeps queries, keys and values of every clean pass."""

    def __init__(self) -> None:
        """Start with nothing recorded."""
        self.steps: list[Step] = []

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Keep (B, H, N, D) of one layer, un-rotated."""
        values = cache.staged_values[:, :, -step.keys.shape[2] :]
        self.steps.append((step.queries.clone(), step.keys.clone(), values.clone()))


@dataclass(frozen=True)
class Video:
    """One recorded rollout.

    Attributes:
        steps: queries, keys and values of each chunk's layers in order.
        prefix_frames: latent frames that every policy keeps.
    """

    steps: list[Step]
    prefix_frames: int


def record(model: Model, prompt: str, seed: int, frames: int) -> Video:
    """Generate one video with the full cache and keep what its attention reads."""
    recorder, shape = Recorder(), model.shape
    kept = Protocol(position="absolute")
    context = Context(recorder, shape, Budget(None), kept, capacity_tokens=frames * shape.frame_tokens)
    for _ in rollout(model, context, Take([prompt], [seed], frames, facts("mini").steps, decode=False)):
        pass
    return Video(recorder.steps, min(MiniPrompt.parse(prompt).prefix_frames(), frames - shape.chunk_frames))


def outputs(shape: Shape, video: Video, policy: policies.base.Policy, budget: Budget) -> list[Tensor]:
    """Return the attention output (H, N, D) of every layer of every chunk, given the recorded tensors."""
    chunks = len(video.steps) // shape.layers
    whole = chunks * shape.chunk_tokens
    context = Context(policy, shape, budget, Protocol(position="absolute"), capacity_tokens=whole)
    found = []
    noise = torch.zeros(1, shape.chunk_frames)
    with torch.inference_mode():
        for chunk in range(chunks):
            first = chunk * shape.chunk_frames
            is_past = first + shape.chunk_frames >= video.prefix_frames
            context.start_chunk(chunk, first, compress=is_past)
            context.start_pass(noise, commit=True)
            for layer in range(shape.layers):
                found.append(context.attend(layer, *video.steps[chunk * shape.layers + layer])[0])
            context.finish_chunk()
    return found


def error(shape: Shape, video: Video, exact: list[Tensor], mine: list[Tensor]) -> float:
    """Return the relative error, chunks behind the prefix, mean over layers and heads."""
    begin = (-(-video.prefix_frames // shape.chunk_frames) + 1) * shape.layers
    gaps = torch.stack(
        [(a - b).square().sum((1, 2)) for a, b in zip(mine[begin:], exact[begin:], strict=True)]
    )
    norms = torch.stack([a.square().sum((1, 2)) for a in exact[begin:]])  # (chunks * layers, H)
    relative = (gaps / norms).unflatten(0, (-1, shape.layers)).mean(0).sqrt()
    return float(relative.mean())


def quality(fields: dict[str, object], options: argparse.Namespace) -> dict[str, float]:
    """Generate and score the videos of one step; return the mean of each metric."""
    rows = ff_bench.run(
        policy={"name": "future_forcing", **fields}, prompts=options.world, limit=options.limit,
        budget=str(options.budget), length=options.length, metrics="world", device="cpu",
        runs_dir=options.runs_dir,
    )  # fmt: skip
    whole = rows[(rows["clip"] == -1) & (rows["status"] == "ok")]
    return {name: float(whole[whole["metric"] == name]["value"].mean()) for name in METRICS}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", default="orbit", help="prompt set of the embedded model")
    parser.add_argument("--limit", type=int, default=2, help="videos")
    parser.add_argument("--budget", type=int, default=1024, help="tokens")
    parser.add_argument("--length", default="18s", help="of the videos")
    parser.add_argument("--ridge", type=float, default=None, help="in place of the default")
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS), metavar="STEP")
    parser.add_argument("--videos", action="store_true", help="generate videos too")
    parser.add_argument("--runs-dir", default="runs", help="where videos go")
    return parser.parse_args()


def main() -> None:
    """Record, replay, generate where asked, print."""
    options = parse()
    torch.set_num_threads(1)
    words = [f"prompts={options.world}", f"limit={options.limit}", f"length={options.length}"]
    config = compose(words).config
    model = load(facts("mini").weights, device="cpu")
    shape, budget = model.shape, Budget(options.budget, 0, model.shape.chunk_tokens)
    chosen = [prompt.text for prompt in config.chosen]
    videos = [record(model, text, 0, config.length.latent_frames) for text in chosen]
    exact = [outputs(shape, video, Full(), Budget(None)) for video in videos]
    results = []
    for name in options.steps:
        fields = dict(STEPS[name])
        if options.ridge is not None:
            fields["ridge"] = options.ridge
        begin, make = time.perf_counter(), policies.load("future_forcing")
        errors = [
            error(shape, video, full, outputs(shape, video, make(**fields), budget))
            for video, full in zip(videos, exact, strict=True)
        ]
        row = {"step": name, "error": sum(errors) / len(errors), "seconds": time.perf_counter() - begin}
        if options.videos:
            row |= quality(fields, options)
        results.append(row)
        numbers = "  ".join(f"{key} {value:.4f}" for key, value in row.items() if key != "step")
        print(f"{name:28s} {numbers}", flush=True)
    print(json.dumps({"world": options.world, "videos": chosen, "budget": options.budget, "steps": results}))


if __name__ == "__main__":
    main()
