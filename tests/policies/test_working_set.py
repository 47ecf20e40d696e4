"""Working set against a float64 reference from its formula, and the two things that it promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stream import SHAPE, make, run, tensors
from torch import Tensor

from policies.base import Budget, Protocol
from policies.cache import LayerCache
from policies.working_set import TWIN, USE

TIGHT = Budget(44, sink=4, recent=16)
CHUNKS = 5


def reference(layer: int, head: int, *, half_life: float, sharpness: float) -> list[dict[int, list[float]]]:
    """Return use and twin of each held token after each chunk, one token pair at a time in float64."""
    held: dict[int, tuple[np.ndarray, list[float]]] = {}
    frame, after = SHAPE.frame_tokens, []
    for chunk in range(CHUNKS):
        number = 1 + chunk * SHAPE.layers + layer
        keys = tensors(SHAPE, batch=1, number=number)[1][0, head].double().numpy()
        units = keys / np.linalg.norm(keys, axis=1, keepdims=True)
        twins = []
        for place, unit in enumerate(units):
            older = [key for key, _ in held.values()] + list(units[: place // frame * frame])
            twins.append(max((float(unit @ other) for other in older), default=0.0))
        for key, state in held.values():
            seen = max(float(unit @ key) for unit in units)
            state[0] = max(state[0] * 0.5 ** (SHAPE.chunk_frames / half_life), max(seen, 0.0) ** sharpness)
        first = chunk * SHAPE.chunk_tokens
        held |= {
            first + n: (unit, [1.0, twin]) for n, (unit, twin) in enumerate(zip(units, twins, strict=True))
        }
        tokens = sorted(held)
        protected = {*tokens[: TIGHT.sink], *tokens[-TIGHT.recent :]}
        others = [token for token in tokens if token not in protected]
        others.sort(key=lambda token: (-held[token][1][0] * max(1 - held[token][1][1], 1e-6), -token))
        if len(tokens) > TIGHT.tokens:
            kept = protected | set(others[: TIGHT.tokens - len(protected)])
            held = {token: held[token] for token in sorted(kept)}
        after.append({token: list(state) for token, (_, state) in held.items()})
    return after


@pytest.mark.parametrize("fields", [{}, {"half_life": 4.0}, {"sharpness": 2.0, "half_life": 10.0}])
def test_use_twin_and_sets_follow_the_formula(fields: dict[str, float]) -> None:
    states: list[list[dict[str, Tensor]]] = []

    def note(cache: LayerCache) -> None:
        states.append([{name: cache.slot_state(name).clone() for name in (USE, TWIN)}])

    policy = make("working_set", **fields)
    stream = run(policy, TIGHT, Protocol(position="absolute"), chunks=CHUNKS, passes=1, before_finish=note)
    given = {"half_life": policy.half_life, "sharpness": policy.sharpness}
    for layer, cache in enumerate(stream.context.caches):
        for head in range(SHAPE.heads):
            expected = reference(layer, head, **given)
            for chunk, held in enumerate(expected):
                assert stream.tokens[chunk][layer][0, head].tolist() == sorted(held)
            for name, place in ((USE, 0), (TWIN, 1)):
                mine = cache.slot_state(name)[0, head].double().numpy()
                theirs = [expected[-1][token][place] for token in sorted(expected[-1])]
                np.testing.assert_allclose(mine, theirs, atol=2e-6)


def repeated(period: int) -> dict[int, Tensor]:
    """Return one unit key per token and chunk that comes back every ``period`` chunks."""
    generator = torch.Generator().manual_seed(3)
    places = torch.randn(period, 1, SHAPE.heads, SHAPE.chunk_tokens, SHAPE.head_dim, generator=generator)
    return dict(enumerate(places))


def test_what_is_seen_again_keeps_its_first_copy() -> None:
    """Keys that come back every third chunk: the first three chunks outlive all of their copies."""
    policy, places, calls = make("working_set"), repeated(3), iter(range(10_000))

    def edit(x: Tensor) -> Tensor:
        number = next(calls)  # B, H, ... of queries, keys, values in turn; the first is the batch's size
        chunk = (number - 1) // (3 * SHAPE.layers)
        return places[chunk % 3] if number and (number - 1) % 3 == 1 else x

    tokens = 4 * SHAPE.chunk_tokens
    stream = run(
        policy, Budget(tokens, recent=SHAPE.chunk_tokens), Protocol(position="absolute"),
        chunks=9, passes=1, edit=edit,
    )  # fmt: skip
    firsts = set(range(3 * SHAPE.chunk_tokens))
    for layer in stream.tokens[-1]:
        assert firsts <= set(layer[0, 0].tolist())


def test_what_no_longer_comes_back_makes_room() -> None:
    """Nothing of the old scene is seen again: with a short half-life the new one takes its place."""
    stream = run(
        make("working_set", half_life=1.0, sharpness=64.0),
        Budget(3 * SHAPE.chunk_tokens, recent=SHAPE.chunk_tokens),
        Protocol(position="absolute"), chunks=8, passes=1,
    )  # fmt: skip
    for layer in stream.tokens[-1]:
        assert int(layer[0, 0].min()) >= 4 * SHAPE.chunk_tokens


@pytest.mark.parametrize(("field", "value"), [("half_life", 0.0), ("sharpness", -1.0)])
def test_fields_outside_their_ranges_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"policy.{field} is {value}"):
        make("working_set", **{field: value})
