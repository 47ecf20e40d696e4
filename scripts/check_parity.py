"""Compare the Wan family of this package with recordings of the original implementations.

A recording holds tiny random weights, inputs, and every call of an original's rollout: latents in, time
steps, flow out. Two comparisons are made. *Forced*: each call is repeated on its recorded latents, over the
context that the original showed it, so that an error stays in its call. *Free*: the rollout of this package
runs on the recorded noise, under the policy that stands for the original's context rule.

    python scripts/check_parity.py reference/*.pt         # exit code 1 where one case is above its tolerance
    python scripts/check_parity.py reference/*.pt --fixture tests/ff_bench/models/wan/data/parity.safetensors
    python scripts/check_parity.py tests/ff_bench/models/wan/data/parity.safetensors

In bfloat16 the free rollout is printed, not judged: roundings grow from call to call. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ff_bench.models.facts import Native
from ff_bench.models.schedule import Span
from ff_bench.models.wan import layouts
from ff_bench.models.wan.backbone import Wan, rope_of
from ff_bench.models.wan.member import SPATIAL_STRIDE, Checkpoint, Member, Source
from ff_bench.models.wan.network import PATCH, WanNetwork
from ff_bench.models.wan.recordings import Call, Case, Recording, read, read_small, write_small
from ff_bench.noise import Draws
from ff_bench.rollout import Take, rollout
from policies import load as load_policy
from policies.base import Budget, Protocol
from policies.context import Context
from policies.rope import Rope

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2.0**-5}
"""Largest difference allowed; the least mistake that was tried makes 1e-3 in float32. In bfloat16 it is one
step between numbers from 4 to 8: processors round differently, some reach it."""
RELATIVE = ("longlive_inf", "infinite", "reward")
"""Variants whose positions are counted inside the window."""
ROLLING_WINDOW, ANCHOR, WINDOW = 21, 3, 21
DECAY = 0.999
"""Of the sink of the variant `reward`."""
NOWHERE = Source(path=None, repo="", file="", licence="")


def build(recording: Recording, dtype: torch.dtype) -> WanNetwork:
    """Make the network of a recording."""
    network = WanNetwork(recording.size)
    network.load_state_dict(layouts.fused(recording.weights))
    return network.to(dtype).eval().requires_grad_(False)


# -- forced -----------------------------------------------------------------------------------------------


class Replay:
    """Keys and values of clean calls, frame by frame, and what each variant shows of them.

    A plain reading of the originals, independent of the package's caches and policies: whole frames, one
    dense attention.
    """

    def __init__(self, network: WanNetwork, case: Case, rope: Rope | None = None) -> None:
        """Begin with nothing held.

        Args:
            network: of the weights of the case.
            case: what is repeated.
            rope: another rotation than the released one, for tests.
        """
        self.network, self.case, self.rule = network, case, case.rule
        self.rope = rope_of(network.size.head_dim) if rope is None else rope
        self.text_kv = network.text_kv(case.inputs.prompt)
        self.keys: list[dict[int, Tensor]] = [{} for _ in range(network.size.layers)]
        self.values: list[dict[int, Tensor]] = [{} for _ in range(network.size.layers)]
        self.grid = tuple(side // PATCH for side in case.latents.shape[-2:])
        self.dropped = self.rule.sink
        self._call = case.calls[0]

    def run(self, call: Call) -> Tensor:
        """Repeat one call, in order; return its flow (B, F, C, h, w)."""
        self._call = call
        if self.rule.variant == "reward":
            self._decay(call)
        flow: Tensor = self.network(call.x, call.t, self.text_kv, self.attend)
        return flow

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend to what is shown and to the call itself; keep what a clean call wrote."""
        call, held, kept = self._call, self.keys[layer], self.values[layer]
        shown, times, own = self.shown()
        rotated = self._rotated(torch.cat([*[held[frame] for frame in shown], keys], 2), [*times, *own])
        seen = torch.cat([*[kept[frame] for frame in shown], values], 2)
        out = F.scaled_dot_product_attention(self._rotated(queries, own), rotated, seen)
        if call.is_clean:
            count = call.x.shape[1]
            held |= dict(enumerate(keys.chunk(count, 2), call.first))
            kept |= dict(enumerate(values.chunk(count, 2), call.first))
        return out

    def shown(self) -> tuple[list[int], list[int], list[int]]:
        """Return the frames that the current call sees, their time indices, and those of its own frames."""
        rule, first, count = self.rule, self._call.first, self._call.x.shape[1]
        own = list(range(first, first + count))
        if rule.variant == "rolling":
            return *self._rolling(first, count), own
        room = first if rule.local < 0 else rule.local - count - rule.sink
        frames = [*range(min(rule.sink, first)), *range(max(rule.sink, first - max(room, 0)), first)]
        if rule.variant not in RELATIVE:
            return frames, frames, own
        return frames, list(range(len(frames))), list(range(len(frames), len(frames) + count))

    def _rolling(self, first: int, count: int) -> tuple[list[int], list[int]]:
        """Return frames and times: the newest ones, before them the anchor at the time just in front."""
        if self._call.is_clean:
            frames = list(range(max(0, first - (ROLLING_WINDOW - count)), first))
            return frames, frames
        if first == 0:
            return [], []
        working = list(range(max(ANCHOR, first - (ROLLING_WINDOW - count - ANCHOR)), first))
        begin = first - len(working) - ANCHOR
        return [*range(ANCHOR), *working], [*range(begin, begin + ANCHOR), *working]

    def _decay(self, call: Call) -> None:
        """Fold frames that left the window since the last call into the sink, as many at a time."""
        sink, end = self.rule.sink, call.first + call.x.shape[1] - self.rule.local + self.rule.sink
        while self.dropped + sink <= end:
            for held in (*self.keys, *self.values):
                for frame in range(sink):
                    held[frame] = DECAY * held[frame] + (1 - DECAY) * held[self.dropped + frame]
            self.dropped += sink

    def _rotated(self, x: Tensor, times: Sequence[int]) -> Tensor:
        rows, columns = self.grid
        grid = torch.tensor(times)[:, None, None], torch.arange(rows)[:, None], torch.arange(columns)
        angles = self.rope.angles(*(axis.to(x.device) for axis in grid))
        return self.rope.rotate(x, angles.flatten(0, 2))


