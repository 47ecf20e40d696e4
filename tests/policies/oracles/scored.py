"""Policies that only score, from their formulas: float64 numpy, one head and one slot at a time.

Nothing here is shared with the package. A score function takes what each head of one layer has seen and
returns one array per head, with one number per slot.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from oracles import naive

Array = np.ndarray


@dataclass
class Seen:
    """One head: what it holds, copies of it after this chunk's passes (the clean one last), its queries."""

    head: naive.Head = field(default_factory=naive.Head)
    passes: list[naive.Head] = field(default_factory=list)
    queries: list[Array] = field(default_factory=list)  # one (N, D) per observed pass
    lift: dict[int, float] = field(default_factory=dict)  # token -> sum over passes
    times: dict[int, int] = field(default_factory=dict)
    chunk: int = 0  # tokens of the newest chunk


Score = Callable[..., list[Array]]


def run_chunk(
    seen: Seen, passes: list[tuple[Array, Array, Array]], *, first: int, setup: naive.Setup
) -> Array:
    """Run the passes of one chunk, the last of which commits; return the outputs of all, (passes, N, D)."""
    outputs, seen.passes = [], []
    for number, (queries, keys, values) in enumerate(passes):
        is_last = number == len(passes) - 1
        head = seen.head if is_last else copy.deepcopy(seen.head)
        outputs.append(naive.run_chunk(head, queries, keys, values, first=first, setup=setup))
        seen.passes.append(head)
        seen.queries.append(queries)
        seen.chunk = len(keys)
    return np.array(outputs)


def evict(seen: Seen, scores: Array, setup: naive.Setup) -> None:
    kept = naive.choose([float(score) for score in scores], setup)
    seen.head.slots, seen.head.has_dropped = [seen.head.slots[i] for i in kept], True


def attention(head: naive.Head, chunk: int, setup: naive.Setup, denominator: str) -> list[Array]:
    """Return the softmax of each query of the chunk over the slots, (S,) each."""
    frames = chunk // setup.frame
    slots = head.slots if denominator == "all" else head.slots[:-chunk]
    rows = []
    for number, query in enumerate(np.concatenate(head.recent_queries[-frames:])):
        frame, row, column = naive.place(number, setup)
        turned = naive.rotate(query, head.last_time - (frames - 1) + frame, row, column, setup)
        weights = [turned @ slot["rotated"] / math.sqrt(len(query)) for slot in slots]
        softmax = naive.softmax(np.array(weights)) if slots else np.array([])
        rows.append(np.concatenate([softmax, np.zeros(len(head.slots) - len(slots))]))
    return rows


def received(seen: Seen, setup: naive.Setup, denominator: str, last: int | None = None) -> Array:
    """Return the mean attention of the chunk's last queries over all observed passes, (S,)."""
    rows = [attention(head, seen.chunk, setup, denominator)[-(last or 0) :] for head in seen.passes]
    return np.mean([np.mean(part, 0) for part in rows], 0)


def pool(x: Array, kernel: int, kind: str) -> Array:
    half, out = kernel // 2, []
    for i in range(len(x)):
        part = x[max(0, i - half) : i + half + 1]
        out.append(part.max() if kind == "max" else part.sum() / kernel)
    return np.array(out)


# -- the policies -----------------------------------------------------------------------------------------


def h2o_lift(layer: list[Seen], setup: naive.Setup, *, denominator: str = "all") -> list[Array]:
    scores = []
    for seen in layer:
        for head in seen.passes:
            readable = head.slots if denominator == "all" else head.slots[: -seen.chunk]
            share = np.mean(attention(head, seen.chunk, setup, denominator), 0)
            for slot, part in zip(readable, share, strict=False):
                token = int(slot["token"])
                seen.lift[token] = seen.lift.get(token, 0.0) + part * len(readable)
                seen.times[token] = seen.times.get(token, 0) + 1
        tokens = [int(slot["token"]) for slot in seen.head.slots]
        scores.append(np.array([seen.lift[t] / seen.times[t] if t in seen.times else 1.0 for t in tokens]))
    return scores


def tova(layer: list[Seen], setup: naive.Setup, *, denominator: str = "all") -> list[Array]:
    shared = np.mean([received(seen, setup, denominator) for seen in layer], 0)
    return [shared] * len(layer)


def snapkv(
    layer: list[Seen],
    setup: naive.Setup,
    *,
    window: int = 3,
    kernel: int = 5,
    pooling: str = "avg",
    denominator: str = "all",
) -> list[Array]:
    last = window * setup.frame
    return [pool(received(seen, setup, denominator, last), kernel, pooling) for seen in layer]


def keydiff(layer: list[Seen], setup: naive.Setup) -> list[Array]:
    scores = []
    for seen in layer:
        units = [slot["rotated"] / np.linalg.norm(slot["rotated"]) for slot in seen.head.slots]
        anchor = sum(units) / len(units)
        scores.append(np.array([-(unit @ anchor) / np.linalg.norm(anchor) for unit in units]))
    return scores


def knorm(layer: list[Seen], setup: naive.Setup) -> list[Array]:
    return [np.array([-math.sqrt(slot["key"] @ slot["key"]) for slot in seen.head.slots]) for seen in layer]


