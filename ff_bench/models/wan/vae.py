"""The Wan2.1 VAE on the modules of diffusers: decodes chunk by chunk as it would decode the whole video.

The decoder is causal: each of its convolutions looks back two frames. What they look back to is held here,
per video, in a typed state that lives from chunk to chunk. Time is 4 to 1 and space 8 to 1; the first latent
frame is one picture, each later one four.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ff_bench.errors import UsageError
from ff_bench.models.numbers import refuse_formats, refuse_infinite
from ff_bench.models.wan.files import library
from ff_bench.models.wan.member import LATENT_CHANNELS, SPATIAL_STRIDE, TEMPORAL_STRIDE
from ff_bench.models.wan.tensors import json_object, read_tensors, refuse_differences, renamed
from ff_bench.models.wan.vae_names import RESIDUALS, WIDTHS, original_names

MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
"""Mean of each latent channel. Source: guandeh17/Self-Forcing@33593df utils/wan_wrapper.py:56."""
STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip
"""Standard deviation of each latent channel, of the same place."""


@dataclass
class VideoState:
    """What the decoder remembers of one video.

    Attributes:
        slots: per causal convolution the last two frames that went in; None before the first, and a marker of
            diffusers where an upsampling has seen the first frame only.
        frames: latent frames decoded.
    """

    slots: list[Tensor | str | None]
    frames: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes held from chunk to chunk."""
        return sum(slot.nbytes for slot in self.slots if isinstance(slot, Tensor))


class StreamDecoder:
    """Decodes videos side by side; one call per chunk.

    Videos are decoded one after the other, each with its own state, so that none depends on its neighbours.
    """

    def __init__(self, vae: WanVAE) -> None:
        """Begin at the first frame; the number of videos is that of the first call."""
        self.vae = vae
        self.states: list[VideoState] = []

    def __call__(self, latents: Tensor) -> Tensor:
        """Decode the next latent frames.

        Args:
            latents: (B, F, 16, h, w), normalised, of any number format, on any device.

        Returns:
            (B, T, 8h, 8w, 3) uint8 on the device of the VAE; T is 4F, and 4F - 3 in the first call.
        """
        if not self.states:
            self.states = [self.vae.begin() for _ in range(len(latents))]
        assert len(latents) == len(self.states), (len(latents), len(self.states))
        pairs = zip(latents, self.states, strict=True)
        return torch.stack([as_bytes(self.vae.decode_next(video, state)) for video, state in pairs])

    @property
    def state_nbytes(self) -> int:
        """Bytes held from chunk to chunk, all videos."""
        return sum(state.nbytes for state in self.states)


