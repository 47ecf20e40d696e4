"""The generate stage: videos of one configuration side by side, each from its prefix to a finished folder."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor

from ff_bench import models, output, prefixes, runs
from ff_bench.config import ModelConfig, RunConfig
from ff_bench.making import make_policy as make_policy
from ff_bench.making import make_protocol as make_protocol
from ff_bench.making import start_policy
from ff_bench.models.base import Model
from ff_bench.noise import UpstreamDraws
from ff_bench.rollout import Chunk, Take, rollout
from ff_bench.runs import VideoSpec
from policies.context import Context

PER_VIDEO = ("kv_bytes", "state_bytes", "transient_bytes")


def generate(
    config: RunConfig, specs: Sequence[VideoSpec], advance: Callable[[int], None] = lambda _: None
) -> None:
    """Generate videos of one configuration side by side and write their folders.

    Videos with prefixes of different lengths, or whose prompts change at different times, run one group
    after the other. Finished videos among `specs` are made along, so that a batch gives the same result
    however much of it is done, and are not written again.

    Args:
        config: with its device resolved.
        specs: videos of one batch.
        advance: called with latent frames as they are done.

    Raises:
        Locked: where another process works on one of them.
        FloatingPointError: where latents are not finite, with the chunk and the policy.
    """
    model = load_model(config.model, config.device, config.dtype)
    if config.device != "cpu":
        torch.cuda.set_device(config.device)  # events and default streams are those of the current device
    if config.facts.latent_record:
        model.decoder()  # loads the VAE, so that a wrong file is told before anything is written
    groups: dict[tuple[object, ...], list[VideoSpec]] = {}
    for spec in specs:
        times = tuple(seconds for seconds, _ in spec.prompt.switches)
        key = (prefixes.length(config, spec.prompt), times, spec.prompt.start is not None)
        groups.setdefault(key, []).append(spec)
    for (prefix_frames, *_), group in groups.items():
        assert isinstance(prefix_frames, int), prefix_frames
        with ExitStack() as locks:
            locked = runs.unfinished(group)
            for spec in locked:
                locks.enter_context(runs.lock(spec.folder))
            wanted = runs.unfinished(locked)  # another process may have finished some meanwhile
            if wanted:
                prefix = prefixes.latents(model, config, group, prefix_frames)
                _generate_group(model, config, group, wanted=wanted, prefix=prefix, advance=advance)
            else:
                advance(len(group) * config.length.latent_frames)


_LOADED: dict[tuple[ModelConfig, str, str], Model] = {}


def load_model(model: ModelConfig, device: str, dtype: str) -> Model:
    """Load a model once per process; the last one is kept."""
    key = (model, device, dtype)
    if key not in _LOADED:
        _LOADED.clear()
        _LOADED[key] = models.load(model, device=device, dtype=getattr(torch, dtype))
    return _LOADED[key]


def _generate_group(
    model: Model,
    config: RunConfig,
    group: Sequence[VideoSpec],
    *,
    wanted: Sequence[VideoSpec],
    prefix: Tensor | None,
    advance: Callable[[int], None],
) -> None:
    """Generate videos whose prefixes (B, P, C, h, w) have one length; write those that are wanted."""
    take = make_take(model, config, group, prefix)
    context = make_context(model, config, take)
    began = time.perf_counter()
    _reset_peak(config.device)
    with ExitStack() as files:
        outputs = {
            index: files.enter_context(output.begun(spec))
            for index, spec in enumerate(group)
            if spec in wanted
        }
        for chunk in rollout(model, context, take):
            assert chunk.pictures is not None, chunk
            pictures = chunk.pictures.cpu().numpy()
            for index, one in outputs.items():
                one.add(pictures[index], chunk.latents[index], trace_of(chunk, index, len(group)))
            advance(len(group) * chunk.latents.shape[1])
        seconds = time.perf_counter() - began - sum(one.seconds for one in outputs.values())
        peak = _peak_bytes(config.device)
        for one in outputs.values():
            one.finish(prefix_frames=take.prefix_frames, seconds=seconds / len(group), peak_bytes=peak)


def make_take(model: Model, config: RunConfig, group: Sequence[VideoSpec], prefix: Tensor | None) -> Take:
    """Say what is generated for videos of one configuration side by side.

    Args:
        model: the backbone.
        config: of the videos.
        group: B videos whose prompts change at the same times.
        prefix: (B, P, C, h, w) latents that they start from, or None.
    """
    prompts, seeds = [spec.prompt.text for spec in group], [spec.seed for spec in group]
    frames, draws = config.length.latent_frames, None
    if config.protocol.noise == "upstream":
        draws = UpstreamDraws(
            seeds[0], frames, model.latent_shape, prefix_frames=0 if prefix is None else prefix.shape[1],
            dtype=model.dtype, device=config.device,
        )  # fmt: skip
    switches = {}
    for place, (seconds, _) in enumerate(group[0].prompt.switches):
        switches[config.facts.latent_at(seconds)] = [spec.prompt.switches[place][1] for spec in group]
    return Take(prompts, seeds, frames, config.steps, prefix, switches, draws)


def make_context(model: Model, config: RunConfig, take: Take) -> Context:
    """Start the policy of a configuration on empty caches with room for the longest context of its videos.

    Args:
        model: the backbone.
        config: of the videos.
        take: what is generated side by side; its prefix is kept in full before the budget applies.
    """
    turns = model.turns(config.length.latent_frames, steps=config.steps)
    return start_policy(
        make_policy(config), model.shape, config, prompts=take.prompts, seeds=take.seeds,
        frames=config.length.latent_frames - model.shape.chunk_frames, prefix_frames=take.prefix_frames,
        pass_tokens=max(turn.widest for turn in turns) * model.shape.frame_tokens,
    )  # fmt: skip


def trace_of(chunk: Chunk, index: int, batch: int) -> dict[str, Any]:
    """Make one line of the trace: seconds and bytes are the share of one of the `videos` side by side."""
    numbers = {
        name: value / batch if name in PER_VIDEO else value
        for name, value in chunk.summary.items()
        if name != "kept"
    }
    return {
        "chunk": chunk.number, "frame": chunk.first_frame, "prefix": chunk.is_prefix, "videos": batch,
        "seconds": (chunk.seconds + chunk.decode_seconds) / batch,
        "model_seconds": (chunk.seconds - chunk.policy_seconds) / batch,
        "policy_seconds": chunk.policy_seconds / batch, "decode_seconds": chunk.decode_seconds / batch,
        **numbers, "kept": chunk.summary["kept"][index],
    }  # fmt: skip


def _reset_peak(device: str) -> None:
    """Forget the peak of what this process did before, such as scoring; Linux can do that for a process."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as stream:
        stream.write("5")


def _peak_bytes(device: str) -> int | None:
    """Peak memory: of the device's tensors on a GPU, of the process on a CPU."""
    if device != "cpu":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
