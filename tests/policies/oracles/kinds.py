"""Policies that tell kinds of heads apart a second time: float64 numpy, from their formulas, slot by slot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from oracles import naive
from oracles.naive import Array, Head, Setup
from oracles.video import Chunk, Evict, keep


def by_kind(setup: Setup, narrow: int, count: int, kinds: Callable, scores: Callable) -> Evict:
    """Narrow heads keep ``narrow`` slots, the others share the rest; layer by layer.

    Args:
        setup: The budget.
        narrow: Slots of a narrow head.
        count: Narrow heads of a layer, by layer.
        kinds: Gives the heads of a layer in the order of their claim to be narrow, once it can.
        scores: Gives the scores of a head.
    """
    order: dict[int, list[int]] = {}

    def evict(layer: int, heads: list[Head], chunk: Chunk) -> None:
        found = kinds(layer, heads, chunk) if layer not in order else None
        if found is not None:
            order[layer] = found
        number = 0 if layer == 0 and count < 0 else abs(count)
        wide = (setup.tokens * len(heads) - number * narrow) // (len(heads) - number)
        if chunk.stop <= setup.tokens:
            scores(layer, heads, chunk, set())
            return
        few = set(order[layer][:number])
        own = scores(layer, heads, chunk, few)
        for i, head in enumerate(heads):
            size = narrow if i in few else wide
            limit = Setup(**{**vars(setup), "tokens": size})
            if len(head.slots) > size:
                keep(head, naive.choose(own[i], limit))

    return evict


def dummy_forcing(setup: Setup, count: int) -> Evict:
    """Kinds by the attention to the first frame and to what is between it and the chunk."""
    shares: dict[int, tuple[Array, Array]] = {}

    def kinds(layer: int, heads: list[Head], chunk: Chunk) -> list[int] | None:
        if chunk.number != 1:
            return None
        mass = np.array([[slot["mass"] for slot in head.slots] for head in heads])
        first, middle = mass[:, : setup.frame].sum(1), mass[:, setup.frame : chunk.first].sum(1)
        shares[layer] = first / first.sum(), middle / middle.sum()
        return list(np.argsort(np.maximum(*shares[layer])))

    def scores(layer: int, heads: list[Head], chunk: Chunk, few: set[int]) -> list[list[float]]:
        found = []
        for i, head in enumerate(heads):
            own = [float(n) for n in range(len(head.slots))]
            if i not in few and shares and shares[layer][0][i] >= shares[layer][1][i]:
                own = [1e9 if head.slots[n]["token"] < setup.frame else s for n, s in enumerate(own)]
            found.append(own)
        return found

    return by_kind(setup, max(setup.frame, setup.sink + setup.recent), count, kinds, scores)


def forcing_kv(setup: Setup, count: int, near: int, skipped: int, patches: int) -> Evict:
    """Kinds by the share of attention on the last frames; scores by likeness to the next frame."""

    def kinds(layer: int, heads: list[Head], chunk: Chunk) -> list[int] | None:
        if chunk.stop <= setup.tokens:
            return None
        mass = np.array([[slot["mass"] for slot in head.slots] for head in heads])
        share = mass[:, -near * setup.frame :].sum(1) / mass[:, skipped * setup.frame :].sum(1)
        return list(np.argsort(-share))

    def scores(layer: int, heads: list[Head], chunk: Chunk, few: set[int]) -> list[list[float]]:
        found = [{int(slot["token"]): slot for slot in head.slots} for head in heads]
        for token in range(max(0, chunk.first - setup.frame), chunk.stop - setup.frame):
            pair = [
                np.concatenate([own[t]["rotated"] for own in found]) for t in (token, token + setup.frame)
            ]
            cosine = pair[0] @ pair[1] / np.linalg.norm(pair[0]) / np.linalg.norm(pair[1])
            for own in found:
                own[token]["cosine"] = cosine
        runs = np.array_split(np.arange(setup.frame), patches)
        for own in found:
            for token in range(max(0, chunk.first - setup.frame), chunk.stop - setup.frame):
                base = token // setup.frame * setup.frame
                run = next(r for r in runs if token % setup.frame in r)
                own[token]["score"] = -np.mean([own[base + int(n)]["cosine"] for n in run])
        return [
            [float(n) if i in few else float(slot.get("score", 1.0)) for n, slot in enumerate(head.slots)]
            for i, head in enumerate(heads)
        ]

    return by_kind(setup, setup.sink + setup.recent, -count, kinds, scores)
