"""A member of the Wan family as a backbone: its passes, its prompts, its flow turned into clean latents."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ff_bench.errors import UsageError, out_of_range
from ff_bench.models.base import Attend, Decoder, Model
from ff_bench.models.schedule import Span, Turn, chunkwise, rolling
from ff_bench.models.wan import facts
from ff_bench.models.wan.checkpoint import load_network
from ff_bench.models.wan.decoding import load_preview, load_vae
from ff_bench.models.wan.files import digest, joined, locate
from ff_bench.models.wan.flow import STEPS, FlowSchedule
from ff_bench.models.wan.fused import fuse
from ff_bench.models.wan.member import Member
from ff_bench.models.wan.network import TextKV, WanNetwork
from policies.base import Shape
from policies.rope import Rope

if TYPE_CHECKING:
    from ff_bench.models.wan.preview import TaeHV
    from ff_bench.models.wan.vae import WanVAE

LOGGER = logging.getLogger(__name__)
ROPE_BASE = 10000.0

Embed = Callable[[Sequence[str]], Tensor]
"""Turns B prompts into embeddings (B, T, text_dim)."""


@dataclass(frozen=True)
class Conditioning:
    """B encoded prompts: keys and values (B, H, T, D) of the cross-attention of every layer."""

    text_kv: TextKV


class Wan(Model):
    """A causal Wan2.1 transformer with its flow, its text encoder and its VAE.

    Latents are (16, h, w) in the format of the weights, from the first noise to the record, as upstream.
    """

    renoises = True

    def __init__(
        self,
        member: Member,
        network: WanNetwork,
        checkpoint: str,
        *,
        embed: Embed | None = None,
        vae: WanVAE | None = None,
        preview: TaeHV | None = None,
    ) -> None:
        """Wrap a network; what is not given is loaded from the member's files when it is first used.

        Args:
            member: sizes, steps and files.
            network: where it stays, in the format that the cache has too.
            checkpoint: sha256 of its weights.
            embed: encodes prompts.
            vae: encodes and decodes pictures.
            preview: decodes pictures where the member says `taehv`.
        """
        self.member, self.network, self.checkpoint = member, network.eval().requires_grad_(False), checkpoint
        self.facts = facts.of_member(member)
        self.flow = FlowSchedule(member.shift)
        self.shape = Shape(
            layers=member.layers,
            query_heads=member.heads,
            heads=member.heads,
            head_dim=member.head_dim,
            rows=member.rows,
            columns=member.columns,
            chunk_frames=member.chunk_frames,
            window_frames=member.window_frames,
            rope=rope_of(member.head_dim),
        )
        self.latent_shape = member.latent_shape
        self.dtype = network.dtype
        self.recache_frames, self.recache_sink = member.recache_frames, member.recache_sink
        self._embed, self._vae, self._preview = embed, vae, preview

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.device

    def turns(self, latent_frames: int, *, steps: int, prefix_frames: int = 0) -> tuple[Turn, ...]:
        """See `Model.turns`; the steps are those that the member was distilled for.

        Raises:
            UsageError: for another number of steps, or for a prefix where chunks are denoised jointly.
        """
        member, sizes = self.member, self.facts.chunks(latent_frames)
        if steps != len(member.steps):
            raise out_of_range("steps", steps, f"{len(member.steps)}, the passes of model={member.name}")
        levels, clean = self._levels(member.steps), member.clean_step / STEPS
        if member.passes == "rolling":
            if prefix_frames:
                raise UsageError(
                    f"protocol.prefix is not allowed with model={member.name}: its chunks are denoised "
                    "jointly from the first on"
                )
            return rolling(sizes, levels, clean=clean)
        first = None if member.first_steps is None else self._levels(member.first_steps)
        return chunkwise(
            sizes, levels, end=None, first_levels=first, prefix_frames=prefix_frames, clean=clean
        )

    def _levels(self, steps: Sequence[float]) -> tuple[float, ...]:
        times = self.flow.warped(steps) if self.member.warp else steps
        return tuple(time / STEPS for time in times)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Embed B prompts and make the keys and values of the cross-attention; the text encoder is freed."""
        if self._embed is not None:
            embeddings = self._embed(prompts)
        else:
            from ff_bench.models.wan.text import encode_prompts

            embeddings = encode_prompts(prompts, self.member, device=self.device, dtype=self.dtype)
        return Conditioning(self.network.text_kv(embeddings.to(self.device)))

    def denoise(
        self,
        latent: Tensor,
        noise: Tensor,
        conditioning: object,
        attend: Attend,
        *,
        first_frame: int,
        cache_only: bool = False,
    ) -> Tensor:
        """See `Model.denoise`; every frame has its own level, and positions are those of `attend`."""
        assert isinstance(conditioning, Conditioning), type(conditioning)
        latent = latent.to(self.dtype)
        predicted = self.network(
            latent, self.flow.time(noise), conditioning.text_kv, attend, cache_only=cache_only
        )
        return predicted if cache_only else self.flow.x0(latent, predicted, noise)

    def advance(self, latent: Tensor, predicted: Tensor, span: Span, noise: Tensor | None) -> Tensor:
        """Put fresh noise on x0; the last prediction is the result."""
        if span.next_level is None:
            return predicted
        assert noise is not None, span
        level = torch.full(predicted.shape[:2], span.next_level, dtype=torch.float64, device=predicted.device)
        return self.flow.renoise(predicted, noise.to(self.dtype), level)

    def decoder(self) -> Decoder:
        """Begin to decode, by the VAE or by the preview decoder where the member says so."""
        if self.member.decoder == "taehv":
            return self._loaded_preview().decoder()
        vae = self._loaded_vae()
        decode = vae.decoder()
        return Offloaded(vae, decode, self.device) if self.member.offload else decode

    def encode_frames(self, frames: Tensor) -> Tensor:
        """See `Model.encode_frames`; the first picture becomes one latent frame, then four by four.

        Raises:
            ValueError: where the pictures are of another size than the model's, or not 1, 5, 9, ... of them.
        """
        if frames.shape[1:3] != (self.member.height, self.member.width):
            raise ValueError(
                f"pictures are {frames.shape[2]} x {frames.shape[1]}; model={self.member.name} takes "
                f"{self.member.width} x {self.member.height}"
            )
        vae = self._loaded_vae()
        if not self.member.offload:
            return vae.encode(frames)
        latents = vae.to(self.device).encode(frames)
        vae.to("cpu")
        return latents

    def _loaded_vae(self) -> WanVAE:
        if self._vae is None:
            home = "cpu" if self.member.offload else self.device
            self._vae = load_vae(self.member, device=home, dtype=self.dtype)
        return self._vae

    def _loaded_preview(self) -> TaeHV:
        if self._preview is None:
            self._preview = load_preview(self.member, device=self.device, dtype=self.dtype)
        return self._preview


