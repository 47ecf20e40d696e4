"""What a policy is told: the shape of the model, its budget, the protocol, a pass, the slots of a view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from policies.attention import DENOMINATORS
from policies.positions import MODES
from policies.rope import Rope

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "passes": ("clean", "all"),
        "denominator": DENOMINATORS,
        "unit": ("token", "frame"),
        "share": ("head", "layer"),
        "position": MODES,
    }
)


@dataclass(frozen=True)
class Shape:
    """What a policy needs to know of a model.

    Args:
        layers: Attention layers with a cache.
        query_heads: Query heads of a layer, a multiple of ``heads``.
        heads: Key-value heads of a layer.
        head_dim: Channels of a head.
        rows: Token rows of a latent frame.
        columns: Token columns of a latent frame.
        chunk_frames: Latent frames generated together.
        window_frames: Training window of the model, latent frames.
        rope: Position embedding.
    """

    layers: int
    query_heads: int
    heads: int
    head_dim: int
    rows: int
    columns: int
    chunk_frames: int
    window_frames: int
    rope: Rope

    def __post_init__(self) -> None:
        """Reject head counts and channel counts that do not fit together."""
        if self.query_heads % self.heads:
            raise ValueError(
                f"shape.query_heads is {self.query_heads}; allowed: multiples of {self.heads} heads"
            )
        if self.rope.head_dim != self.head_dim:
            raise ValueError(f"shape.head_dim is {self.head_dim}; the rope has {self.rope.head_dim} channels")

    @property
    def frame_tokens(self) -> int:
        """Tokens of one latent frame."""
        return self.rows * self.columns

    @property
    def chunk_tokens(self) -> int:
        """Tokens of one chunk."""
        return self.frame_tokens * self.chunk_frames


@dataclass(frozen=True)
class Budget:
    """Context tokens that a layer may hold per head between chunks; the chunk being generated is outside.

    Args:
        tokens: Slots per layer and head, sink and recent inside; None is the full cache.
        sink: Slots at the start that are never dropped, tokens.
        recent: Newest slots that are never dropped, tokens.
    """

    tokens: int | None
    sink: int = 0
    recent: int = 0

    def __post_init__(self) -> None:
        """Reject negative numbers and protected slots that do not fit."""
        for field, value in (("sink", self.sink), ("recent", self.recent)):
            if value < 0:
                raise ValueError(f"budget.{field} is {value}; allowed: 0 or more tokens")
        if self.tokens is None:
            return
        if self.tokens < 1:
            raise ValueError(
                f"budget.tokens is {self.tokens}; allowed: 1 or more tokens, or None for the full cache"
            )
        if self.sink + self.recent > self.tokens:
            raise ValueError(f"sink {self.sink} + recent {self.recent} do not fit into {self.tokens} tokens")

    def require_free_frame(self, frame_tokens: int) -> None:
        """Raise ValueError unless one latent frame is left for the policy to decide on."""
        if self.tokens is not None and self.sink + self.recent + frame_tokens > self.tokens:
            raise ValueError(
                f"sink {self.sink} + recent {self.recent} leave less than one latent frame "
                f"({frame_tokens} tokens) free of {self.tokens} tokens"
            )


@dataclass(frozen=True)
class Protocol:
    """What must be equal for a comparison to be fair; see docs/policies.md for each choice."""

    passes: str = "clean"
    denominator: str = "all"
    unit: str = "token"
    share: str = "head"
    position: str = "contiguous"
    query_stride: int = 1
    charge_state: bool = False

    def __post_init__(self) -> None:
        """Reject values outside the allowed sets."""
        for field, allowed in CHOICES.items():
            value = getattr(self, field)
            if value not in allowed:
                raise ValueError(f"protocol.{field} is '{value}'; allowed: {', '.join(allowed)}")
        if self.query_stride < 1:
            raise ValueError(f"protocol.query_stride is {self.query_stride}; allowed: 1 or more")


@dataclass
class Pass:
    """One forward of the current chunk through one layer.

    Args:
        layer: Layer number.
        chunk: Chunk number.
        queries: Un-rotated queries (B, Hq, N, D).
        rotated_queries: The same at the chunk's positions.
        keys: Un-rotated keys of the chunk (B, H, N, D).
        noise: Noise level per latent frame (B, F), 0 (clean) to 1.
        commit: Whether keys and values of this pass are kept.
        times: Time index of the chunk's frames under the position mode, (F,) or (B, H, F).
        frames: First absolute latent frame of the chunk.
        log_sum: Natural logarithm of each query's sum of exponentials over context and chunk, (B, Hq, N)
            fp32, where the attention of this pass gave it; else None.
    """

    layer: int
    chunk: int
    queries: Tensor
    rotated_queries: Tensor
    keys: Tensor
    noise: Tensor
    commit: bool
    times: Tensor
    frames: int
    log_sum: Tensor | None = None


@dataclass(frozen=True)
class Segment:
    """Neighbouring slots that a pass sees.

    Args:
        start: First slot.
        stop: Slot behind the last.
        time: Time index of its first frame in this pass; None leaves it where it stands.
    """

    start: int
    stop: int
    time: int | None = None