def forced_error(network: WanNetwork, case: Case, rope: Rope | None = None) -> float:
    """Repeat the calls of a case on their recorded latents; return the largest difference of flow."""
    replay, worst = Replay(network, case, rope), 0.0
    with torch.inference_mode():
        for call in case.calls:
            flow = replay.run(call)
            if call.flow is not None:
                worst = max(worst, (flow.float() - call.flow.float()).abs().max().item())
    return worst


# -- free -------------------------------------------------------------------------------------------------


class RecordedDraws(Draws):
    """The noise of a recording, by chunk and step."""

    def __init__(self, model: Wan, case: Case) -> None:
        """Sort the recorded noise in the order of the original's passes.

        Where chunks are denoised jointly, the original draws for all frames of the window and uses, for each
        chunk that goes on, its part.
        """
        self.inputs = case.inputs
        self.eps: dict[tuple[int, int], Tensor] = {}
        batch, drawn = len(case.latents), iter(case.inputs.eps)
        for turn in turns_of(model, case):
            for step in turn.passes:
                for span in step.spans:
                    if span.next_level is not None:
                        begin = span.first - step.first
                        whole = next(drawn).unflatten(0, (batch, step.frames))
                        self.eps[span.chunk, span.step] = whole[:, begin : begin + span.frames]
        assert next(drawn, None) is None, "more noise was drawn than is used"

    def initial(self, span: Span) -> Tensor:
        """See `Draws.initial`."""
        begin = span.first - self.inputs.given
        return self.inputs.noise[:, begin : begin + span.frames]

    def fresh(self, span: Span) -> Tensor:
        """See `Draws.fresh`."""
        return self.eps[span.chunk, span.step]


class Filled(Budget):
    """A budget that the sink fills: some recordings leave nothing to decide."""

    def require_free_frame(self, frame_tokens: int) -> None:
        """Accept it."""


def model_of(network: WanNetwork, case: Case) -> Wan:
    """Make the backbone of a case; prompts are its recorded embeddings."""
    rule, size = case.rule, network.size
    height, width = (side * SPATIAL_STRIDE for side in case.latents.shape[-2:])
    member = Member(
        name=rule.variant, layers=size.layers, heads=size.heads, head_dim=size.head_dim, height=height,
        width=width, fps=16, chunk_frames=rule.chunk, first_chunk_frames=rule.first_chunk,
        window_frames=WINDOW, passes="rolling" if rule.variant == "rolling" else "chunkwise",
        steps=rule.steps, first_steps=None, shift=5.0, warp=True, clean_step=0.0, recache_frames=0,
        recache_sink=False, text_tokens=case.inputs.prompt.shape[1], native=Native(rule.variant, "full"),
        checkpoint=Checkpoint(NOWHERE, key=None, ema=False), text_encoder=NOWHERE, tokenizer=NOWHERE,
        vae=NOWHERE, offload=False, decoder="vae", preview=NOWHERE,
    )  # fmt: skip
    return Wan(member, network, "recorded", embed=lambda prompts: case.inputs.prompt)


