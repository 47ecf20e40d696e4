"""Check a Wan member at its true size on a GPU, with random weights of the true layout.

    python scripts/check_full_size.py memory --budgets 18f 6f    # 60 s each: peak memory by lines, and times
    python scripts/check_full_size.py devices                    # one chunk in float32: CPU against GPU

The weights are written by the loader's own inverse and read back by the loader. Each ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import policies
from ff_bench.compose import compose
from ff_bench.models.base import Decoder
from ff_bench.models.wan.backbone import Wan
from ff_bench.models.wan.checkpoint import load_network
from ff_bench.models.wan.fused import fuse
from ff_bench.models.wan.member import Member
from ff_bench.models.wan.synthesis import layout, true_sizes, write_network, write_vae
from ff_bench.models.wan.vae import StreamDecoder, WanVAE
from ff_bench.rollout import Take, rollout
from policies.base import Budget, Protocol
from policies.context import Context

GIB = 1 << 30


class Watched(Wan):
    """A member that notes the peak memory of its transformer and of its decoder, chunk by chunk."""

    peaks: list[tuple[int, int]]
    stream: StreamDecoder

    def decoder(self) -> Decoder:
        """Decode, and note the peaks before and inside."""
        self.peaks = []
        self.stream = self._loaded_vae().decoder()

        def decode(latents: Tensor) -> Tensor:
            torch.cuda.synchronize()
            before = torch.cuda.max_memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            pictures = self.stream(latents)
            torch.cuda.synchronize()
            self.peaks.append((before, torch.cuda.max_memory_allocated()))
            torch.cuda.reset_peak_memory_stats()
            return pictures

        return decode


def load(member: Member, *, device: str, dtype: torch.dtype, is_fused: bool, with_vae: bool) -> Watched:
    """Write random weights in the member's layout, and load them."""
    sizes = true_sizes(member)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "transformer.pt")
        write_network(path, sizes, layout(member))
        network = load_network(member, path, None, device=device, dtype=dtype)
        vae = None
        if with_vae:
            write_vae(Path(folder, "vae.pth"), sizes.vae)
            vae = WanVAE.load(Path(folder, "vae.pth"), device, dtype)
    if is_fused:
        fuse(network)
    rows = torch.randn(
        1, member.text_tokens, sizes.network.text_dim, generator=torch.Generator().manual_seed(1)
    )
    return Watched(
        member, network, "random", embed=lambda prompts: rows.expand(len(prompts), -1, -1), vae=vae
    )


