"""Measure chunks of a Wan member at its true size with random weights, by parts, beside what the card allows.

    python scripts/bench_rollout.py --budgets 18f 6f 8k --policies sliding_window h2o future_forcing

Random weights cost what trained ones do. The *limit* is what the library's own kernels need for the matrix
products and attention calls of a chunk and nothing else, measured in the same run. Seconds are medians over
chunks after the cache is full. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

import policies
from ff_bench.compose import compose
from ff_bench.models.wan.backbone import Wan
from ff_bench.models.wan.fused import fuse
from ff_bench.models.wan.member import Member
from ff_bench.models.wan.network import Size, WanNetwork
from ff_bench.models.wan.synthesis import true_sizes, write_vae
from ff_bench.models.wan.vae import WanVAE
from ff_bench.rollout import Chunk, Take, rollout
from policies.attention import attend
from policies.base import Budget, Protocol
from policies.context import Context
from policies.sliding_window import SlidingWindow

WARM_UP = 2
"""Chunks behind the first full cache that are not counted."""
GROUPS = {
    "attention": ("sdpa", "fmha", "flash", "_attention"),
    "products": ("gemm", "nvjet", "cutlass", "cublas", "splitk", "sgemm"),
}
"""Kernel names by part; the rest is elementwise."""


@dataclasses.dataclass
class Biased(SlidingWindow):
    """Sliding window whose slots carry an explicit log-mass."""

    slot_state: ClassVar[Mapping[str, float]] = MappingProxyType({"log_mass": 0.0})


def random_model(member: Member, *, ffn: int, device: str, dtype: torch.dtype) -> Wan:
    """Make a member with random weights at its own size; prompts are random embeddings."""
    dim = member.heads * member.head_dim
    size = Size(dim=dim, heads=member.heads, head_dim=member.head_dim, layers=member.layers, ffn=ffn)
    torch.manual_seed(0)
    with torch.device(device):
        network = WanNetwork(size).to(dtype)
    if device != "cpu":
        fuse(network)
    rows = torch.randn(1, member.text_tokens, size.text_dim, device=device, dtype=dtype)
    return Wan(member, network, "random", embed=lambda prompts: rows.expand(len(prompts), -1, -1))


def run(
    model: Wan,
    policy: policies.base.Policy,
    tokens: int | None,
    *,
    chunks: int,
    stride: int,
    profile: bool = False,
) -> dict[str, Any]:
    """Generate until the cache is full, then `chunks` more; return medians of these in milliseconds."""
    shape = model.shape
    fill = 0 if tokens is None else -(-tokens // shape.chunk_tokens)
    total = (fill + WARM_UP + chunks) * shape.chunk_frames
    recent = shape.chunk_tokens if tokens is not None and tokens >= 2 * shape.chunk_tokens else 0
    context = Context(
        policy, shape, Budget(tokens, 0, recent),
        Protocol(position=model.facts.position, query_stride=stride),
        capacity_tokens=tokens if tokens is not None else total * shape.frame_tokens,
        dtype=model.dtype, device=model.device,
    )  # fmt: skip
    timed: list[Chunk] = []
    first = None
    take = Take(["a"], [0], total, model.facts.steps, decode=False)
    for chunk in rollout(model, context, take):
        if tokens is not None and first is None and context.caches[0].has_dropped:
            first = [cache.tokens.clone() for cache in context.caches]
        if chunk.number >= fill + WARM_UP:
            timed.append(chunk)
    chunk_ms = statistics.median(chunk.seconds for chunk in timed) * 1e3
    policy_ms = statistics.median(chunk.policy_seconds for chunk in timed) * 1e3
    result: dict[str, Any] = {
        "chunk_ms": round(chunk_ms, 2),
        "policy_ms": round(policy_ms, 2),
        "first_kept": first,
    }
    result["fps"] = round(1e3 * shape.chunk_frames * model.facts.temporal_stride / chunk_ms, 2)
    return result


def parts_of(model: Wan, tokens: int) -> dict[str, float]:
    """Return the milliseconds of one chunk by part, from the profiler, and of its decoding."""
    from torch.profiler import ProfilerActivity, profile

    shape = model.shape
    fill = -(-tokens // shape.chunk_tokens)
    context = Context(
        policies.load("sliding_window")(), shape, Budget(tokens), Protocol(position=model.facts.position),
        dtype=model.dtype, device=model.device,
    )  # fmt: skip
    take = Take(["a"], [0], (fill + 3) * shape.chunk_frames, model.facts.steps, decode=False)
    chunks = rollout(model, context, take)
    for _ in range(fill + 2):
        next(chunks)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        chunk = next(chunks)
    found = dict.fromkeys([*GROUPS, "elementwise"], 0.0)
    for event in seen.key_averages():
        name = event.key.lower()
        marked = (part for part, marks in GROUPS.items() if any(mark in name for mark in marks))
        part = "elementwise" if name.startswith("triton_") else next(marked, "elementwise")
        found[part] += event.self_device_time_total / 1e3
    found["policy"] = chunk.policy_seconds * 1e3
    found["elementwise"] -= found["policy"]
    found["idle"] = chunk.seconds * 1e3 - sum(found.values())
    found["vae"] = decode_ms(model)
    return {part: round(value, 2) for part, value in found.items()}


def decode_ms(model: Wan) -> float:
    """Return the milliseconds of decoding one chunk by a VAE of random weights at its true size."""
    with tempfile.TemporaryDirectory() as folder:
        write_vae(Path(folder, "vae.pth"), true_sizes(model.member).vae)
        vae = WanVAE.load(Path(folder, "vae.pth"), model.device, model.dtype)
    decode = vae.decoder()
    latents = torch.randn(1, model.shape.chunk_frames, *model.latent_shape, device=model.device)
    seconds = []
    for _ in range(4):  # the first chunks begin the video and warm up
        begin = time.perf_counter()
        decode(latents.to(model.dtype)).cpu()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[2:]) * 1e3


def milliseconds(call: Callable[[], object], *, repeats: int = 20) -> float:
    """Return the median time of a call on the device."""
    for _ in range(3):
        call()
    pairs = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        pairs.append((begin, end))
    torch.cuda.synchronize()
    return float(statistics.median(begin.elapsed_time(end) for begin, end in pairs))


def limit_ms(model: Wan, tokens: int) -> float:
    """Return the milliseconds of the matrix products and attention calls of one chunk alone."""
    size, shape, dtype, device = model.network.size, model.shape, model.dtype, model.device
    x = torch.randn(shape.chunk_tokens, size.dim, device=device, dtype=dtype)
    wide = torch.randn(shape.chunk_tokens, size.ffn, device=device, dtype=dtype)

    def product(source: Tensor, out: int) -> float:
        weight = torch.randn(out, source.shape[1], device=device, dtype=dtype)
        bias = torch.randn(out, device=device, dtype=dtype)
        return milliseconds(lambda: F.linear(source, weight, bias))

    def attention(keys: int) -> float:
        q, k, v = (
            torch.randn(1, shape.heads, count, shape.head_dim, device=device, dtype=dtype)
            for count in (shape.chunk_tokens, keys, keys)
        )
        return milliseconds(lambda: attend(q, k, v))

    layer = (
        product(x, 3 * size.dim) + 3 * product(x, size.dim) + product(x, size.ffn) + product(wide, size.dim)
    )
    layer += attention(model.member.text_tokens) + attention(tokens + shape.chunk_tokens)
    return layer * size.layers * (model.facts.steps + 1)


def agreement(first: list[Tensor], other: list[Tensor]) -> float:
    """Return the share of the slots of one kept set that another keeps too."""
    shares = []
    for mine, theirs in zip(first, other, strict=True):
        flat = zip(mine.flatten(0, 1), theirs.flatten(0, 1), strict=True)
        shares += [float(torch.isin(a, b).float().mean()) for a, b in flat]
    return sum(shares) / len(shares)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="self_forcing")
    parser.add_argument("--set", nargs="*", default=[], help="overrides, such as model.layers=2")
    parser.add_argument("--ffn", type=int, default=8960)
    parser.add_argument("--policies", nargs="+", default=["sliding_window", "h2o", "future_forcing"])
    parser.add_argument("--budgets", nargs="+", default=["18f", "6f", "8k"])
    parser.add_argument("--strides", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--chunks", type=int, default=5)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    config = compose([f"model={options.model}", *options.set]).config
    assert isinstance(config.model.fields, Member), options.model
    begin = time.perf_counter()
    model = random_model(
        config.model.fields, ffn=options.ffn, device=options.device, dtype=getattr(torch, options.dtype)
    )
    results = []
    for budget in options.budgets:
        words = [
            f"model={options.model}",
            *options.set,
            f"budget={budget}",
            "length=600s",
            "protocol.recent=0",
        ]
        tokens = compose(words).config.budget.tokens
        assert tokens is not None, budget
        is_cuda = options.device != "cpu"
        limit = limit_ms(model, tokens) if is_cuda else None
        for name in options.policies:
            name, *fields = name.split(":")
            made = policies.load(name) if name != "log_mass" else Biased
            given = dict(field.split("=") for field in fields)
            exact = None
            for stride in options.strides if made.reads_attention else [1]:
                found = run(model, made(**given), tokens, chunks=options.chunks, stride=stride)
                kept = found.pop("first_kept")
                exact = exact or kept
                row = {
                    "policy": ":".join([name, *fields]),
                    "budget": budget,
                    "tokens": tokens,
                    "query_stride": stride,
                    **found,
                }
                row["policy_share"] = round(found["policy_ms"] / found["chunk_ms"], 4)
                row["kept_as_exact"] = round(agreement(exact, kept), 4) if kept else None
                if limit:
                    row["limit_ms"], row["of_limit"] = round(limit, 2), round(limit / found["chunk_ms"], 3)
                results.append(row)
                print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
        if is_cuda:
            parts = parts_of(model, tokens)
            results.append({"budget": budget, "parts_ms": parts})
            print(budget, parts, flush=True)
    name = torch.cuda.get_device_name() if options.device != "cpu" else "cpu"
    print(f"{time.perf_counter() - begin:.0f} s")
    print(
        json.dumps({"device": name, "torch": torch.__version__, "model": options.model, "results": results})
    )


if __name__ == "__main__":
    main()
