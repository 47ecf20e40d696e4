"""Policies that only score against kvpress, where it is installed, on identical tensors."""

from __future__ import annotations

import pytest
import torch
from stream import GROUPED, SHAPE, make, record, run, tensors
from torch import Tensor, nn

from policies.base import Budget, Pass, Protocol, Shape
from policies.cache import LayerCache

kvpress = pytest.importorskip("kvpress")


def stub(shape: Shape, rotary: object = None) -> nn.Module:
    """Return a module with what a press looks up; its queries are the hidden states."""
    module = nn.Module()
    names = {"num_attention_heads": shape.query_heads, "num_key_value_heads": shape.heads}
    module.config = type("Config", (), names)()
    module.head_dim, module.layer_idx = shape.head_dim, 0
    module.q_proj = nn.Identity()
    module.rotary_emb = rotary
    return module


def committed(name: str, shape: Shape, **fields: object) -> tuple[Tensor, tuple[Tensor, ...], Pass]:
    """Return a score over 48 slots, rotated keys and values that it was taken from, and the pass."""
    policy = make(name, **fields)
    mine = record(policy)
    kept: list[tuple[Tensor, ...]] = []

    def note(cache: LayerCache) -> None:
        kept.append((cache.rotated.clone(), cache.values.clone()))

    run(
        policy, Budget(30), Protocol(position="absolute"), shape=shape, chunks=2, passes=1, before_finish=note
    )
    first = shape.layers  # layers of the first chunk come first, and score nothing
    assert mine[0][0].shape[-1] == 48
    return mine[0][0], kept[first], mine[0][2]


def weights_of(step: Pass, keys: Tensor) -> Tensor:
    """Return the attention of the chunk's queries, (1, Hq, N, S)."""
    group = step.rotated_queries.shape[1] // keys.shape[1]
    return (step.rotated_queries @ keys.repeat_interleave(group, 1).mT / 4).softmax(-1)


@pytest.mark.parametrize("shape", [SHAPE, GROUPED], ids=["mha", "gqa"])
@pytest.mark.parametrize("fields", [{}, {"covariance": False}, {"value_norm": False}, {"epsilon": 0.01}])
def test_expected_attention_equals_kvpress(shape: Shape, fields: dict[str, object]) -> None:
    score, (keys, values), step = committed(
        "expected_attention", shape, average="inside", phases=8, horizon=5, **fields
    )
    token = torch.arange(8).repeat(5)
    time = 6 + torch.arange(5).repeat_interleave(8)
    angles = SHAPE.rope.angles(time, token // SHAPE.columns, token % SHAPE.columns).repeat(1, 2)[None]
    module = stub(shape, lambda x, position: (angles.cos(), angles.sin()))
    press = kvpress.ExpectedAttentionPress(
        n_future_positions=40, n_sink=0, use_covariance=fields.get("covariance", True),
        use_vnorm=fields.get("value_norm", True), epsilon=fields.get("epsilon", 0.0),
    )  # fmt: skip
    earlier = tensors(shape, batch=1, number=1)[0]
    hidden = torch.cat([earlier, step.queries], 2).transpose(1, 2).flatten(2)  # (1, 48, Hq * D)
    torch.testing.assert_close(score, press.score(module, hidden, keys, values, None, {}))


@pytest.mark.parametrize("shape", [SHAPE, GROUPED], ids=["mha", "gqa"])
def test_snapkv_equals_kvpress(shape: Shape) -> None:
    score, (keys, values), step = committed("snapkv", shape)
    hidden = torch.zeros(1, 48, 1)
    press = kvpress.SnapKVPress(window_size=24, kernel_size=5)
    theirs = press.score(stub(shape), hidden, keys, values, weights_of(step, keys), {})
    inner = slice(0, 24 - 2)  # pooling of kvpress stops at the window's border
    torch.testing.assert_close(score[..., inner], theirs[..., inner])


@pytest.mark.parametrize("shape", [SHAPE, GROUPED], ids=["mha", "gqa"])
def test_tova_equals_kvpress_for_the_mean_query(shape: Shape) -> None:
    score, (keys, values), step = committed("tova", shape)
    mean = weights_of(step, keys).mean(2, keepdim=True)
    theirs = kvpress.TOVAPress().score(stub(shape), None, keys, values, mean, {})
    torch.testing.assert_close(score[..., :-1], theirs[..., :-1])


@pytest.mark.parametrize(("name", "press"), [("keydiff", "KeyDiffPress"), ("knorm", "KnormPress")])
def test_scores_of_keys_equal_kvpress(name: str, press: str) -> None:
    score, (keys, values), _ = committed(name, SHAPE)
    theirs = getattr(kvpress, press)().score(stub(SHAPE), None, keys, values, None, {})
    torch.testing.assert_close(score, theirs)