def activation_bytes(model: Wan) -> int:
    """Return the bytes of one forward besides weights and cache, with attention that returns its values."""
    shape = model.shape
    conditioning = model.encode(["a"])
    latent = torch.randn(1, shape.chunk_frames, *model.latent_shape, device=model.device).to(model.dtype)
    level = torch.ones(1, shape.chunk_frames, device=model.device)
    with torch.inference_mode():
        for _ in range(2):  # the first one compiles
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            model.denoise(latent, level, conditioning, lambda layer, q, k, v: v.clone(), first_frame=0)
            torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def memory(model: Watched, budget: str, *, seconds: int, policy: str, stride: int) -> dict[str, Any]:
    """Generate and decode one video; return peak memory against the sum of its parts, and times."""
    words = [f"model={model.member.name}", f"budget={budget}", f"length={seconds}s"]
    config = compose(words).config
    tokens, shape = config.budget.tokens, model.shape
    assert tokens is not None, budget
    activations = activation_bytes(model)
    torch.cuda.empty_cache()
    kept = Protocol(position=config.protocol.position, query_stride=stride)
    recent = min(shape.chunk_tokens, tokens - shape.frame_tokens)
    context = Context(
        policies.load(policy)(),
        shape,
        Budget(tokens, 0, recent),
        kept,
        dtype=model.dtype,
        device=model.device,
    )
    take = Take(["a"], [0], config.length.latent_frames, model.facts.steps)
    chunks, pictures = [], 0
    for chunk in rollout(model, context, take):
        assert chunk.pictures is not None
        pictures += chunk.pictures.shape[1]
        chunks.append((chunk.seconds, chunk.policy_seconds, chunk.decode_seconds, context._scratch))
    slots = context.caches[0].capacity * shape.heads * shape.head_dim * shape.layers * model.dtype.itemsize
    text_kv = model.encode(["a"]).text_kv
    lines = {
        "weights": sum(p.nbytes for p in model.network.parameters()),
        "vae_weights": sum(p.nbytes for p in model._loaded_vae().network.parameters()),
        "text_kv": sum(k.nbytes + v.nbytes for k, v in text_kv),
        "kv_of_budget_and_chunk": 2 * slots,
        "rotated_keys": slots,
        "policy_state": sum(
            cache.capacity * shape.heads * 4 * (1 + len(cache.state)) for cache in context.caches
        )
        + context._stats_nbytes(),
        "scores_until_the_chunk_ends": max(scratch for *_, scratch in chunks),
        "spare_layer": context.spare.nbytes() if context.spare is not None else 0,
        "decode_state": model.stream.state_nbytes,
        "one_layer_of_activations": activations,
    }
    full = [peak for peak, _ in model.peaks[-20:]]
    half = [peak for peak, _ in model.peaks[len(model.peaks) // 2 :][:20]]
    steady = chunks[len(chunks) // 2 :]
    median = {
        name: statistics.median(row[place] for row in steady)
        for place, name in enumerate(("chunk", "policy", "decode"))
    }
    total = sum(lines.values())
    return {
        "budget": budget, "policy": policy, "query_stride": stride,
        "chunks": len(chunks), "pictures": pictures,
        "GiB": {name: round(value / GIB, 3) for name, value in lines.items()},
        "sum_GiB": round(total / GIB, 3), "peak_GiB": round(max(full) / GIB, 3),
        "peak_over_sum": round(max(full) / total, 4), "last_over_middle": round(max(full) / max(half), 4),
        "decoder_peak_GiB": round(max(peak for _, peak in model.peaks) / GIB, 3),
        "chunk_ms": round(median["chunk"] * 1e3, 1), "policy_ms": round(median["policy"] * 1e3, 1),
        "decode_ms": round(median["decode"] * 1e3, 1),
        "fps_without_decode": round(12 / median["chunk"], 2),
        "fps_with_decode": round(12 / (median["chunk"] + median["decode"]), 2),
    }  # fmt: skip


def chunk_of(model: Wan) -> tuple[Tensor, float]:
    """Return the latents of one chunk with a full cache, and the seconds that it took."""
    frames = model.shape.chunk_frames
    context = Context(
        policies.load("full")(), model.shape, Budget(None), Protocol(position="absolute"),
        capacity_tokens=0, dtype=model.dtype, device=model.device,
    )  # fmt: skip
    begin = time.perf_counter()
    take = Take(["a"], [0], frames, model.facts.steps, decode=False)
    latents = torch.cat([chunk.latents.cpu() for chunk in rollout(model, context, take)], 1)
    return latents, time.perf_counter() - begin


def main() -> None:
    """Check and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["memory", "devices"])
    parser.add_argument("--model", default="self_forcing")
    parser.add_argument("--set", nargs="*", default=[], help="overrides, such as model.layers=2")
    parser.add_argument("--budgets", nargs="+", default=["18f", "6f"])
    parser.add_argument("--policy", default="future_forcing")
    parser.add_argument("--stride", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--device", default="cuda:0")
    options = parser.parse_args()
    member = compose([f"model={options.model}", *options.set]).config.model.fields
    assert isinstance(member, Member), options.model
    results: list[dict[str, Any]] = []
    if options.what == "memory":
        model = load(member, device=options.device, dtype=torch.bfloat16, is_fused=True, with_vae=True)
        for budget in options.budgets:
            found = memory(
                model, budget, seconds=options.seconds, policy=options.policy, stride=options.stride
            )
            print(json.dumps(found, indent=1), flush=True)
            results.append(found)
    else:
        plain = load(member, device="cpu", dtype=torch.float32, is_fused=False, with_vae=False)
        here, cpu_seconds = chunk_of(plain)
        plain.network.to(options.device)
        there, gpu_seconds = chunk_of(plain)
        fuse(plain.network)
        fused, _ = chunk_of(plain)
        spread = float(here.std())
        results.append({
            "cpu_seconds": round(cpu_seconds, 1), "gpu_seconds": round(gpu_seconds, 2),
            "std": round(spread, 4),
            "largest_difference": float((here - there).abs().max()),
            "largest_difference_fused": float((here - fused).abs().max()),
        })  # fmt: skip
        print(results[0])
    print(
        json.dumps(
            {"what": options.what, "model": options.model, "torch": torch.__version__, "results": results}
        )
    )


if __name__ == "__main__":
    main()