@dataclass
class Offloaded:
    """A decoder whose VAE is on the device while it decodes only.

    Attributes:
        vae: the weights that move.
        decode: their decoder; what it holds of earlier frames stays on the device.
        device: where it decodes.
    """

    vae: WanVAE
    decode: Decoder
    device: torch.device

    def __call__(self, latents: Tensor) -> Tensor:
        """Decode the next latent frames, see `Decoder`."""
        self.vae.to(self.device)
        try:
            return self.decode(latents)
        finally:
            self.vae.to("cpu")


def rope_of(head_dim: int) -> Rope:
    """Rotation of the family: a third of a head for row and column each, in whole pairs; 44/42/42 of 128.

    Source: guandeh17/Self-Forcing@33593df3 wan/modules/model.py (`rope_params`, `rope_apply`).
    """
    side = 2 * (head_dim // 6)
    return Rope(
        dims=(head_dim - 2 * side, side, side), bases=(ROPE_BASE, ROPE_BASE, ROPE_BASE), layout="interleaved"
    )


def prepare(
    member: Member, prompts: Sequence[str], *, device: torch.device | str, dtype: torch.dtype
) -> None:
    """Encode the prompts of a whole run before its first video; the text encoder is loaded once and freed.

    Args:
        member: sizes, steps and files.
        prompts: texts of the run.
        device: where the encoder runs.
        dtype: number format of the embeddings.

    Raises:
        FileNotFoundError: where a prompt is new and a file is missing; the sentence says how to get it.
        UsageError: where a file is damaged or something else.
    """
    from ff_bench.models.wan.text import remember

    remember(prompts, member, device=device, dtype=dtype)


def load(member: Member, *, device: torch.device | str, dtype: torch.dtype) -> Wan:
    """Load a member's transformer; prompts and pictures load their weights when they come.

    Args:
        member: sizes, steps and files.
        device: where to.
        dtype: number format of weights and cache.

    Raises:
        FileNotFoundError: where weights are missing; the sentence says how to get them.
        UsageError: where they are damaged, of another size, or something else.
    """
    source, lora = member.checkpoint.source, member.checkpoint.lora
    path = locate(source, what=f"weights of {member.name}")
    added = None if lora is None else locate(lora, what=f"low-rank weights of {member.name}")
    for used in (source, lora):
        if used is not None:
            _tell(f"weights of {member.name} ({used.repo or used.path}): licence {used.licence}")
    network = load_network(member, path, added, device=device, dtype=dtype)
    if network.device.type == "cuda":
        fuse(network)
    checkpoint = joined([digest(file) for file in (path, added) if file is not None])
    return Wan(member, network, checkpoint)


@lru_cache
def _tell(sentence: str) -> None:
    """Tell something once per process."""
    LOGGER.warning(sentence)
