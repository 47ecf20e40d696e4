"""Time the embedded model's loop on a CPU against one dense forward of the same process.

A chunk is five noisy passes and a clean one, so a loop without context costs 6 dense forwards; what is above
6 is attention to the context, the cache and the policy. Figures are minima over chunks at a full cache (the
first chunks only fill it, with clean passes); dense forwards are timed between the chunks, so that both
see the same machine, and the smallest counts. One thread.

    python scripts/bench_mini.py                          # sliding_window, h2o, future_forcing at 1k and 8k
    python scripts/bench_mini.py --policies h2o --budgets 1024 --chunks 5

The last line of the output is one JSON document: per policy and budget the ratio, seconds per chunk and the
policy's share.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time

import torch
from torch import Tensor

import policies
from ff_bench.models.base import Model
from ff_bench.models.facts import facts
from ff_bench.models.mini.backbone import load
from ff_bench.rollout import Take, rollout
from policies.attention import attend
from policies.base import Budget, Protocol
from policies.context import Context

PROMPT = "orbit palette=3 speed=-3 sprite=disc hue=teal path=907"


def dense_seconds(model: Model, repeats: int = 2) -> float:
    """Return the smallest time of one forward of a chunk that sees only itself."""
    best = float("inf")
    with torch.inference_mode():
        conditioning = model.encode([PROMPT])
        latents = torch.randn(1, model.shape.chunk_frames, *model.latent_shape)
        level = torch.ones(1, model.shape.chunk_frames)
        turn = torch.zeros(model.shape.chunk_tokens, model.shape.head_dim // 2)

        def alone(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            rope = model.shape.rope
            return attend(rope.rotate(queries, turn), rope.rotate(keys, turn), values)[0]

        for _ in range(repeats):
            begin = time.perf_counter()
            model.denoise(latents, level, conditioning, alone, first_frame=0)
            best = min(best, time.perf_counter() - begin)
    return best


def chunk_seconds(model: Model, name: str, budget: int, *, chunks: int) -> tuple[float, float, float]:
    """Return the smallest seconds of a chunk at a full cache, of the policy in it, of a dense forward."""
    shape = model.shape
    fill = -(-budget // shape.chunk_tokens) * shape.chunk_frames
    protocol = Protocol(position="absolute")
    kept = Budget(budget, 0, shape.chunk_tokens)
    context = Context(policies.load(name)(), shape, kept, protocol, capacity_tokens=fill * shape.frame_tokens)
    prefix = 0.5 * torch.randn(1, fill, *model.latent_shape).clamp(-2, 2)
    take = Take([PROMPT], [0], fill + (chunks + 1) * shape.chunk_frames, 5, prefix)
    timed, dense = [], []
    for chunk in rollout(model, context, take):
        if not chunk.is_prefix:
            timed.append(chunk)
            dense.append(dense_seconds(model))
    seconds = min(chunk.seconds for chunk in timed[1:])
    return seconds, min(chunk.policy_seconds for chunk in timed[1:]), min(dense)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policies", nargs="+", default=["sliding_window", "h2o", "future_forcing"])
    parser.add_argument("--budgets", nargs="+", type=int, default=[1024, 8192])
    parser.add_argument("--chunks", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load(facts("mini").weights, device="cpu")
    results = []
    for budget, name in itertools.product(options.budgets, options.policies):
        seconds, policy_seconds, dense = chunk_seconds(model, name, budget, chunks=options.chunks)
        print(
            f"{name:16s} {budget:6d} tokens  {seconds * 1e3:7.1f} ms a chunk = {seconds / dense:5.2f} dense "
            f"forwards of {dense * 1e3:.1f} ms, policy {100 * policy_seconds / seconds:.1f} %",
            flush=True,
        )
        results.append(
            {
                "policy": name,
                "budget": budget,
                "ratio": round(seconds / dense, 2),
                "chunk_seconds": round(seconds, 4),
                "dense_seconds": round(dense, 4),
                "policy_share": round(policy_seconds / seconds, 4),
            }
        )
    print(json.dumps({"torch": torch.__version__, "threads": 1, "results": results}))


if __name__ == "__main__":
    main()
