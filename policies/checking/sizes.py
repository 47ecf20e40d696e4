"""Properties of what is held: how much, which slots always, in which order, in whole units."""

from __future__ import annotations

import torch
from torch import Tensor

from policies.base import Budget, Policy, Protocol
from policies.checking.stream import GROUPED, SHAPE, Stream
from policies.checking.subject import Broken, NotApplicable, Subject, same
from policies.positions import NOTHING


def full_at_a_large_budget(subject: Subject) -> None:
    """With a budget of the video or more nothing is dropped: bit-identical to the full cache."""
    if subject.kind.is_full and subject.kind.name != "full":
        raise NotApplicable("it keeps everything, and is made to differ from `full`")
    budget, video = subject.budget, subject.chunks * SHAPE.chunk_tokens
    for number, protocol in enumerate(subject.protocols()):
        full = subject.full(protocol)
        for tokens in (video,) if number else (video, video + 5, None):
            mine = subject.run(protocol, budget=Budget(tokens, budget.sink, budget.recent))
            if not same(full.outputs, mine.outputs):
                raise Broken(
                    f"attention differs from the full cache's with a budget of {tokens or 'everything'} in a "
                    f"video of {video} tokens (position {protocol.position})"
                )
            for one, other in zip(full.context.caches, mine.context.caches, strict=True):
                parts = [(one.keys, other.keys), (one.values, other.values), (one.rotated, other.rotated)]
                if not same([a for a, _ in parts], [b for _, b in parts]):
                    raise Broken(f"layer {one.layer}: keys or values differ from the full cache's")


def holds_its_budget(subject: Subject) -> None:
    """Between chunks a layer holds the budget per head, or what the plan says within it."""
    tokens = subject.tokens
    for protocol in subject.protocols():
        for is_grouped in (False, True):
            stream = subject.run(protocol, shape=GROUPED) if is_grouped else subject.usual(protocol)
            _check_sizes(subject, stream, _whole(tokens, protocol))
            if not all(bool(out.isfinite().all()) for out in stream.outputs):
                raise Broken(f"attention is not finite (position {protocol.position})")


def _check_sizes(subject: Subject, stream: Stream, tokens: int) -> None:
    for chunk, layers in enumerate(stream.tokens):
        seen = (chunk + 1) * SHAPE.chunk_tokens
        counts = torch.stack([(held < NOTHING).sum(-1) for held in layers])  # (L, B, H)
        mean = float(counts.float().mean((0, 2)).max())
        if mean > min(tokens, seen):
            raise Broken(
                f"{mean:g} tokens per head after {seen} were generated; allowed: {min(tokens, seen)}"
            )
        if not subject.is_planned and mean != min(tokens, seen):
            raise Broken(
                f"{mean:g} tokens per head after {seen} were generated; expected: {min(tokens, seen)}"
            )


def keeps_order(subject: Subject) -> None:
    """Slots stay sorted by token, each token once."""
    _ = subject.tokens
    for protocol in subject.protocols():
        for layers in subject.usual(protocol).tokens:
            for held in layers:
                both = held[..., 1:] < NOTHING
                if bool(((held.diff(dim=-1) <= 0) & both).any()):
                    raise Broken("slots are not sorted by token, or one token is held twice")


def protects_sink_and_recent(subject: Subject) -> None:
    """The first `sink` and the last `recent` tokens are held by every head, whatever their score."""
    _ = subject.tokens
    budget = subject.budget
    for protocol in subject.protocols():
        for chunk, layers in enumerate(subject.usual(protocol).tokens):
            seen = (chunk + 1) * SHAPE.chunk_tokens
            always = {*range(min(budget.sink, seen)), *range(max(0, seen - budget.recent), seen)}
            for held in layers:
                for head in held.flatten(0, 1).tolist():
                    lost = sorted(always - set(head))
                    if lost:
                        raise Broken(
                            f"token {lost[0]} was dropped, which sink {budget.sink} or recent "
                            f"{budget.recent} protects ({seen} tokens seen)"
                        )


def keeps_frames_and_layers_whole(subject: Subject) -> None:
    """Under unit=frame and share=layer whole latent frames stay, the same ones in every head."""
    _ = subject.tokens
    protocol = subject.protocol(unit="frame", share="layer")
    if (protocol.unit, protocol.share) != ("frame", "layer"):
        raise NotApplicable("it pins unit or share")
    if subject.is_planned:
        raise NotApplicable("it gives heads or layers sizes of their own")
    for cache in subject.run(protocol).context.caches:
        frames = cache.frames.unflatten(2, (-1, SHAPE.frame_tokens))
        if not same([frames], [frames[..., :1].expand_as(frames)]):
            raise Broken("a latent frame is held in part under unit=frame")
        if not same([cache.tokens], [cache.tokens[:, :1].expand_as(cache.tokens)]):
            raise Broken("heads hold different tokens under share=layer")


def keeps_a_prefix(subject: Subject) -> None:
    """A prefix that no budget rules is held in full, and its attention is the full cache's."""
    tokens = subject.tokens
    prefix = tokens // SHAPE.chunk_tokens + 2
    protocol = subject.protocol()
    stream = subject.run(protocol, prefix=prefix)
    for chunk, layers in enumerate(stream.tokens[:prefix]):
        count = _most(layers)
        if count != (chunk + 1) * SHAPE.chunk_tokens:
            raise Broken(f"{count} tokens are held inside a prefix of {(chunk + 1) * SHAPE.chunk_tokens}")
    after = _most(stream.tokens[prefix])
    if not subject.is_planned and after > _whole(tokens, protocol):
        raise Broken(f"{after} tokens are held after the prefix; allowed: {tokens}")
    calls = (prefix + 1) * 2 * SHAPE.layers  # the first chunk after the prefix still sees all of it
    sees_all = type(subject.kind).view is Policy.view
    if sees_all and not same(subject.full(protocol).outputs[:calls], stream.outputs[:calls]):
        raise Broken("attention inside the prefix differs from the full cache's")


def pays_for_its_state(subject: Subject) -> None:
    """With charge_state keys, values and state take no more bytes than the budget would without state."""
    _ = subject.tokens
    if subject.is_planned:
        raise NotApplicable("it gives heads or layers sizes of their own")
    free = subject.run(subject.protocol()).context
    paid = subject.run(subject.protocol(charge_state=True)).context
    slots = sum(sum(cache.held) for cache in paid.caches)
    state = 4 * len(paid.policy.states) * slots + paid.policy.held_nbytes(SHAPE, 1)
    used, allowed = int(str(paid.summary()["kv_bytes"])) + state, int(str(free.summary()["kv_bytes"]))
    if used > allowed:
        raise Broken(
            f"keys, values and state take {used} bytes; allowed: {allowed}, the budget without state"
        )


def _whole(tokens: int, protocol: Protocol) -> int:
    unit = SHAPE.frame_tokens if protocol.unit == "frame" else 1
    return tokens // unit * unit


def _most(layers: list[Tensor]) -> int:
    return max(int((held < NOTHING).sum(-1).max()) for held in layers)
