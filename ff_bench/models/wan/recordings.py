"""Recorded rollouts of the original implementations, and the small copies of them that tests read.

A recording has tiny random weights, inputs, and every call of its rollouts. Weights and inputs follow from
seeds, so that a small copy keeps results only: the latents, and the flow of a few calls.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ff_bench.models.wan.network import Size
from ff_bench.models.wan.seeded import Inputs, random_inputs, random_weights

STEPS = (1000.0, 750.0, 500.0, 250.0)


@dataclass(frozen=True)
class Call:
    """One recorded forward.

    Attributes:
        x: (B, F, C, h, w) latents in.
        t: (B, F) time steps.
        first: first latent frame.
        flow: (B, F, C, h, w) out; None where it was not kept.
    """

    x: Tensor
    t: Tensor
    first: int
    flow: Tensor | None

    @property
    def is_clean(self) -> bool:
        """Whether its keys and values are kept."""
        return not bool(self.t.any())

    def to(self, device: torch.device | str) -> Call:
        """The same on a device."""
        flow = None if self.flow is None else self.flow.to(device)
        return Call(self.x.to(device), self.t.to(device), self.first, flow)


@dataclass(frozen=True)
class Rule:
    """What a rollout was asked for.

    Attributes:
        variant: whose context rule it has: `sf`, `longlive`, `longlive_inf`, `infinite`, `reward`, `rolling`.
        local: latent frames that a chunk sees, itself included; -1 for all.
        sink: first latent frames that stay.
        chunk: latent frames of a chunk.
        first_chunk: latent frames of the first chunk.
        steps: nominal time steps.
    """

    variant: str
    local: int
    sink: int
    chunk: int
    first_chunk: int
    steps: tuple[float, ...]


@dataclass(frozen=True)
class Case:
    """One recorded rollout.

    Attributes:
        name: of the case.
        rule: what was asked for.
        inputs: what it starts from.
        latents: (B, P + F, C, h, w) result.
        calls: forwards in order.
    """

    name: str
    rule: Rule
    inputs: Inputs
    latents: Tensor
    calls: tuple[Call, ...]

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the rollout."""
        return self.latents.dtype

    def to(self, device: torch.device | str) -> Case:
        """The same on a device."""
        calls = tuple(call.to(device) for call in self.calls)
        return replace(self, inputs=self.inputs.to(device), latents=self.latents.to(device), calls=calls)


@dataclass(frozen=True)
class Recording:
    """The cases of a file, which share their weights.

    Attributes:
        size: of the network.
        weights: float32, by original names.
        cases: rollouts.
    """

    size: Size
    weights: dict[str, Tensor]
    cases: tuple[Case, ...]


def read(path: Path) -> Recording:
    """Read a whole recording (`.pt`).

    Raises:
        KeyError: where the file has another layout.
    """
    held = torch.load(path, map_location="cpu", weights_only=True)
    config = held["config"]
    dim, heads = config["dim"], config["num_heads"]
    size = Size(
        dim, heads, dim // heads, config["num_layers"], config["ffn_dim"],
        config["freq_dim"], config["text_dim"], config["in_dim"],
    )  # fmt: skip
    cases = tuple(_case(name, held["variant"], one) for name, one in held["cases"].items())
    return Recording(size, held["state_dict"], cases)


