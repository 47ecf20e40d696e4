"""Pyramid Forcing a second time: float64 numpy, from its formulas, frame by frame and slot by slot."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
from oracles import naive
from oracles.naive import Array, Head, Setup, Slot
from oracles.video import Chunk, keep


@dataclass
class Pyramid:
    """The fields, and what was measured: the kind of every head of a layer, of which there is one."""

    setup: Setup
    wave: int  # heads of a layer
    veil: int
    chunk_frames: int
    sink_frames: int = 3
    near_frames: int = 4
    period: int = 6
    patch: int = 2
    steady: float = 0.8
    longest: float = 6.4
    kinds: dict[int, list[str]] = field(default_factory=dict)
    hides: bool = False  # once the widest head has dropped a slot

    # -- kinds ----------------------------------------------------------------------------------------------

    def measure(self, heads: list[Head], chunk: Chunk) -> list[str]:
        """Give every head its kind, from the context frames' mean logits under the last frame's queries."""
        series = [
            self.logits(head, queries, chunk) for head, queries in zip(heads, chunk.queries, strict=True)
        ]
        kinds = ["anchor"] * len(heads)
        rhythm = sorted(range(len(heads)), key=lambda i: self.rhythm(series[i]))
        for i in rhythm[: self.wave]:
            kinds[i] = "wave"
        others = sorted(
            rhythm[self.wave :], key=lambda i: (sum(x > 0 for x in series[i]), np.mean(series[i]))
        )
        for i in others[: self.veil]:
            kinds[i] = "veil"
        return kinds

    def logits(self, head: Head, queries: Array, chunk: Chunk) -> list[float]:
        """Give the mean over all pairs of a query of the last frame and a key of each frame."""
        size, time = self.setup.frame, chunk.start + self.chunk_frames - 1
        asked = [
            naive.rotate(query, time, *naive.place(n, self.setup)[1:], self.setup)
            for n, query in enumerate(queries[-size:])
        ]
        found = []
        for first in range(0, chunk.first, size):
            rows = [slot["rotated"] for slot in head.slots if first <= int(slot["token"]) < first + size]
            found.append(float(np.mean([q @ k for q in asked for k in rows])) / math.sqrt(len(asked[0])))
        return found

    def rhythm(self, series: list[float]) -> tuple[bool, float, float]:
        """Say how little a head is a Wave: steady or not, lead of long periods, size of the mean logit."""
        positive = sum(x > 0 for x in series)
        is_steady = max(positive, len(series) - positive) >= self.steady * len(series)
        change = [b - a for a, b in itertools.pairwise(series)]
        count, mean = len(change), sum(change) / len(change)
        power = {}
        for turns in range(1, count // 2 + 1):
            total = 0j
            for n, x in enumerate(change):
                weight = 0.5 - 0.5 * math.cos(2 * math.pi * n / (count - 1))
                total += weight * (x - mean) * np.exp(-2j * math.pi * turns * n / count)
            power[count / turns] = abs(total) ** 2
        short = max((p for period, p in power.items() if period <= self.longest), default=0.0)
        long = max((p for period, p in power.items() if period > self.longest), default=0.0)
        return is_steady, -short / (short + long), abs(float(np.mean(series)))

    # -- slots ----------------------------------------------------------------------------------------------

    def sizes(self, count: int) -> dict[str, list[int]]:
        """Give slots by kind, one number for each head of the kind: both ends, and a share of the rest."""
        near = max(self.near_frames, self.chunk_frames) * self.setup.frame
        phases = len({n * self.chunk_frames % self.period for n in range(self.period)})
        parts = [("veil", self.sink_frames, 1 / self.patch**2)] * self.veil
        parts += [("anchor", self.sink_frames, 1.0)] * (count - self.wave - self.veil)
        parts += [("wave", 1, float(phases))] * self.wave
        ends = [sink * self.setup.frame + near for _, sink, _ in parts]
        free = self.setup.tokens * count - sum(ends)
        whole = sum(weight for *_, weight in parts)
        sizes = [e + math.floor(free * w / whole + 1e-9) for e, (*_, w) in zip(ends, parts, strict=True)]
        sizes[0] += self.setup.tokens * count - sum(sizes)
        found: dict[str, list[int]] = {"veil": [], "anchor": [], "wave": []}
        for (kind, *_), size in zip(parts, sizes, strict=True):
            found[kind].append(size)
        return found

    def evict(self, layer: int, heads: list[Head], chunk: Chunk) -> None:
        """Make room in one layer."""
        if chunk.stop <= self.setup.tokens:
            return
        if layer not in self.kinds:
            self.kinds[layer] = self.measure(heads, chunk)
        sizes = self.sizes(len(heads))
        assert all(len(set(own)) <= 1 for own in sizes.values()), "the order within a kind would count"
        before = max(len(head.slots) for head in heads)
        for head, kind in zip(heads, self.kinds[layer], strict=True):
            self.make_room(head, kind, sizes[kind][0], chunk.stop)
        self.hides = self.hides or max(len(head.slots) for head in heads) < before

    def make_room(self, head: Head, kind: str, size: int, stop: int) -> None:
        """Keep both ends, then the newest of what the middle is made of, then the newest others."""
        near = stop - max(self.near_frames, self.chunk_frames) * self.setup.frame
        sink = (1 if kind == "wave" else self.sink_frames) * self.setup.frame
        ends, chosen, others = [], [], []
        for i, slot in enumerate(head.slots):
            token = int(slot["token"])
            slot["is_middle"] = kind == "wave" and sink <= token < near
            if token < sink or token >= near:
                ends.append(i)
            elif self.belongs(token, kind):
                chosen.append(i)
            else:
                others.append(i)
        room = size - len(ends)
        kept = sorted(ends + (others + chosen)[-room:] if room else ends)
        if kind == "veil":
            self.merge(head, set(kept), sink)
        if len(kept) < len(head.slots):
            keep(head, kept)

    def belongs(self, token: int, kind: str) -> bool:
        frame = token // self.setup.frame
        if kind == "wave":
            return any(frame % self.period == n * self.chunk_frames % self.period for n in range(self.period))
        return self.block(token)[1] == token if kind == "veil" else frame % self.period == 0

    def block(self, token: int) -> tuple[tuple[int, int, int], int]:
        """Give the block of a token and the block's first token."""
        frame, row, column = naive.place(token, self.setup)
        block = frame // self.patch**2, row // self.patch, column // self.patch
        first = block[0] * self.patch**2 * self.setup.frame
        return block, first + block[1] * self.patch * self.setup.columns + block[2] * self.patch

    def merge(self, head: Head, kept: set[int], sink: int) -> None:
        """Give what goes to the first slot of its block; that one is the mean of all it was ever given."""
        first = {int(slot["token"]): slot for i, slot in enumerate(head.slots) if i in kept}
        for i, slot in enumerate(head.slots):
            target = first.get(self.block(int(slot["token"]))[1])
            if i not in kept and target is not None and int(target["token"]) >= sink:
                members: list[Slot] = target.setdefault("members", [dict(target)])
                members += slot.get("members", [dict(slot)])
                for name in ("key", "value"):
                    target[name] = np.mean([member[name] for member in members], axis=0)

    def seen(self, head: Head, first: int) -> Head:
        """A chunk sees of a Wave head's middle the frames in phase with its own first frame."""
        phase = first // self.setup.frame % self.period
        slots = [
            slot
            for slot in head.slots
            if not (self.hides and slot.get("is_middle"))
            or int(slot["token"]) // self.setup.frame % self.period == phase
        ]
        return Head(slots, has_dropped=head.has_dropped)