@dataclass(eq=False)
class WanVAE:
    """The VAE and its latent statistics.

    Attributes:
        network: a diffusers `AutoencoderKLWan`; only its parts are called, never its own loops.
        mean: (16, 1, 1, 1), of the latents.
        inverse_std: (16, 1, 1, 1), of the latents.
    """

    network: Any
    mean: Tensor = field(init=False)
    inverse_std: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Move to evaluation, and round the statistics as upstream does."""
        self.network = self.network.eval().requires_grad_(False)
        self._place()

    def _place(self) -> None:
        mean, std = (torch.tensor(values, dtype=self.dtype, device=self.device) for values in (MEAN, STD))
        self.mean, self.inverse_std = mean.view(-1, 1, 1, 1), 1.0 / std.view(-1, 1, 1, 1)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        found: torch.dtype = self.network.post_quant_conv.weight.dtype
        return found

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        found: torch.device = self.network.post_quant_conv.weight.device
        return found

    @classmethod
    def load(cls, path: Path, device: torch.device | str, dtype: torch.dtype) -> WanVAE:
        """Load the weights.

        Args:
            path: a diffusers folder or safetensors file, or the original `Wan2.1_VAE.pth`.
            device: where to.
            dtype: number format of the weights; float16 and bfloat16 upsample in float32 all the same.

        Raises:
            UsageError: where the library diffusers is missing.
            ValueError: where the file is damaged or holds another VAE.
        """
        weights = read_tensors(path)
        refuse_formats(weights, path)
        if "decoder.conv1.weight" in weights:
            weights = renamed(weights, original_names())
        _check_statistics(path)
        network = empty_network(weights, path)
        expected = {name: value.shape for name, value in network.state_dict().items()}
        refuse_differences(expected, weights, path=path, what="Wan2.1 VAE")
        placed = {name: value.to(device=device, dtype=dtype) for name, value in weights.items()}
        refuse_infinite(placed, path)
        network.load_state_dict(placed, assign=True)
        return cls(network)

    def to(self, device: torch.device | str) -> WanVAE:
        """Move the weights; states of decoders stay where they are."""
        self.network.to(device)
        self._place()
        return self

    def decoder(self) -> StreamDecoder:
        """Begin to decode videos side by side."""
        return StreamDecoder(self)

    def begin(self) -> VideoState:
        """Begin to decode one video."""
        return VideoState(slots=[None] * convolutions(self.network.decoder))

    @torch.no_grad()
    def decode_next(self, latents: Tensor, state: VideoState) -> Tensor:
        """Decode the next latent frames of one video, one by one.

        Statistics are undone in the number format of the weights, as upstream does.

        Args:
            latents: (F, 16, h, w), normalised.
            state: of this video; changed.

        Returns:
            (3, T, 8h, 8w) in [-1, 1], in the number format of the weights.
        """
        placed = latents.to(device=self.device, dtype=self.dtype).transpose(0, 1)
        hidden = self.network.post_quant_conv((placed / self.inverse_std + self.mean)[None])
        pictures: list[Tensor] = []
        for frame in hidden.split(1, dim=2):
            pictures.append(
                self.network.decoder(
                    frame, feat_cache=state.slots, feat_idx=[0], first_chunk=state.frames == 0
                )[0]
            )
            state.frames += 1
        return torch.cat(pictures, 1).clamp(-1, 1)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Encode pictures that begin a video: the first one alone, then four by four.

        Args:
            frames: (T, H, W, 3) uint8, T = 1, 5, 9, ...; height and width are multiples of 8.

        Returns:
            (F, 16, H / 8, W / 8) float32, F = (T + 3) / 4: the mean of the posterior, normalised.

        Raises:
            ValueError: for another number or size of pictures.
        """
        count, height, width = frames.shape[:3]
        if (count - 1) % TEMPORAL_STRIDE or height % SPATIAL_STRIDE or width % SPATIAL_STRIDE:
            raise ValueError(
                f"{count} pictures of {width} x {height} cannot be encoded: they must be 1, 5, 9 and so on, "
                f"of sides that are multiples of {SPATIAL_STRIDE}"
            )
        video = (frames.to(device=self.device).permute(3, 0, 1, 2)[None].float() / 127.5 - 1).to(self.dtype)
        slots: list[Tensor | str | None] = [None] * convolutions(self.network.encoder)
        parts = [video[:, :, :1], *video[:, :, 1:].split(TEMPORAL_STRIDE, dim=2)]
        whole = [part for part in parts if part.shape[2]]
        hidden = [self.network.encoder(part, feat_cache=slots, feat_idx=[0]) for part in whole]
        mu = self.network.quant_conv(torch.cat(hidden, 2))[0, :LATENT_CHANNELS]
        latents: Tensor = ((mu - self.mean) * self.inverse_std).float().transpose(0, 1).contiguous()
        return latents


def as_bytes(video: Tensor) -> Tensor:
    """Turn (3, T, H, W) in [-1, 1] into (T, H, W, 3) uint8.

    Deviates: upstream cuts the fraction of a byte off; here it is rounded.
    """
    return ((video.float() + 1) * 127.5).round().byte().permute(1, 2, 3, 0)


def convolutions(network: torch.nn.Module) -> int:
    """Count the causal convolutions of an encoder or decoder: slots that its state may need."""
    return sum(type(module).__name__ == "WanCausalConv3d" for module in network.modules())


def empty_network(weights: dict[str, Tensor], path: Path) -> Any:
    """Build the network of diffusers without memory, of the width that the tensors have.

    Raises:
        UsageError: where the library diffusers is missing.
        ValueError: where these are tensors of something else.
    """
    diffusers = library("diffusers", purpose="the VAE needs")
    try:
        width = weights["encoder.conv_in.weight"].shape[0]
        channels = weights["post_quant_conv.weight"].shape[0]
    except KeyError as error:
        raise UsageError(f"{path} holds no Wan2.1 VAE: there is no tensor {error}") from None
    except IndexError:
        raise UsageError(f"{path} holds no Wan2.1 VAE: tensors of its ends lack axes") from None
    if channels != LATENT_CHANNELS:
        raise UsageError(
            f"{path} holds a VAE of {channels} latent channels; the Wan2.1 VAE has {LATENT_CHANNELS}"
        )
    with torch.device("meta"):
        return diffusers.AutoencoderKLWan(
            base_dim=width, z_dim=channels, dim_mult=list(WIDTHS), num_res_blocks=RESIDUALS
        )


def _check_statistics(path: Path) -> None:
    """Refuse a diffusers folder whose latents are normalised in another way."""
    config = (path if path.is_dir() else path.parent) / "config.json"
    if not config.is_file():
        return
    told = json_object(config)
    for name, own in (("latents_mean", MEAN), ("latents_std", STD)):
        if name in told and told[name] != list(own):
            raise UsageError(f"{config} holds another {name} than the Wan2.1 VAE")
