"""Recorded chunks streamed through `policies.context.Context`: what a run would hold, without the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ff_bench.analysis.recording import Choice, Piece, Recording
from ff_bench.config import RunConfig
from ff_bench.making import start_policy
from policies.attention import mass, products, strided
from policies.base import Pass, Policy, Shape
from policies.cache import LayerCache
from policies.full import Full


@dataclass(frozen=True)
class Setting:
    """What is the same for every stream over one recording.

    Attributes:
        choice: numbers of the recorded layers and heads in the model.
        recording: what is streamed.
        seed: of the video.
        stride: one of so many query rows is measured.
        samples: query rows of a chunk that `Greedy` looks ahead with.
    """

    choice: Choice
    recording: Recording
    seed: int
    stride: int = 1
    samples: int = 16

    @property
    def shape(self) -> Shape:
        """Of the recorded layers and heads."""
        return self.recording.shape

    def measured(self, outputs: Tensor) -> Tensor:
        """Choose the measured rows of (L, Hq, N, D)."""
        chosen = strided(outputs.shape[2], self.stride, outputs.device)
        return outputs if chosen is None else outputs[:, :, chosen]


class Stream:
    """One policy under one budget, fed with recorded tensors as the rollout would feed it."""

    def __init__(self, setting: Setting, config: RunConfig, policy: Policy) -> None:
        """Start the policy on empty caches.

        Args:
            setting: of the recording.
            config: protocol, budget and device.
            policy: the object that decides.
        """
        self.setting, self.config = setting, config
        self.context = start_policy(
            policy, setting.shape, config, prompts=[setting.recording.prompt], seeds=[setting.seed],
            frames=config.length.latent_frames, prefix_frames=setting.recording.prefix_frames,
        )  # fmt: skip

    def step(self, piece: Piece, tensors: Mapping[str, Tensor]) -> Tensor:
        """Run the recorded passes of one chunk.

        Args:
            piece: the chunk.
            tensors: its recorded tensors.

        Returns:
            Attention output of the clean pass, (L, Hq, N, D) fp32.
        """
        context, end = self.context, piece.first + piece.frames
        context.start_chunk(
            piece.number, piece.first, piece.frames, compress=end >= self.setting.recording.prefix_frames
        )
        for number, level in enumerate(piece.levels):
            if context.protocol.passes == "all":
                context.start_pass(self._level(level, piece), False)
                self._attend(tensors, f"noisy{number}.")
        context.start_pass(self._level(0.0, piece), True)
        outputs = self._attend(tensors, "")
        context.finish_chunk()
        return outputs

    def _level(self, level: float, piece: Piece) -> Tensor:
        return torch.full((1, piece.frames), level, device=self.context.device)

    def _attend(self, tensors: Mapping[str, Tensor], ahead: str) -> Tensor:
        found = []
        for layer in range(self.setting.shape.layers):
            parts = (tensors[ahead + name][layer][None] for name in ("queries", "keys", "values"))
            found.append(self.context.attend(layer, *parts)[0].float())
        return torch.stack(found)

    def has_dropped(self) -> bool:
        """Whether any slot has gone."""
        return any(cache.has_dropped for cache in self.context.caches)

    def kept(self, tokens: int) -> Tensor:
        """Return which of the first `tokens` tokens of the video are held, (L, H, tokens) bool."""
        held = torch.zeros(
            (self.setting.shape.layers, self.setting.shape.heads, tokens + 1), dtype=torch.bool,
            device=self.context.device,
        )  # fmt: skip
        for layer, cache in enumerate(self.context.caches):
            held[layer].scatter_(1, cache.tokens[0].long().clamp(max=tokens), True)
        return held[..., :tokens]  # what holds nothing went to the place behind the last


@dataclass(frozen=True)
class Truth:
    """What the full cache does in one chunk.

    Attributes:
        outputs: attention output of the measured rows, (L, Hq, R, D) fp32.
        mass: attention that each context token receives from these rows, (L, H, S) fp32.
        queries: rotated queries of sampled rows, (L, Hq, R', D) fp32.
        sampled: attention output of the sampled rows, (L, Hq, R', D) fp32.
        log_sum: log-sum-exp of the sampled rows over context and chunk, (L, Hq, R') fp32.
    """

    outputs: Tensor
    mass: Tensor
    queries: Tensor
    sampled: Tensor
    log_sum: Tensor


class Witness(Full):
    """A full cache that notes the attention of each clean pass."""

    def __init__(self, setting: Setting) -> None:
        """Begin with nothing noted."""
        self.setting = setting
        self.noted: list[tuple[Tensor, Tensor, Tensor]] = []

    def rows(self, count: int, device: torch.device) -> Tensor:
        """Return which rows of a chunk are sampled."""
        chosen = strided(count, -(-count // self.setting.samples), device)
        return torch.arange(count, device=device) if chosen is None else chosen

    def observe(self, cache: LayerCache, step: Pass) -> None:
        """Note mass, sampled queries and their log-sum-exp."""
        if not step.commit:
            return
        rotated, keys = step.rotated_queries, cache.staged_keys
        whole = mass(rotated, keys, context=cache.size, stride=self.setting.stride)
        some = rotated[:, :, self.rows(rotated.shape[2], rotated.device)]
        group = some.shape[1] // keys.shape[1]
        logits = products(some.flatten(1, 2).unflatten(1, (keys.shape[1], -1)), keys)
        log_sum = (logits / keys.shape[3] ** 0.5).logsumexp(-1).unflatten(2, (group, -1)).flatten(1, 2)
        self.noted.append((whole[0, :, : cache.size], some[0].float(), log_sum[0]))


def truths(setting: Setting, config: RunConfig) -> list[Truth]:
    """Stream a recording through a full cache once.

    Args:
        setting: of the recording.
        config: of the full cache.
    """
    witness = Witness(setting)
    stream = Stream(setting, config, witness)
    found = []
    for piece in setting.recording.pieces:
        tensors = setting.recording.load(piece, config.device)
        every = stream.step(piece, tensors)
        masses, queries, log_sums = (torch.stack(part) for part in zip(*witness.noted, strict=True))
        witness.noted.clear()
        sampled = every[:, :, witness.rows(every.shape[2], every.device)]
        found.append(Truth(setting.measured(every), masses, queries, sampled, log_sums))
    return found


def ahead(found: Sequence[Truth], chunk: int, count: int, tokens: int) -> Tensor:
    """Return the mass that the first tokens get from `count` chunks from `chunk` on, (L, H, tokens)."""
    return torch.stack([truth.mass[..., :tokens] for truth in found[chunk : chunk + count]]).sum(0)