def gram(seen: Seen) -> Array:
    """Return the cosines between all rotated keys, with zeros on the diagonal."""
    units = [slot["rotated"] / np.linalg.norm(slot["rotated"]) for slot in seen.head.slots]
    cosines = np.array([[one @ other for other in units] for one in units])
    np.fill_diagonal(cosines, 0.0)
    return cosines


def rkv(
    layer: list[Seen],
    setup: naive.Setup,
    *,
    lam: float = 0.07,
    window: int = 3,
    kernel: int = 7,
    threshold: float = 0.5,
    denominator: str = "all",
) -> list[Array]:
    scores = []
    for seen in layer:
        read = pool(received(seen, setup, denominator, window * setup.frame), kernel, "max")
        cosines = gram(seen)
        for row in cosines:
            twins = np.nonzero(row > threshold)[0]
            if len(twins):
                row[twins[-1]] = 0.0
        scores.append(lam * read - (1 - lam) * naive.softmax(cosines.mean(0)))
    return scores


def flowcache(
    layer: list[Seen],
    setup: naive.Setup,
    *,
    lam: float = 0.07,
    query_granularity: str = "chunk",
    kernel: int = 7,
    denominator: str = "all",
) -> list[Array]:
    scores = []
    for seen in layer:
        last = {"token": 50, "frame": setup.frame, "chunk": seen.chunk}[query_granularity]
        read = pool(received(seen, setup, denominator, last), kernel, "max")
        scores.append(lam * read - (1 - lam) * naive.softmax(gram(seen).mean(0)))
    return scores


def places(setup: naive.Setup, frame: int, horizon: int, phases: int) -> list[tuple[int, int]]:
    """Return the rows and columns looked at in one of the future frames: every so-many-th token, walking."""
    stride = math.ceil(setup.frame / phases)
    start = frame * stride // horizon
    tokens = [i * stride + (i + start) % stride for i in range(math.ceil(setup.frame / stride))]
    return [naive.place(min(token, setup.frame - 1), setup)[1:] for token in tokens]


def expected_attention(
    layer: list[Seen],
    setup: naive.Setup,
    *,
    horizon: int = 6,
    phases: int = 4,
    average: str = "outside",
    covariance: bool = True,
    value_norm: bool = True,
    epsilon: float = 0.0,
) -> list[Array]:
    scores = []
    for seen in layer:
        queries = np.concatenate(seen.queries)
        mean, spread = queries.mean(0), np.cov(queries.T, bias=True) * covariance
        dim, turns = len(mean), []
        for frame in range(horizon):
            for row, column in places(setup, frame, horizon, phases):
                time = seen.head.last_time + 1 + frame
                turned = [naive.rotate(axis, time, row, column, setup) for axis in np.eye(dim)]
                turns.append(np.array(turned).T)  # the matrix R: its columns are the turned axes
        if average == "inside":
            turns = [sum(turns) / len(turns)]
        softmaxes = []
        for turn in turns:
            centre, cloud = turn @ mean, turn @ spread @ turn.T
            keys = [slot["rotated"] for slot in seen.head.slots]
            logits = [k @ centre / math.sqrt(dim) + k @ cloud @ k / (2 * dim) for k in keys]
            softmaxes.append(naive.softmax(np.array(logits)))
        score = sum(softmaxes) / len(softmaxes)
        norms = np.array([math.sqrt(slot["value"] @ slot["value"]) for slot in seen.head.slots])
        scores.append((score + epsilon) * norms if value_norm else score)
    return scores


def slot_times(seen: Seen, setup: naive.Setup) -> list[int]:
    """Return the time at which each slot stands before eviction."""
    tokens = [int(slot["token"]) for slot in seen.head.slots]
    if setup.position == "absolute" or not seen.head.has_dropped:
        return [token // setup.frame for token in tokens]
    old = len(tokens) - seen.chunk
    start = math.ceil(old / setup.frame)
    return [i // setup.frame if i < old else start + (i - old) // setup.frame for i in range(len(tokens))]


def triattention(
    layer: list[Seen], setup: naive.Setup, *, furthest: int = 128, standardise: bool = True
) -> list[Array]:
    offsets = [2**power for power in range(20) if 2**power <= furthest]
    scores = []
    for seen in layer:
        queries = np.concatenate(seen.queries)
        half = queries.shape[1] // 2
        pairs = queries[:, :half] + 1j * queries[:, half:]
        centre, size = pairs.mean(0), np.abs(pairs).mean(0)
        time_pairs = setup.dims[0] // 2
        speeds = np.zeros(half)
        speeds[:time_pairs] = [setup.bases[0] ** (-2 * pair / setup.dims[0]) for pair in range(time_pairs)]
        score = []
        for slot, time in zip(seen.head.slots, slot_times(seen, setup), strict=True):
            key = slot["key"][:half] + 1j * slot["key"][half:]
            waves = [
                np.abs(centre) * np.abs(key)
                * np.cos(speeds * (seen.head.last_time + t - time) + np.angle(centre * key.conj()))
                for t in offsets
            ]  # fmt: skip
            spread = (size - np.abs(centre)) * np.abs(key)
            score.append(np.mean([wave.sum() for wave in waves]) + spread.sum())
        found = np.array(score)
        scores.append((found - found.mean()) / found.std() if standardise else found)
    return scores
