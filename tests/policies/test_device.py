"""What holds on an accelerator: nothing waits for it inside the chunk loop, and it keeps the same slots."""

from __future__ import annotations

import warnings

import pytest
import torch
from stream import BUDGET, CHUNKS, SHAPE, make, run, tensors

import policies
from policies.base import Protocol
from policies.context import Context
from policies.positions import MODES


def rollout(name: str, protocol: Protocol, device: str) -> Context:
    """Run the chunk loop of ``stream.run`` with one pass, without a word from the device."""
    capacity = CHUNKS * SHAPE.chunk_tokens
    context = Context(make(name), SHAPE, BUDGET, protocol, capacity_tokens=capacity, seed=7, device=device)
    parts = [tensors(SHAPE, batch=1, number=n) for n in range(1, CHUNKS * SHAPE.layers + 1)]
    inputs = iter([[x.to(device) for x in part] for part in parts])
    noise = torch.zeros(1, SHAPE.chunk_frames, device=device)
    if device == "cuda":
        torch.cuda.synchronize()
        with warnings.catch_warnings():  # that the mode is a prototype
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode("error")
    try:
        for chunk in range(CHUNKS):
            context.start_chunk(chunk, chunk * SHAPE.chunk_frames)
            context.start_pass(noise, commit=True)
            for layer in range(SHAPE.layers):
                context.attend(layer, *next(inputs))
            context.finish_chunk()
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    return context


@pytest.mark.parametrize(
    "changes", [{"position": mode} for mode in MODES] + [{"unit": "frame", "share": "layer"}]
)
@pytest.mark.parametrize("name", policies.names())
def test_no_value_is_asked_for_in_the_chunk_loop(name: str, changes: dict[str, str]) -> None:
    context = rollout(name, Protocol(**changes), "meta")  # tensors without values: asking for one fails
    cache = context.caches[0]
    assert sum(cache.held) / cache.heads == (
        CHUNKS * SHAPE.chunk_tokens if policies.load(name).is_full else BUDGET.tokens
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("position", MODES)
@pytest.mark.parametrize("name", policies.names())
def test_cuda_keeps_the_slots_of_the_cpu_and_never_waits(name: str, position: str) -> None:
    protocol = Protocol(position=position)
    theirs = rollout(name, protocol, "cuda")
    mine = run(make(name), BUDGET, protocol, passes=1)
    for a, b in zip(mine.context.caches, theirs.caches, strict=True):
        assert torch.equal(a.tokens, b.tokens.cpu())
        torch.testing.assert_close(a.values, b.values.cpu(), atol=1e-3, rtol=1e-3)
    assert theirs.summary()["kept"] == mine.context.summary()["kept"]
