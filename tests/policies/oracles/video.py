"""Policies of the video papers a second time: float64 numpy, from their formulas, slot by slot.

Attention and rotation come from the naive model; nothing is shared with the package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from oracles import naive
from oracles.naive import Array, Head, Setup, Slot


@dataclass
class Chunk:
    """What one layer has seen of a chunk."""

    number: int
    first: int  # its first token
    stop: int  # the token behind its last
    start: int  # time of its first frame
    first_queries: list[Array] = field(default_factory=list)  # per head, of the first pass
    queries: list[Array] = field(default_factory=list)  # of the clean pass


Evict = Callable[[int, list[Head], Chunk], None]
Inputs = Callable[[int], tuple[Array, Array, Array]]
Context = Callable[[Head, int], Head]


def rollout(
    inputs: Inputs,
    evict: Evict,
    setup: Setup,
    *,
    layers: int,
    heads: int,
    chunks: int,
    passes: int,
    tokens: int,
    seen: Context = lambda head, first: head,
) -> tuple[list[list[Head]], list[Array]]:
    """Run all chunks; return what every head holds and the output of every pass and layer.

    Args:
        inputs: Gives queries, keys and values (H, N, D) of call number so-and-so, from 1 on.
        evict: Makes room in one layer after its clean pass.
        setup: The toy model and the budget.
        layers: How many.
        heads: How many.
        chunks: How many.
        passes: Of each chunk; the last is clean.
        tokens: Of a chunk.
        seen: Gives the head that a pass sees instead.
    """
    state = [[Head() for _ in range(heads)] for _ in range(layers)]
    outputs, call = [], 0
    for number in range(chunks):
        first = number * tokens
        made = [Chunk(number, first, first + tokens, 0) for _ in range(layers)]
        for index in range(passes):
            for layer in range(layers):
                call += 1
                parts, chunk, outs = inputs(call), made[layer], []
                for head, own in zip(state[layer], zip(*parts, strict=True), strict=True):
                    probe = seen(head, first)
                    probe = Head(
                        [{**slot, "mass": 0.0} for slot in probe.slots], has_dropped=probe.has_dropped
                    )
                    outs.append(naive.run_chunk(probe, *own, first=first, setup=setup))
                    chunk.start = probe.last_time - tokens // setup.frame + 1
                    if index == 0:
                        chunk.first_queries.append(own[0])
                    if index == passes - 1:
                        chunk.queries.append(own[0])
                        keep_chunk(head, probe, tokens)
                outputs.append(np.array(outs))
        for layer in range(layers):
            evict(layer, state[layer], made[layer])
    return state, outputs


def keep_chunk(head: Head, probe: Head, tokens: int) -> None:
    """Hold the chunk of a clean pass; where the pass saw all that is held, take over what it noted."""
    if [slot["token"] for slot in probe.slots[:-tokens]] == [slot["token"] for slot in head.slots]:
        head.slots = probe.slots
    else:
        head.slots = head.slots + probe.slots[-tokens:]


def keep(head: Head, kept: list[int]) -> None:
    head.slots, head.has_dropped = [head.slots[i] for i in kept], True


# -- policies ---------------------------------------------------------------------------------------------


def window(setup: Setup) -> Evict:
    """Sink and the newest slots."""

    def evict(layer: int, heads: list[Head], chunk: Chunk) -> None:
        for head in heads:
            count = len(head.slots)
            if count > setup.tokens:
                rest = setup.tokens - setup.sink
                keep(head, [*range(setup.sink), *range(count - rest, count)])

    return evict


def deep_forcing(setup: Setup, max_reuse: int) -> Evict:
    """Top-C of the middle by logits summed over recent queries and heads."""
    before: dict[int, list[Array]] = {}

    def turned(queries: Array, time: int) -> Array:
        return sum(
            naive.rotate(query, time + n // setup.frame, *naive.place(n, setup)[1:], setup)
            for n, query in enumerate(queries)
        )

    def evict(layer: int, heads: list[Head], chunk: Chunk) -> None:
        count = len(heads[0].slots)
        total = np.zeros(count)
        for number, head in enumerate(heads):
            asked = turned(chunk.first_queries[number], chunk.start)
            if layer in before:
                asked = asked + turned(before[layer][number], chunk.start - 1)
            total += np.array([asked @ slot["rotated"] for slot in head.slots])
        before[layer] = [queries[-setup.frame :] for queries in chunk.queries]
        if count <= setup.tokens:
            return
        used = [int(slot.get("picks", 0)) for slot in heads[0].slots]
        scores = [-np.inf if max_reuse and n >= max_reuse else s for n, s in zip(used, total, strict=True)]
        kept = naive.choose(scores, setup)
        for head in heads:
            for i in kept:
                if setup.sink <= i < count - setup.recent:
                    head.slots[i]["picks"] = used[i] + 1
            keep(head, kept)

    return evict


def memrope(setup: Setup, long: float, short: float, adaptive: bool) -> Evict:
    """Two frames of moving averages behind the sink."""
    frame, start = setup.frame, setup.sink + 2 * setup.frame
    begun: set[int] = set()

    def means(head: Head, gone: int, name: str) -> list[Array]:
        rows = np.array([head.slots[i][name] for i in range(start, start + gone)])
        if not adaptive:
            return [rows.mean(0)] * frame
        tokens = [int(head.slots[i]["token"]) for i in range(start, start + gone)]
        whole = gone // frame * frame
        own = [int(head.slots[setup.sink + i]["token"]) % frame for i in range(frame)]
        return [np.mean([rows[j] for j in range(whole) if tokens[j] % frame == p], 0) for p in own]

    def evict(layer: int, heads: list[Head], chunk: Chunk) -> None:
        gone = len(heads[0].slots) - setup.tokens
        if gone <= 0:
            return
        motion = np.zeros(frame)
        for head in heads:
            new = means(head, gone, "key")
            old = [head.slots[setup.sink + frame + i]["key"] for i in range(frame)]
            motion += [np.linalg.norm(a - b) / len(heads) for a, b in zip(new, old, strict=True)]
        weights = short * (0.1 + 4.9 * motion / motion.max()) if adaptive else np.full(frame, short)
        for head in heads:
            for name in ("key", "value"):
                for i, mean in enumerate(means(head, gone, name)):
                    for slot, alpha in (
                        (head.slots[setup.sink + i], long),
                        (head.slots[setup.sink + frame + i], weights[i]),
                    ):
                        alpha = alpha if layer in begun else 1.0
                        slot[name] = (1 - alpha) * slot[name] + alpha * mean
            keep(head, [*range(start), *range(start + gone, len(head.slots))])
        begun.add(layer)

    return evict


def rolling_sink(setup: Setup) -> tuple[Evict, Context]:
    """The original's way: the cache is a window over the past whose older frames are written anew."""
    whole = setup.tokens - setup.recent
    count = whole // setup.frame

    def evict(layer: int, heads: list[Head], chunk: Chunk) -> None:
        for head in heads:
            slots = len(head.slots)
            if slots > setup.tokens:
                keep(head, [*range(whole), *range(slots - setup.recent, slots)])

    def seen(head: Head, first: int) -> Head:
        if not head.has_dropped:
            return head
        order = [*range(count), *reversed(range(count))]  # there and back again
        context: list[Slot] = []
        for past in range((first - setup.tokens) // setup.frame, (first - setup.recent) // setup.frame):
            source = order[past % len(order)] * setup.frame
            for n in range(setup.frame):
                slot = head.slots[source + n]
                context.append({**slot, "token": past * setup.frame + n})
        return Head([*context, *head.slots[-setup.recent :]], has_dropped=True)

    return evict, seen


def relax_forcing(setup: Setup, redundancy: float) -> Evict:
    """Whole frames by the cosine of their mean key to that of the sink, less that to that of the tail."""

    def mean_key(heads: list[Head], slots: range) -> Array:
        mean = np.mean([head.slots[i]["key"] for head in heads for i in slots], 0)
        return mean / np.linalg.norm(mean)

    def evict(layer: int, heads: list[Head], chunk: Chunk) -> None:
        count = len(heads[0].slots)
        if count <= setup.tokens:
            return
        sink = mean_key(heads, range(setup.sink))
        tail = mean_key(heads, range(count - setup.recent, count))
        scores = []
        for first in range(0, count, setup.frame):
            own = mean_key(heads, range(first, first + setup.frame))
            scores += [float(own @ sink - redundancy * (own @ tail))] * setup.frame
        for head in heads:
            keep(head, naive.choose(scores, setup))

    return evict


def tempcache(setup: Setup, threshold: float) -> Evict:
    """Groups along time: the older ones of a group go first, into the newest that stays."""

    def heirs(head: Head, chunk: Chunk) -> None:
        held = {int(slot["token"]): slot for slot in head.slots}
        for token in range(max(0, chunk.first - setup.frame), chunk.stop - setup.frame):
            start = (token // setup.frame + 1) * setup.frame
            own = held[token]["key"] / np.linalg.norm(held[token]["key"])
            following = [held[t]["key"] for t in range(start, start + setup.frame)]
            cosines = [own @ key / np.linalg.norm(key) for key in following]
            if max(cosines) >= threshold:
                held[token]["heir"] = start + int(np.argmax(cosines))

    def evict(layer: int, heads: list[Head], chunk: Chunk) -> None:
        for head in heads:
            heirs(head, chunk)
            count = len(head.slots)
            if count <= setup.tokens:
                continue
            kept = naive.choose([n - count * ("heir" in s) for n, s in enumerate(head.slots)], setup)
            stays = {int(head.slots[i]["token"]): head.slots[i] for i in kept}
            held = {int(slot["token"]): slot for slot in head.slots}
            groups: dict[int, list[Slot]] = {token: [slot] for token, slot in stays.items()}
            for slot in head.slots:
                token = int(slot["token"])
                while token not in stays and held.get(token, {}).get("heir") in held:
                    token = int(held[token]["heir"])
                if token in stays and slot is not stays[token]:
                    groups[token].append(slot)
            for token, group in groups.items():
                sizes = [int(slot.get("size", 1)) for slot in group]
                stays[token]["mean"] = np.average([slot["value"] for slot in group], 0, weights=sizes)
                stays[token]["sum"] = sum(sizes)
            for slot in stays.values():
                slot["value"], slot["size"] = slot.pop("mean"), slot.pop("sum")
            keep(head, kept)

    return evict