def _case(name: str, variant: str, held: dict[str, Any]) -> Case:
    told, frame_tokens = held["case"], held["frame_seqlen"]
    chunk, steps = told["per_block"], tuple(float(step) for step in told.get("steps", STEPS))
    rule = Rule(variant, told["local"], told["sink"], chunk, 1 if told.get("indep") else chunk, steps)
    calls = tuple(
        Call(one["x"], one["t"].expand(one["x"].shape[:2]), one["current_start"] // frame_tokens, one["flow"])
        for one in held["calls"]
    )
    eps = tuple(one["eps"] for one in held["renoise"])
    inputs = Inputs(held["prompt_embeds"], held["initial_latent"], held["noise"], eps)
    return Case(name, rule, inputs, held["latents"], calls)


# -- small copies -----------------------------------------------------------------------------------------


def write_small(path: Path, recordings: Sequence[Recording]) -> None:
    """Write a small copy of recordings with the same weights: what does not follow from seeds.

    The flow of two noisy calls of each case is kept, of every one where the format is not float32.

    Args:
        path: of the `.safetensors` file.
        recordings: whole ones.

    Raises:
        ValueError: where weights or inputs do not follow from the seeds.
    """
    weights = random_weights(recordings[0].size)
    tensors: dict[str, Tensor] = {}
    told: list[dict[str, Any]] = []
    for recording in recordings:
        if not _same(recording.weights, weights):
            raise ValueError("weights of a recording are not those of its seed")
        for case in recording.cases:
            small = _small(case)
            if not small.inputs.same(case.inputs):
                raise ValueError(f"inputs of case {case.name} are not those of its seeds")
            told.append(_told(small))
            tensors |= _tensors(small)
    notes = {
        "size": json.dumps(asdict(recordings[0].size)), "cases": json.dumps(told), "sum": repr(_sum(weights)),
    }  # fmt: skip
    save_file(tensors, path, metadata=notes)


def read_small(path: Path) -> Recording:
    """Read a small copy; weights and inputs are drawn again.

    Raises:
        ValueError: where this torch draws other numbers than the one that recorded.
    """
    with safe_open(path, framework="pt") as file:
        notes = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    size = Size(**json.loads(notes["size"]))
    weights = random_weights(size)
    if abs(_sum(weights) - float(notes["sum"])) > 1e-3:
        raise ValueError("this torch draws other random numbers than the one that recorded: weights differ")
    return Recording(size, weights, tuple(_untold(one, tensors) for one in json.loads(notes["cases"])))


def _small(case: Case) -> Case:
    """Drop calls, and the flow of clean ones; draw the inputs again."""
    noisy = [call for call in case.calls if not call.is_clean]
    wanted = noisy if case.dtype != torch.float32 else [noisy[-len(case.rule.steps)], noisy[-1]]
    calls = []
    for call in case.calls:
        clean = case.latents[:, call.first : call.first + call.x.shape[1]]
        if any(call is one for one in wanted):
            calls.append(call)
        elif call.is_clean and torch.equal(call.x, clean):  # one original also commits unfinished states
            calls.append(replace(call, flow=None))
    given, drawn = case.inputs.given, [len(one) for one in case.inputs.eps]
    inputs = random_inputs(case.inputs.prompt.shape, case.inputs.noise, given=given, drawn=drawn)
    return replace(case, inputs=inputs, calls=tuple(calls))


def _told(case: Case) -> dict[str, Any]:
    """Return what is no tensor of a small case."""
    return {
        "name": case.name,
        "rule": asdict(case.rule),
        "prompt": list(case.inputs.prompt.shape),
        "given": case.inputs.given,
        "drawn": [len(one) for one in case.inputs.eps],
        "calls": [{"first": call.first, "t": call.t[0].tolist()} for call in case.calls],
    }


def _tensors(case: Case) -> dict[str, Tensor]:
    front = f"{case.rule.variant}/{case.name}"
    tensors = {f"{front}/latents": case.latents.contiguous()}
    for number, call in enumerate(case.calls):
        if call.flow is not None:
            tensors[f"{front}/{number}/x"] = call.x.contiguous()
            tensors[f"{front}/{number}/flow"] = call.flow.contiguous()
    return tensors


def _untold(told: dict[str, Any], tensors: dict[str, Tensor]) -> Case:
    """Undo `_told` and `_tensors`."""
    rule = Rule(**{**told["rule"], "steps": tuple(told["rule"]["steps"])})
    front, given = f"{rule.variant}/{told['name']}", told["given"]
    latents = tensors[f"{front}/latents"]
    inputs = random_inputs(told["prompt"], latents[:, given:], given=given, drawn=told["drawn"])
    calls = []
    for number, one in enumerate(told["calls"]):
        times = torch.tensor(one["t"]).expand(len(latents), -1)
        clean = latents[:, one["first"] : one["first"] + len(one["t"])]
        x, flow = tensors.get(f"{front}/{number}/x", clean), tensors.get(f"{front}/{number}/flow")
        calls.append(Call(x, times, one["first"], flow))
    return Case(told["name"], rule, inputs, latents, tuple(calls))


def _same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _sum(weights: dict[str, Tensor]) -> float:
    return sum(value.double().sum().item() for value in weights.values())