def turns_of(model: Wan, case: Case) -> Sequence[Any]:
    """Return the turns of the whole recording."""
    frames, steps = case.latents.shape[1], len(case.rule.steps)
    return model.turns(frames, steps=steps, prefix_frames=case.inputs.given)


def native(case: Case) -> tuple[str, int | None, int, str]:
    """Return the policy of a variant, its budget and its sink in latent frames, and the position mode."""
    rule = case.rule
    if rule.variant == "rolling":
        return "rolling_anchor", ROLLING_WINDOW, ANCHOR, "absolute"
    if rule.local < 0:
        return "full", None, 0, "absolute"
    names = {"longlive_inf": "streaming_llm", "infinite": "streaming_llm", "reward": "ema_sink"}
    name = names.get(rule.variant, "attention_sink" if rule.sink else "sliding_window")
    return name, rule.local - rule.chunk, rule.sink, "contiguous" if rule.variant in RELATIVE else "absolute"


def free_latents(network: WanNetwork, case: Case) -> Tensor:
    """Run the rollout of this package on the recorded noise; return its latents (B, F, C, h, w)."""
    model = model_of(network, case)
    name, frames, sink, position = native(case)
    tokens, turns = model.shape.frame_tokens, turns_of(model, case)
    budget = Filled(None if frames is None else frames * tokens, sink * tokens if frames else 0)
    context = Context(
        load_policy(name)(), model.shape, budget, Protocol(position=position),
        batch=len(case.latents), capacity_tokens=case.latents.shape[1] * tokens,
        pass_tokens=max(turn.widest for turn in turns) * tokens, dtype=model.dtype, device=model.device,
    )  # fmt: skip
    take = Take(
        [""] * len(case.latents), range(len(case.latents)), case.latents.shape[1], len(case.rule.steps),
        prefix=case.inputs.initial, draws=RecordedDraws(model, case), decode=False,
    )  # fmt: skip
    return torch.cat([chunk.latents for chunk in rollout(model, context, take)], 1)


def free_error(network: WanNetwork, case: Case) -> float:
    """Return the largest difference of latents of the free rollout."""
    return (free_latents(network, case).float() - case.latents.float()).abs().max().item()


# -- the command ------------------------------------------------------------------------------------------


def check(recording: Recording, device: str) -> list[dict[str, Any]]:
    """Compare every case of a recording on a device; print and return a row for each."""
    rows = []
    for case in (one.to(device) for one in recording.cases):
        network, allowed = build(recording, case.dtype).to(device), TOLERANCE[case.dtype]
        forced, free = forced_error(network, case), free_error(network, case)
        is_fine = forced <= allowed and (free <= allowed or case.dtype != torch.float32)
        label = f"{case.rule.variant}/{case.name}"
        verdict = "fine" if is_fine else "WRONG"
        print(f"{label:32} forced {forced:.1e}  free {free:.1e}  {verdict}", flush=True)
        rows.append({"case": label, "forced": forced, "free": free, "allowed": allowed, "fine": is_fine})
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Check files, or write the small copy; return 1 where one case is above its tolerance."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, help="recordings (.pt) or small copies (.safetensors)")
    parser.add_argument("--fixture", type=Path, help="write a small copy of the recordings here")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    asked = parser.parse_args(arguments)
    recordings = [read_small(file) if file.suffix == ".safetensors" else read(file) for file in asked.files]
    if asked.fixture is not None:
        write_small(asked.fixture, recordings)
        print(json.dumps({"file": str(asked.fixture), "bytes": asked.fixture.stat().st_size}))
        return 0
    rows = [row for recording in recordings for row in check(recording, asked.device)]
    is_fine = all(row["fine"] for row in rows)
    print(json.dumps({"fine": is_fine, "cases": rows}))
    return 0 if is_fine else 1


if __name__ == "__main__":
    sys.exit(main())
