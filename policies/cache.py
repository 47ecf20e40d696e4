"""The slots of one layer: keys, values, positions and whatever a policy attaches to a slot.

Knows nothing about policies. Storage is allocated once and compacted in place; only ``keep`` and ``drop``
move slots, and they move everything that belongs to a slot together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from policies.base import Shape


class LayerCache:
    """Slots of one layer, sorted by absolute token index.

    Args:
        shape: The model.
        layer: Layer number.
        batch: Videos side by side.
        capacity: Slots per head that storage is made for, the chunk included.
        dtype: Of keys and values.
        device: Where everything stands.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        layer: int,
        batch: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        """Allocate the storage."""
        self.shape, self.layer, self.batch, self.heads = shape, layer, batch, shape.heads
        self.capacity, self.device, self.dtype = capacity, torch.device(device), dtype
        self.size = 0
        self.has_dropped = False  # True once any slot has gone
        self.state: dict[str, Tensor] = {}
        self.stats: dict[str, Tensor | float] = {}
        self.lengths: Tensor | None = None
        self._fills: dict[str, float] = {}
        self._staged = 0
        size = (batch, shape.heads, capacity)
        self._tokens = torch.zeros(size, dtype=torch.int32, device=self.device)
        self._keys, self._values, self._rotated = (
            torch.zeros((*size, shape.head_dim), dtype=dtype, device=self.device) for _ in range(3)
        )

    # -- what the slots hold ---------------------------------------------------------------------------

    @property
    def keys(self) -> Tensor:
        """Un-rotated keys, a view (B, H, S, D)."""
        return self._keys[:, :, : self.size]

    @property
    def values(self) -> Tensor:
        """Values, a view (B, H, S, D)."""
        return self._values[:, :, : self.size]

    @property
    def rotated(self) -> Tensor:
        """Keys under the positions in force, a view (B, H, S, D)."""
        return self._rotated[:, :, : self.size]

    @property
    def tokens(self) -> Tensor:
        """Absolute token index, frame * frame_tokens + row * columns + column, a view (B, H, S) int32."""
        return self._tokens[:, :, : self.size]

    @property
    def frames(self) -> Tensor:
        """Absolute latent frame of each slot, (B, H, S)."""
        return self.tokens // self.shape.frame_tokens

    @property
    def rows(self) -> Tensor:
        """Token row of each slot, (B, H, S)."""
        return self.tokens % self.shape.frame_tokens // self.shape.columns

    @property
    def columns(self) -> Tensor:
        """Token column of each slot, (B, H, S)."""
        return self.tokens % self.shape.columns

    @property
    def log_mass(self) -> Tensor | None:
        """What is added to each slot's logit, (B, H, S), or None; made by ``slot_state('log_mass')``."""
        return self.slot_state("log_mass") if "log_mass" in self.state else None

    # -- state that moves with the slots ------------------------------------------------------------------

    def slot_state(self, name: str, *, fill: float = 0.0) -> Tensor:
        """Return the state of that name, a view (B, H, S) fp32, made on first use; new slots get ``fill``."""
        return self._state(name, fill)[:, :, : self.size]

    def staged_state(self, name: str, *, fill: float = 0.0) -> Tensor:
        """Return the same over context and the chunk being generated, a view (B, H, S + N)."""
        return self._state(name, fill)[:, :, : self.size + self._staged]

    def _state(self, name: str, fill: float) -> Tensor:
        if name not in self.state:
            self._fills[name] = fill
            size = (self.batch, self.heads, self.capacity)
            self.state[name] = torch.full(size, fill, dtype=torch.float32, device=self.device)
        return self.state[name]

    # -- one chunk --------------------------------------------------------------------------------------

    def start_chunk(self, times: Tensor | None = None) -> None:
        """Begin a chunk: put the context keys at ``times``, (S,) or (B, H, S); None: as they stand."""
        if times is not None and self.size:
            self.shape.rope.retime_(self.rotated, self.keys, times)
        for name, buffer in self.state.items():
            buffer[:, :, self.size :].fill_(self._fills[name])
        self._staged = 0

    def stage(self, rotated_keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the chunk's rotated keys and values behind the context; return both, (B, H, S + N, D).

        Raises:
            ValueError: If the chunk does not fit into the storage.
        """
        end = self.size + rotated_keys.shape[2]
        if end > self.capacity:
            raise ValueError(
                f"layer {self.layer}: {self.size} slots + {rotated_keys.shape[2]} of the chunk exceed the "
                f"capacity of {self.capacity}"
            )
        self._staged = rotated_keys.shape[2]
        self._rotated[:, :, self.size : end] = rotated_keys
        self._values[:, :, self.size : end] = values
        return self.staged_keys, self.staged_values

    @property
    def staged_keys(self) -> Tensor:
        """Rotated keys of context and chunk, a view (B, H, S + N, D)."""
        return self._rotated[:, :, : self.size + self._staged]

    @property
    def staged_values(self) -> Tensor:
        """Values of context and chunk, a view (B, H, S + N, D)."""
        return self._values[:, :, : self.size + self._staged]

    def append(self, keys: Tensor, first_token: int) -> None:
        """Make the staged chunk part of the context.

        Args:
            keys: Un-rotated keys (B, H, N, D) of what was staged last.
            first_token: Absolute index of its first token.
        """
        count = keys.shape[2]
        if count != self._staged:
            raise ValueError(f"layer {self.layer}: {count} keys to append, {self._staged} staged")
        end = self.size + count
        self._keys[:, :, self.size : end] = keys
        self._tokens[:, :, self.size : end] = torch.arange(
            first_token, first_token + count, dtype=torch.int32, device=self.device
        )
        self.size, self._staged = end, 0

    # -- making room ------------------------------------------------------------------------------------

    def keep(self, index: Tensor) -> None:
        """Keep only the slots of ``index``, (B, H, K) or (K,), increasing; compact in place."""
        if index.ndim == 1:
            index = index.expand(self.batch, self.heads, -1)
        count = index.shape[-1]
        for buffer in (self._keys, self._values, self._rotated):
            self._gather_rows(buffer, index)
        for buffer in (self._tokens, *self.state.values()):
            buffer[:, :, :count] = buffer.gather(2, index)
        self._finish(count)

    def drop(self, start: int, count: int) -> None:
        """Drop ``count`` slots from ``start`` on, in every head: one shift of what lies behind."""
        for buffer in (self._keys, self._values, self._rotated, self._tokens, *self.state.values()):
            _shift(buffer, start, count, self.size)
        self._finish(self.size - count)

    def _finish(self, count: int) -> None:
        self.has_dropped = self.has_dropped or count < self.size
        self.size, self._staged = count, 0

    def _gather_rows(self, buffer: Tensor, index: Tensor) -> None:
        """Move rows in blocks: as indices increase, a block never overwrites what a later one reads."""
        dim = buffer.shape[-1]
        rows = buffer.view(-1, dim)
        starts = torch.arange(self.batch * self.heads, device=self.device) * self.capacity
        flat = index.flatten(0, 1) + starts[:, None]  # (BH, K)
        step = max(1, _block_elements(self.device) // (self.batch * self.heads * dim))
        for begin in range(0, index.shape[-1], step):
            part = flat[:, begin : begin + step]
            moved = rows.index_select(0, part.reshape(-1)).view(self.batch, self.heads, -1, dim)
            buffer[:, :, begin : begin + part.shape[1]] = moved

    # -- bytes ------------------------------------------------------------------------------------------

    def nbytes(self) -> int:
        """Return the bytes of the keys and values held, without the rotated copy."""
        return 2 * self.batch * self.heads * self.size * self.shape.head_dim * self._keys.element_size()

    def rotated_nbytes(self) -> int:
        """Return the bytes of the rotated copy of the keys held."""
        return self.nbytes() // 2

    def state_nbytes(self) -> int:
        """Return the bytes held across chunks outside keys and values: positions, slot state, stats."""
        slots = self.batch * self.heads * self.size
        per_slot = self._tokens.element_size() + sum(buffer.element_size() for buffer in self.state.values())
        return slots * per_slot + sum(x.nbytes for x in self.stats.values() if isinstance(x, Tensor))


def _block_elements(device: torch.device) -> int:
    return 2**26 if device.type == "cuda" else 2**18


def _shift(buffer: Tensor, start: int, count: int, size: int) -> None:
    """Move the slots behind [start, start + count) forward, in blocks that do not overlap their source."""
    end = size - count
    step = max(count, 512)
    for begin in range(start, end, step):
        stop = min(begin + step, end)
        source = buffer[:, :, begin + count : stop + count]
        buffer[:, :, begin:stop] = source if step <= count else source.clone()
