"""What must be known of a model before torch is imported: sizes for budgets, lengths and plans."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

ROOM = Path(__file__).parent


@dataclass(frozen=True)
class ModelFacts:
    """Static sizes of one model.

    Attributes:
        name: as on the command line.
        layers: transformer layers, each with a cache of its own.
        heads: key-value heads of a layer.
        head_dim: channels of a head.
        rows: token rows of a latent frame.
        columns: token columns of a latent frame.
        chunk_frames: latent frames denoised together.
        window_frames: latent frames of the training window.
        fps: decoded frames per second.
        temporal_stride: decoded frames per latent frame.
        height: decoded height in pixels.
        width: decoded width in pixels.
        steps: noisy passes per chunk where the user asks for none.
        weights: files of the checkpoint, in order.
        position: position mode of the protocol `equal`.
        prompt_sets: sets of prompts that the model understands; empty means any text.
        chunk_seconds_cpu: rough seconds of one core per chunk at a small budget, for plans.
    """

    name: str
    layers: int
    heads: int
    head_dim: int
    rows: int
    columns: int
    chunk_frames: int
    window_frames: int
    fps: int
    temporal_stride: int
    height: int
    width: int
    steps: int
    weights: tuple[Path, ...]
    position: str
    prompt_sets: tuple[str, ...]
    chunk_seconds_cpu: float

    @property
    def frame_tokens(self) -> int:
        """Tokens of one latent frame."""
        return self.rows * self.columns

    @property
    def chunk_tokens(self) -> int:
        """Tokens of one chunk."""
        return self.chunk_frames * self.frame_tokens

    def kv_bytes(self, tokens: int, *, element_bytes: int = 4) -> int:
        """Bytes of keys and values of `tokens` tokens per head, all layers and heads, one video."""
        return 2 * self.layers * self.heads * self.head_dim * tokens * element_bytes


MODELS: dict[str, ModelFacts] = {
    "mini": ModelFacts(
        name="mini", layers=6, heads=4, head_dim=64, rows=8, columns=8, chunk_frames=3, window_frames=60,
        fps=16, temporal_stride=4, height=64, width=64, steps=5,
        weights=tuple(ROOM / "mini" / "weights" / f"mini-{part:05d}-of-00002.safetensors" for part in (1, 2)),
        position="absolute", prompt_sets=("orbit", "pendulum", "cut", "occlusion", "change"),
        chunk_seconds_cpu=0.6,
    ),
}  # fmt: skip


def facts(name: str) -> ModelFacts:
    """Look a model up.

    Raises:
        ValueError: with the known names and the nearest match.
    """
    if name in MODELS:
        return MODELS[name]
    near = get_close_matches(name, MODELS, n=1)
    hint = f"; nearest is '{near[0]}'" if near else ""
    raise ValueError(f"model '{name}' is not one of {', '.join(MODELS)}{hint}")
