"""A member of the Wan family as data: sizes, steps, files and the context rule it was released with.

Read from `conf/model/<member>.yaml` before torch is imported.
"""

from __future__ import annotations

from dataclasses import dataclass

from ff_bench.models.facts import Native

LATENT_CHANNELS = 16
SPATIAL_STRIDE = 8
TEMPORAL_STRIDE = 4
PATCH = 2


@dataclass(frozen=True)
class Source:
    """A file or folder, on this machine or on the Hugging Face hub.

    Attributes:
        path: on this machine; None to look in the hub's cache.
        repo: repository on the hub, `owner/name`.
        file: path inside the repository.
        licence: licence of the weights, printed when they are loaded.
    """

    path: str | None
    repo: str
    file: str
    licence: str


@dataclass(frozen=True)
class Checkpoint:
    """Weights of the transformer.

    Attributes:
        source: where the file is.
        key: entry of the file that holds the weights; None looks for the usual ones.
        ema: whether the averaged weights are taken where a file holds both.
        lora: low-rank update on top of them, or None.
    """

    source: Source
    key: str | None
    ema: bool
    lora: Source | None = None


@dataclass(frozen=True)
class Member:
    """One released model.

    Attributes:
        name: as on the command line.
        layers: transformer blocks.
        heads: attention heads.
        head_dim: channels of a head.
        height: decoded height in pixels, a multiple of 16.
        width: decoded width in pixels, a multiple of 16.
        fps: decoded frames per second.
        chunk_frames: latent frames denoised together.
        first_chunk_frames: latent frames of the first chunk (1 where the first frame is independent).
        window_frames: training window, latent frames.
        passes: `chunkwise` or `rolling`.
        steps: nominal time steps of the noisy passes, 0 to 1000.
        first_steps: other steps for the first chunk that is generated, or None.
        shift: warp of the noise levels.
        warp: whether nominal steps are warped; False takes them as they are.
        clean_step: time step that the clean pass is told.
        recache_frames: latent frames computed again when the prompt changes; 0 computes none.
        recache_sink: whether the first frames keep the keys and values of the first prompt then.
        text_tokens: tokens of a prompt.
        native: the context rule that it was released with.
        checkpoint: weights of the transformer.
        text_encoder: folder or file of UMT5-xxl.
        tokenizer: folder of its tokenizer.
        vae: folder or file of the Wan2.1 VAE.
        offload: whether the VAE waits on the CPU while it does not decode: 0.25 GB and a copy per chunk.
        decoder: `vae`, or `taehv` for a preview.
        preview: file of the preview decoder.
    """

    name: str
    layers: int
    heads: int
    head_dim: int
    height: int
    width: int
    fps: int
    chunk_frames: int
    first_chunk_frames: int
    window_frames: int
    passes: str
    steps: tuple[float, ...]
    first_steps: tuple[float, ...] | None
    shift: float
    warp: bool
    clean_step: float
    recache_frames: int
    recache_sink: bool
    text_tokens: int
    native: Native
    checkpoint: Checkpoint
    text_encoder: Source
    tokenizer: Source
    vae: Source
    offload: bool
    decoder: str
    preview: Source

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one latent frame."""
        return LATENT_CHANNELS, self.height // SPATIAL_STRIDE, self.width // SPATIAL_STRIDE

    @property
    def rows(self) -> int:
        """Token rows of a latent frame."""
        return self.height // SPATIAL_STRIDE // PATCH

    @property
    def columns(self) -> int:
        """Token columns of a latent frame."""
        return self.width // SPATIAL_STRIDE // PATCH
