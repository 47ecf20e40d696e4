"""Policies written a second time: float64 numpy, one head, one slot and one query at a time, no caches.

Nothing here is shared with the package; slots are dictionaries in a list.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray
Slot = dict[str, object]


@dataclass
class Setup:
    """The numbers of a toy model and of a run."""

    rows: int
    columns: int
    dims: tuple[int, int, int]
    bases: tuple[float, float, float]
    tokens: int
    sink: int
    recent: int
    position: str = "absolute"
    lam: float = 0.5
    horizon: int = 6
    window: int = 3
    tau: float = 0.95

    @property
    def frame(self) -> int:
        return self.rows * self.columns


@dataclass
class Head:
    """One head of one layer: what it holds and what it has seen."""

    slots: list[Slot] = field(default_factory=list)
    queries_seen: int = 0
    recent_queries: list[Array] = field(default_factory=list)  # one (P, D) per latent frame
    has_dropped: bool = False
    last_time: int = 0


def rotate(x: Array, time: float, row: int, column: int, setup: Setup) -> Array:
    """Turn one vector; channel i and i + D/2 are real and imaginary part of pair i."""
    half = len(x) // 2
    angles = [
        position * base ** (-2 * pair / dim)
        for position, base, dim in zip((time, row, column), setup.bases, setup.dims, strict=True)
        for pair in range(dim // 2)
    ]
    turned = (x[:half] + 1j * x[half:]) * np.exp(1j * np.array(angles))
    return np.concatenate([turned.real, turned.imag])


def softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def place(token: int, setup: Setup) -> tuple[int, int, int]:
    """Return frame, row and column of a token."""
    return token // setup.frame, token % setup.frame // setup.columns, token % setup.columns


def key_of(slot: Slot, time: float, setup: Setup) -> Array:
    _, row, column = place(int(slot["token"]), setup)
    return rotate(slot["key"], time, row, column, setup)


def run_chunk(head: Head, queries: Array, keys: Array, values: Array, *, first: int, setup: Setup) -> Array:
    """Run one clean pass from token ``first`` on; return the attention output and hold the chunk."""
    is_moved = setup.position == "contiguous" and head.has_dropped
    held = math.ceil(len(head.slots) / setup.frame)
    start = held if is_moved else first // setup.frame
    times = [
        number // setup.frame if is_moved else place(int(slot["token"]), setup)[0]
        for number, slot in enumerate(head.slots)
    ]
    for number in range(len(keys)):
        slot = {"token": first + number, "key": keys[number], "value": values[number], "mass": 0.0}
        head.slots.append(slot)
        times.append(start + number // setup.frame)
    for slot, time in zip(head.slots, times, strict=True):
        slot["rotated"] = key_of(slot, time, setup)
    outputs = []
    for number, query in enumerate(queries):
        _, row, column = place(first + number, setup)
        turned = rotate(query, start + number // setup.frame, row, column, setup)
        weights = softmax(np.array([turned @ slot["rotated"] for slot in head.slots]) / math.sqrt(len(query)))
        outputs.append(sum(w * slot["value"] for w, slot in zip(weights, head.slots, strict=True)))
        for weight, slot in zip(weights, head.slots, strict=True):
            slot["mass"] += weight
    head.queries_seen += len(queries)
    head.recent_queries += [queries[i : i + setup.frame] for i in range(0, len(queries), setup.frame)]
    head.last_time = start + len(queries) // setup.frame - 1
    return np.array(outputs)


def choose(scores: list[float], setup: Setup) -> list[int]:
    """Return the slots to keep: protected ones, then the best; of equal ones the newer."""
    count = len(scores)
    protected = set(range(setup.sink)) | set(range(count - setup.recent, count))
    others = sorted((i for i in range(count) if i not in protected), key=lambda i: (-scores[i], -i))
    return sorted(protected | set(others[: setup.tokens - len(protected)]))


def evict_h2o(head: Head, setup: Setup) -> None:
    if len(head.slots) <= setup.tokens:
        return
    kept = choose([float(slot["mass"]) for slot in head.slots], setup)
    head.slots, head.has_dropped = [head.slots[i] for i in kept], True


def future_attention(head: Head, setup: Setup) -> tuple[Array, Array]:
    """Return attention (horizon, S) and logits (horizon, S), both mean over the rows of the proxy."""
    proxy = sum(head.recent_queries[-setup.window :]) / len(head.recent_queries[-setup.window :])
    attention, logits = [], []
    for ahead in range(1, setup.horizon + 1):
        per_row = []
        for number, query in enumerate(proxy):
            _, row, column = place(number, setup)
            turned = rotate(query, head.last_time + ahead, row, column, setup)
            per_row.append(
                np.array([turned @ slot["rotated"] for slot in head.slots]) / math.sqrt(len(query))
            )
        attention.append(sum(softmax(row) for row in per_row) / len(per_row))
        logits.append(sum(per_row) / len(per_row))
    return np.array(attention), np.array(logits)


def evict_future_forcing(head: Head, setup: Setup) -> int:
    """Apply Eq 2 and Eq 3; return how many slots were merged."""
    if len(head.slots) <= setup.tokens:
        return 0
    attention, logits = future_attention(head, setup)
    past = np.array([float(slot["mass"]) for slot in head.slots]) / head.queries_seen
    kept = choose(list(setup.lam * attention.mean(0) + (1 - setup.lam) * past), setup)
    groups: dict[int, list[int]] = {i: [] for i in kept}
    for j in set(range(len(head.slots))) - set(kept):
        cosines = [
            logits[:, i] @ logits[:, j] / np.linalg.norm(logits[:, i]) / np.linalg.norm(logits[:, j])
            for i in kept
        ]
        if max(cosines) >= setup.tau:
            groups[kept[int(np.argmax(cosines))]].append(j)
    values = {i: merged_value(head, attention, i, group) for i, group in groups.items()}
    for i, value in values.items():
        head.slots[i]["value"] = value
    head.slots, head.has_dropped = [head.slots[i] for i in kept], True
    return sum(len(group) for group in groups.values())


def merged_value(head: Head, attention: Array, survivor: int, group: list[int]) -> Array:
    """Eq 3 for one survivor."""
    blends = []
    for weights in attention:
        total = weights[survivor] + sum(weights[j] for j in group)
        blend = weights[survivor] * head.slots[survivor]["value"]
        blends.append((blend + sum(weights[j] * head.slots[j]["value"] for j in group)) / total)
    return sum(blends) / len(blends)
