"""How much do queries move over the chunks of a video, before and after their rotation?

The observation under Future Forcing (arXiv 2605.30083, Sec. 3 and Table 8): queries before the rotary
embedding are nearly stationary over autoregressive steps, rotated ones are not. Printed per quantity, mean
over layers, heads and pairs of chunks:

- ``w1``: Wasserstein-1 distance between the values of one channel in two chunks, over the channel's standard
  deviation; ``w1 time`` takes the channels that carry time alone;
- ``frechet``: squared Frechet distance of the Gaussians of two chunks over the mean squared norm of a query;
- ``cosine``: of the mean query of a chunk with the mean of all.

    python scripts/query_drift.py --length 240 --prompt "orbit palette=3 speed=-3 path=900"

The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json

import torch
from torch import Tensor

from ff_bench.models.facts import facts
from ff_bench.models.mini.backbone import load
from ff_bench.rollout import Take, rollout
from policies.base import Budget, Pass, Protocol
from policies.cache import LayerCache
from policies.context import Context
from policies.full import Full


class Recorder(Full):
    """A full cache that keeps the queries of every clean pass."""

    def __init__(self) -> None:
        """Start with nothing recorded."""
        self.before: list[Tensor] = []
        self.after: list[Tensor] = []

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Keep (H, N, D) before and after the rotation."""
        self.before.append(step.queries[0].float().clone())
        self.after.append(step.rotated_queries[0].float().clone())


def drift(queries: Tensor, lags: tuple[int, ...], timed: Tensor) -> dict[str, float]:
    """Measure how much queries drift, mean over layers and heads.

    Args:
        queries: (C chunks, L layers, H, N, D).
        lags: distances between the chunks that are compared.
        timed: numbers of the channels that carry time.

    Returns:
        Name of a quantity -> its value.
    """
    ordered = queries.sort(3).values
    spread = queries.movedim(0, 2).flatten(2, 3).std(2)  # (L, H, D)
    means = queries.mean(3)  # (C, L, H, D)
    centred = queries - means[:, :, :, None]
    covariance = centred.mT @ centred / queries.shape[3]
    energy = queries.square().sum(-1).mean((0, 3))  # (L, H)
    out: dict[str, float] = {}
    for lag in lags:
        gap = (ordered[lag:] - ordered[:-lag]).abs().mean(3)  # (C - lag, L, H, D)
        out[f"w1 lag {lag}"] = (gap / spread).mean().item()
        out[f"w1 time lag {lag}"] = (gap / spread)[..., timed].mean().item()
        moved = (means[lag:] - means[:-lag]).square().sum(-1)
        frechet = moved + _bures(covariance[lag:], covariance[:-lag])
        out[f"frechet lag {lag}"] = (frechet / energy).mean().item()
    out["cosine"] = torch.cosine_similarity(means, means.mean(0, keepdim=True), dim=-1).mean().item()
    return {name: round(value, 4) for name, value in out.items()}


def _bures(first: Tensor, second: Tensor) -> Tensor:
    """Squared Bures distance of covariances (..., D, D)."""
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp(min=0).sqrt()[..., None, :] @ vectors.mT
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum(-1)
    trace = first.diagonal(dim1=-1, dim2=-2).sum(-1) + second.diagonal(dim1=-1, dim2=-2).sum(-1)
    squared: Tensor = trace - 2 * cross
    return squared.clamp(min=0)


def main() -> None:
    """Generate with the full cache, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompt", default="orbit palette=3 speed=-3 sprite=disc hue=teal path=900")
    parser.add_argument("--length", type=int, default=144, help="latent frames")
    parser.add_argument("--lags", nargs="+", type=int, default=[1, 5, 11], help="distances between chunks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load(facts("mini").weights, device="cpu")
    recorder, shape, kept = Recorder(), model.shape, Protocol(position="absolute")
    tokens = options.length * shape.frame_tokens
    context = Context(recorder, shape, Budget(None), kept, capacity_tokens=tokens)
    for _ in rollout(model, context, Take([options.prompt], [0], options.length, 5)):
        pass
    channels = torch.arange(shape.head_dim)
    timed = torch.cat([side[: shape.rope.time_pairs] for side in shape.rope.pairs(channels)])
    results = {}
    for name, recorded in (("before rotation", recorder.before), ("after rotation", recorder.after)):
        queries = torch.stack(recorded).unflatten(0, (-1, shape.layers))
        results[name] = drift(queries, tuple(options.lags), timed)
        print(f"{name:16s}", "  ".join(f"{key} {value:.4f}" for key, value in results[name].items()))
    print(json.dumps({"prompt": options.prompt, "latent_frames": options.length, "drift": results}))


if __name__ == "__main__":
    main()
