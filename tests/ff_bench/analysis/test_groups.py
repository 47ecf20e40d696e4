"""Several query heads of one key head: they are recorded with it, and their truth is that of each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ff_bench.analysis.recording import Choice, Piece, Recorder, Recording
from ff_bench.analysis.streams import Setting, Witness
from policies.base import Budget, Protocol, Shape
from policies.context import Context
from policies.rope import Rope

SHAPE = Shape(
    layers=1, query_heads=4, heads=2, head_dim=8, rows=2, columns=2, chunk_frames=1, window_frames=9,
    rope=Rope(dims=(4, 2, 2), bases=(10.0, 10.0, 10.0)),
)  # fmt: skip


def given(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(1, 4, 4, 8, generator=generator)
    keys, values = torch.randn(2, 1, 2, 4, 8, generator=generator)
    return queries, keys, values


def test_the_second_key_head_brings_its_two_query_heads() -> None:
    recorder = Recorder(Choice((0,), (1,)))
    context = Context(recorder, SHAPE, Budget(None), Protocol(position="absolute"), capacity_tokens=8)
    queries, keys, values = given(0)
    context.start_chunk(0, 0)
    context.start_pass(torch.zeros(1, 1), True)
    context.attend(0, queries, keys, values)
    tensors, levels = recorder.take()
    assert levels == ()
    assert torch.equal(tensors["queries"][0], queries[0, 2:])
    assert torch.equal(tensors["keys"][0], keys[0, 1:])
    assert torch.equal(tensors["values"][0], values[0, 1:])


def test_the_truth_of_a_group_is_that_of_its_query_heads() -> None:
    recording = Recording(Path(), (Piece(0, 0, 1), Piece(1, 1, 1)), 0, "", SHAPE)
    witness = Witness(Setting(Choice((0,), (0, 1)), recording, seed=0))
    context = Context(witness, SHAPE, Budget(None), Protocol(position="absolute"), capacity_tokens=8)
    for chunk in range(2):
        context.start_chunk(chunk, chunk)
        context.start_pass(torch.zeros(1, 1), True)
        context.attend(0, *given(chunk))
        context.finish_chunk()
    token = torch.arange(8)
    angles = SHAPE.rope.angles(token // 4, token % 4 // 2, token % 2)
    keys = SHAPE.rope.rotate(torch.cat([given(0)[1], given(1)[1]], 2)[0], angles)
    rows = SHAPE.rope.rotate(given(1)[0][0], angles[4:])
    logits = torch.stack([rows[head] @ keys[head // 2].mT for head in range(4)]) / 8**0.5
    mass, queries, log_sum = witness.noted[-1]
    assert torch.allclose(queries, rows, atol=1e-6)
    assert torch.allclose(log_sum, logits.logsumexp(-1), atol=1e-5)
    of_groups = logits.softmax(-1).sum(1)[:, :4].unflatten(0, (2, 2)).mean(1)
    assert mass.numpy() == pytest.approx(of_groups.numpy(), abs=1e-5)
