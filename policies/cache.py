"""The slots of one layer: keys, values, positions and whatever a policy attaches to a slot.

Knows nothing about policies. Storage is allocated once and compacted in place; only ``keep`` and ``drop``
move slots, and they move everything that belongs to a slot together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from policies.kernels import gather_rows
from policies.positions import NOTHING
from policies.selection import lengths

if TYPE_CHECKING:
    from policies.base import Shape


class Spare:
    """Storage of one layer that the caches of a rollout share: rows are gathered into it, then the two swap.

    On an accelerator rows cannot be compacted in place, as all of them move at once.
    """

    def __init__(self, size: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> None:
        """Allocate keys, values and rotated keys of (B, H, S, D)."""
        self.buffers = [torch.zeros(size, dtype=dtype, device=device) for _ in range(3)]

    def gather(self, rows: tuple[Tensor, Tensor, Tensor], index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return buffers that begin with the rows of ``index`` (B, H, K); the given ones become the spare."""
        taken = tuple(self.buffers)
        gather_rows(rows, taken, index)
        self.buffers = list(rows)
        keys, values, rotated = taken
        return keys, values, rotated

    def nbytes(self) -> int:
        """Return the bytes held."""
        return sum(buffer.nbytes for buffer in self.buffers)


class LayerCache:
    """Slots of one layer, sorted by absolute token index.

    Args:
        shape: The model.
        layer: Layer number.
        batch: Videos side by side.
        capacity: Slots per head that storage is made for, the chunk included.
        dtype: Of keys and values.
        device: Where everything stands.
        spare: Storage that several caches share to be compacted into; without it they compact in place.
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
        spare: Spare | None = None,
    ) -> None:
        """Allocate the storage."""
        self.shape, self.layer, self.batch, self.heads = shape, layer, batch, shape.heads
        self.capacity, self.device, self.dtype = capacity, torch.device(device), dtype
        self.size = 0
        self.has_dropped = False  # True once any slot has gone
        self.state: dict[str, Tensor] = {}
        self.stats: dict[str, Tensor | float] = {}
        self.lengths: Tensor | None = None  # (B, H) int32: slots in use at the start, where heads differ
        self._sizes: tuple[int, ...] = ()  # the same on the host, per head
        self._tail = 0  # slots at the end that every head uses: a chunk behind different lengths
        self._fills: dict[str, float] = {}
        self._staged = 0
        self._spare = spare
        self._ring_start = self._head = 0  # slot i from _ring_start on stands (i + _head) further, around
        size = (batch, shape.heads, capacity)
        self._tokens = torch.zeros(size, dtype=torch.int32, device=self.device)
        self._keys, self._values, self._rotated = (
            torch.zeros((*size, shape.head_dim), dtype=dtype, device=self.device) for _ in range(3)
        )

    # -- what the slots hold ---------------------------------------------------------------------------

    @property
    def keys(self) -> Tensor:
        """Un-rotated keys, a view (B, H, S, D)."""
        self.straighten()
        return self._keys[:, :, : self.size]

    @property
    def values(self) -> Tensor:
        """Values, a view (B, H, S, D)."""
        self.straighten()
        return self._values[:, :, : self.size]

    @property
    def rotated(self) -> Tensor:
        """Keys under the positions in force, a view (B, H, S, D)."""
        self.straighten()
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
    def held(self) -> tuple[int, ...]:
        """Slots of the context that hold something, per head (per rank, where videos differ).

        Known without asking the device.
        """
        return tuple(size + self._tail for size in self._sizes) or (self.size,) * self.heads

    @property
    def used(self) -> Tensor | None:
        """Which slots of context and staged chunk hold something, (B, H, S + N), or None for all of them."""
        if self.lengths is None:
            return None
        slot = torch.arange(self.size + self._staged, device=self.device)
        return (slot < self.lengths[..., None]) | (slot >= self.size - self._tail)

    @property
    def bias(self) -> Tensor | None:
        """What is added to each slot's logit, (B, H, S + N) fp32 over context and staged chunk, or None.

        The log-mass, where ``slot_state('log_mass')`` made one; minus infinity where a slot holds nothing.
        """
        mass = self.staged_state("log_mass") if "log_mass" in self.state else None
        used = self.used
        if used is None:
            return mass
        empty = torch.zeros(used.shape, device=self.device) if mass is None else mass
        return empty.masked_fill(~used, -torch.inf)

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

    def start_chunk(self, turn: tuple[Tensor, Tensor] | None = None) -> None:
        """Begin a chunk.

        Args:
            turn: Cosines and sines that put the context keys at their times, (S, time pairs) or
                (B, H, S, time pairs) fp32; None leaves them as they stand.
        """
        if turn is not None:
            for there, part in self._pieces(0, self.size):
                own = (angle[..., part, :] for angle in turn)
                self.shape.rope.retime_(self._rotated[:, :, there], self._keys[:, :, there], *own)
        for name, buffer in self.state.items():
            buffer[:, :, self.size :].fill_(self._fills[name])
        self._staged = 0

    def stage(self, keys: Tensor, values: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Write the chunk's keys, rotated, and its values behind the context; return both, (B, H, S + N, D).

        Args:
            keys: Un-rotated keys (B, H, N, D).
            values: Values (B, H, N, D).
            turn: Cosines and sines of the chunk's tokens, (N, D/2) or (B, H, N, D/2) fp32.

        Raises:
            ValueError: If the chunk does not fit into the storage.
        """
        end = self.size + keys.shape[2]
        if end > self.capacity:
            raise ValueError(
                f"layer {self.layer}: {self.size} slots + {keys.shape[2]} of the chunk exceed the "
                f"capacity of {self.capacity}"
            )
        if self._head and end < self.capacity:
            self.straighten()
        self._staged = keys.shape[2]
        for there, part in self._pieces(self.size, end):
            own = (angle[..., part, :] for angle in turn)
            self.shape.rope.turn_into(self._rotated[:, :, there], keys[:, :, part], *own)
            self._values[:, :, there] = values[:, :, part]
        return self.staged_keys, self.staged_values

    @property
    def staged_keys(self) -> Tensor:
        """Rotated keys of context and chunk, a view (B, H, S + N, D); in a ring in no order."""
        return self._rotated[:, :, : self.size + self._staged]

    @property
    def staged_values(self) -> Tensor:
        """Values of context and chunk, a view (B, H, S + N, D), in the order of the keys."""
        return self._values[:, :, : self.size + self._staged]

    def append(self, keys: Tensor, first_token: int) -> None:
        """Make the staged chunk part of the context.

        Args:
            keys: Un-rotated keys (B, H, N, D) of what was staged last.
            first_token: Absolute index of its first token.

        Raises:
            ValueError: If another chunk was staged, or an index is beyond what 31 bits hold.
        """
        count = keys.shape[2]
        if first_token + count > NOTHING:
            raise ValueError(
                f"layer {self.layer}: token {first_token + count - 1} of the video; "
                f"allowed: up to {NOTHING - 1}"
            )
        if count != self._staged:
            raise ValueError(f"layer {self.layer}: {count} keys to append, {self._staged} staged")
        end = self.size + count
        for there, part in self._pieces(self.size, end):
            self._keys[:, :, there] = keys[:, :, part]
        self._tokens[:, :, self.size : end] = torch.arange(
            first_token, first_token + count, dtype=torch.int32, device=self.device
        )
        self._tail = count if self.lengths is not None else 0
        self.size, self._staged = end, 0

    def refresh(self, keys: Tensor, values: Tensor, rotated: Tensor, first_token: int) -> None:
        """Replace keys and values of held slots whose tokens were computed anew.

        Args:
            keys: Un-rotated keys (B, H, N, D) of neighbouring tokens.
            values: Their values (B, H, N, D).
            rotated: Their keys under the positions in force (B, H, N, D).
            first_token: Absolute index of the first of them.
        """
        place = self.tokens.long() - first_token  # (B, H, S)
        is_new = ((place >= 0) & (place < keys.shape[2]))[..., None]
        place = place.clamp(0, keys.shape[2] - 1)[..., None].expand(-1, -1, -1, keys.shape[3])
        for held, fresh in ((self.keys, keys), (self.values, values), (self.rotated, rotated)):
            held.copy_(torch.where(is_new, fresh.to(held.dtype).gather(2, place), held))

    def rotate_again(self, count: int) -> None:
        """Rotate the first ``count`` keys anew, to the positions they were made at, after a change."""
        rope = self.shape.rope
        angles = rope.angles(self.frames[:, :, :count], self.rows[:, :, :count], self.columns[:, :, :count])
        rope.turn_into(self.rotated[:, :, :count], self.keys[:, :, :count], angles.cos(), angles.sin())

    def clear(self) -> None:
        """Forget every slot."""
        self._head = 0
        self._finish(0)

    # -- making room ------------------------------------------------------------------------------------

    def keep(self, index: Tensor, sizes: Sequence[int] = (), ranks: Tensor | None = None) -> None:
        """Keep only the slots of ``index``, (B, H, K) or (K,), increasing; compact in place.

        Args:
            index: Slots that stay.
            sizes: How many of them each head keeps, where heads differ; the others hold nothing.
            ranks: Which of the sizes each head takes, (B, H), where that differs by video; None: its own.
        """
        if index.ndim == 1:
            index = index.expand(self.batch, self.heads, -1)
        count = index.shape[-1]
        self.straighten()
        if self._spare is None:
            for buffer in (self._keys, self._values, self._rotated):
                self._gather_rows(buffer, index)
        else:
            rows = (self._keys, self._values, self._rotated)
            self._keys, self._values, self._rotated = self._spare.gather(rows, index)
        for buffer in (self._tokens, *self.state.values()):
            buffer[:, :, :count] = buffer.gather(2, index)
        self._finish(count)
        if len(set(sizes)) > 1:
            self._sizes = tuple(sizes)
            self.lengths = lengths(sizes, ranks, self.device).expand(self.batch, -1).contiguous()
            self.tokens.masked_fill_(~self._mask(), NOTHING)

    def drop(self, start: int, count: int, *, may_wrap: bool = False) -> None:
        """Drop ``count`` slots from ``start`` on, in every head.

        Args:
            start: First slot that goes.
            count: How many go.
            may_wrap: Nobody reads keys and values in order: where the next chunk fills the storage again, it
                takes the place of what goes, and nothing moves.
        """
        fills = self.size - count + self.shape.chunk_tokens == self.capacity
        wraps = may_wrap and fills and not self.state and (not self._head or start == self._ring_start)
        if wraps:
            self._ring_start = start
            self._head = (self._head + count) % (self.capacity - start)
            moved = [self._tokens]
        else:
            self.straighten()
            moved = [self._keys, self._values, self._rotated, self._tokens, *self.state.values()]
        for buffer in moved:
            _shift(buffer, start, count, self.size)
        self._finish(self.size - count)

    def _pieces(self, start: int, stop: int) -> list[tuple[slice, slice]]:
        """Return where the slots [start, stop) stand in storage, and which of them each piece is."""
        if start == stop:
            return []
        if not self._head:
            return [(slice(start, stop), slice(0, stop - start))]
        first, ring, pieces = self._ring_start, self.capacity - self._ring_start, []
        if start < first:
            pieces.append((slice(start, min(stop, first)), slice(0, min(stop, first) - start)))
        begin = max(start, first)
        while begin < stop:
            there = first + (begin - first + self._head) % ring
            count = min(stop - begin, self.capacity - there)
            pieces.append((slice(there, there + count), slice(begin - start, begin - start + count)))
            begin += count
        return pieces

    def straighten(self) -> None:
        """Bring keys and values back into order where they stand in a ring."""
        if self._head:
            for buffer in (self._keys, self._values, self._rotated):
                ring = buffer[:, :, self._ring_start :]
                ring.copy_(ring.roll(-self._head, 2))
            self._head = 0

    def _finish(self, count: int) -> None:
        self.has_dropped = self.has_dropped or count < self.size
        self.size, self._staged = count, 0
        self.lengths, self._sizes, self._tail = None, (), 0

    def _mask(self) -> Tensor:
        """Which slots of the context hold something, (B, H, S), where heads differ."""
        used = self.used
        assert used is not None, "all heads hold the same number of slots"
        return used[:, :, : self.size]

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
        return 2 * self.batch * sum(self.held) * self.shape.head_dim * self._keys.element_size()

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
