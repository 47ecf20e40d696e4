"""Properties that compare two runs: alone and together, heads in another order, another number format."""

from __future__ import annotations

import dataclasses

import torch

from policies.base import Budget
from policies.cache import LayerCache
from policies.checking.stream import SHAPE
from policies.checking.subject import Broken, NotApplicable, Subject, same, sets
from policies.positions import NOTHING, time_indices

VARIANTS: tuple[dict[str, object], ...] = (
    {}, {"share": "layer"}, {"unit": "frame"}, {"position": "contiguous"},
)  # fmt: skip
ALIKE = 0.99
"""Share of the slots that bfloat16 keeps as fp32 does."""


def repeats(subject: Subject) -> None:
    """Two runs are equal to the last bit, whatever others have drawn meanwhile."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = subject.run()
        torch.manual_seed(2)
        second = subject.run()
    if not same(sets(first), sets(second)) or not same(first.outputs, second.outputs):
        raise Broken("two runs differ: draw from `seeds` and positions alone, not from global random numbers")


def is_the_same_alone(subject: Subject) -> None:
    """A video is the same alone and beside another one."""
    for protocol in dict.fromkeys(subject.protocol(**fields) for fields in VARIANTS):
        if subject.is_planned and (protocol.share, protocol.unit) != ("head", "token"):
            continue
        both = subject.run(protocol, batch=2)
        for element in range(2):
            one = slice(element, element + 1)
            alone = subject.run(protocol, batch=2, edit=lambda x, one=one: x[one])
            if not same(sets(alone), [held[one] for held in sets(both)]):
                raise Broken(
                    f"video {element} of a batch keeps other slots than alone (share {protocol.share}, "
                    f"unit {protocol.unit})"
                )
            for a, b in zip(alone.outputs, both.outputs, strict=True):
                if not torch.allclose(a, b[one], rtol=1e-4, atol=1e-5):
                    raise Broken(f"attention of video {element} of a batch differs from that alone")


def follows_heads(subject: Subject) -> None:
    """Heads in another order give the same sets in that order."""
    straight, turned = subject.run(), subject.run(edit=lambda x: x.flip(1))
    if not same(sets(straight), sets(subject.run(seed=8))):
        raise NotApplicable("it draws: its sets depend on the seed and the number of the head")
    if not same([held.flip(1) for held in sets(straight)], sets(turned)):
        raise Broken("heads in another order keep other slots")


def moves_slots_whole(subject: Subject) -> None:
    """Key, value, token and state of a slot stay together."""
    if subject.moving is None:
        raise NotApplicable("it changes the slots that stay by those that leave")

    def tag(cache: LayerCache) -> None:
        chunk = slice(cache.size - SHAPE.chunk_tokens, cache.size)
        numbers = cache.tokens[:, :, chunk].float()
        cache.slot_state("tag")[:, :, chunk] = numbers
        cache.values[:, :, chunk, 0] = numbers
        cache.keys[:, :, chunk, 1] = numbers / 100

    for protocol in subject.protocols():
        stream = subject.run(protocol, policy=subject.moving(), before_finish=tag)
        for cache in stream.context.caches:
            used = cache.tokens < NOTHING
            numbers = cache.tokens[used].float()
            found = [cache.slot_state("tag")[used], cache.values[used][:, 0], cache.keys[used][:, 1]]
            if not same(found, [numbers, numbers, numbers / 100]):
                raise Broken(f"what belongs to a slot was parted (layer {cache.layer})")


def stands_at_its_times(subject: Subject) -> None:
    """Rotated keys stand at the times of the position mode, and are never rotated twice."""
    for protocol in subject.protocols():
        stream = subject.run(protocol)
        first, position = subject.chunks * SHAPE.chunk_frames, protocol.position
        stream.context.start_chunk(subject.chunks, first)
        for cache in stream.context.caches:
            times, _ = time_indices(
                cache.tokens, position if cache.has_dropped or position == "clamped" else "absolute",
                first_frame=first, frames=SHAPE.chunk_frames, frame_tokens=SHAPE.frame_tokens,
                window=SHAPE.window_frames, sink=subject.budget.sink,
            )  # fmt: skip
            expected = SHAPE.rope.rotate(cache.keys, SHAPE.rope.angles(times, cache.rows, cache.columns))
            used = cache.tokens < NOTHING
            if not torch.allclose(cache.rotated[used], expected[used], rtol=1e-4, atol=1e-4):
                raise Broken(f"rotated keys do not stand at the times of position={position}")


def keeps_the_same_in_bf16(subject: Subject) -> None:
    """Keys and values in bfloat16 keep nearly the slots of fp32."""
    shape = dataclasses.replace(SHAPE, rows=8, columns=16)  # 384 tokens a chunk
    wide = Budget(16 * subject.tokens, 16 * subject.budget.sink, 16 * subject.budget.recent)
    chunks = 1 + 16 * subject.tokens // shape.chunk_tokens  # the first drop alone: later ones follow from it
    runs = [
        subject.run(
            budget=wide, shape=shape, chunks=chunks, dtype=dtype,
            edit=lambda x: (x / 4).bfloat16().float(),
        )
        for dtype in (torch.float32, torch.bfloat16)
    ]  # fmt: skip
    for one, other in zip(*(run.tokens[-1] for run in runs), strict=True):
        for a, b in zip(one.flatten(0, 1), other.flatten(0, 1), strict=True):
            share = float(torch.isin(a, b).float().mean())
            if share < ALIKE:
                raise Broken(f"bfloat16 keeps {share:.1%} of the slots that fp32 keeps; allowed: {ALIKE:.0%}")


def survives_equal_keys(subject: Subject) -> None:
    """Equal keys and values everywhere give no NaN and the usual size."""
    tokens = subject.tokens
    stream = subject.run(edit=torch.ones_like)
    for cache in stream.context.caches:
        if not bool(cache.values.isfinite().all()) or not bool(cache.keys.isfinite().all()):
            raise Broken("keys or values are not finite after equal keys")
        if not subject.is_planned and sum(cache.held) > tokens * cache.heads:
            raise Broken(
                f"{sum(cache.held) / cache.heads:g} tokens per head after equal keys; allowed: {tokens}"
            )


def follows_the_protocol(subject: Subject) -> None:
    """Every field of the protocol that policies see can be set."""
    _ = subject.tokens
    changes: tuple[dict[str, object], ...] = (
        {"passes": "all"},
        {"denominator": "context"},
        {"query_stride": 5},
    )
    for change in changes:
        if set(change) & set(subject.kind.pins):
            continue
        stream = subject.run(subject.protocol(**change))
        if not all(bool(out.isfinite().all()) for out in stream.outputs):
            raise Broken(f"attention is not finite under {change}")
