"""Every kernel against the same thing in plain torch; on CUDA, or anywhere under Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch
from torch import Tensor

from policies import kernels, merging
from policies.attention import attend, mass
from policies.rope import Rope

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton") is not None
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (torch.cuda.is_available() or INTERPRETED), reason="needs a CUDA device, or Triton's interpreter"
    ),
]
HALF = torch.float16 if INTERPRETED and DEVICE == "cpu" else torch.bfloat16
"""The interpreter has no bfloat16 of its own."""


def rows(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def strided(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Return (B, H, N, D) as a view of (B, N, H, D), as a model hands it over."""
    batch, heads, count, dim = shape
    return rows(batch, count, heads, dim, dtype=dtype, seed=seed).transpose(1, 2)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("by_head", [False, True])
@pytest.mark.parametrize("dims", [(8, 4, 4), (44, 42, 42)])
def test_turn(layout: str, by_head: bool, dims: tuple[int, int, int]) -> None:
    rope = Rope(dims, (1000.0, 100.0, 100.0), layout=layout)
    dim = sum(dims)
    x = strided(2, 3, 37, dim, dtype=HALF)
    angles = rows(2, 3, 37, dim // 2) if by_head else rows(37, dim // 2)
    out = torch.zeros(2, 3, 50, dim, dtype=HALF, device=DEVICE)[:, :, 5:42]
    kernels.turn(out, x, angles.cos(), angles.sin(), is_interleaved=layout == "interleaved")
    torch.testing.assert_close(out, rope.turn(x, angles.cos(), angles.sin()), atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_turn_of_the_first_pairs_leaves_the_others(layout: str) -> None:
    rope = Rope((44, 42, 42), (1000.0, 100.0, 100.0), layout=layout)
    x, times = rows(1, 2, 40, 128), torch.arange(40, device=DEVICE)
    angles = rope.time_angles(times)
    out, expected = rows(1, 2, 40, 128, seed=1), rows(1, 2, 40, 128, seed=1)
    kernels.turn(out, x, angles.cos(), angles.sin(), is_interleaved=layout == "interleaved")
    for mine, source in zip(rope.pairs(expected), rope.pairs(rope.turn(x, *full(angles, 64))), strict=True):
        mine[..., :22] = source[..., :22]
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def full(angles: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of all pairs, those behind the given ones unturned."""
    whole = torch.zeros(*angles.shape[:-1], pairs, device=angles.device)
    whole[..., : angles.shape[-1]] = angles
    return whole.cos(), whole.sin()


def test_gather_rows() -> None:
    sources = tuple(rows(2, 3, 70, 48, dtype=HALF, seed=n) for n in range(3))
    targets = tuple(torch.zeros_like(source) for source in sources)
    index = torch.rand(2, 3, 70, device=DEVICE).argsort(-1)[..., :41].sort(-1).values
    kernels.gather_rows(sources, targets, index)
    for source, target in zip(sources, targets, strict=True):
        assert torch.equal(target[:, :, :41], merging.take_rows(source, index))
        assert not target[:, :, 41:].any()


def test_blend_rows() -> None:
    values = rows(2, 2, 60, 24)
    dropped = torch.arange(30, 50, device=DEVICE).expand(2, 2, -1)
    target = torch.randint(0, 6, (2, 2, 20), device=DEVICE)
    target[..., 5:9] = dropped[..., 5:9]  # these are not merged
    own, added = rows(2, 2, 60, seed=3).abs(), rows(2, 2, 20, seed=4).abs()
    added[..., 5:9] = 0
    own = torch.where(torch.zeros_like(own).scatter(-1, target, 1.0) > 0, own, 1.0)
    own.scatter_(-1, dropped, 1.0)
    target, order = target.sort(-1)
    dropped, added = dropped.gather(-1, order), added.gather(-1, order)
    expected = values.cpu().clone()
    merging.blend_values(expected, own.cpu(), dropped.cpu(), target.cpu(), added.cpu())
    kernels.blend_rows(values, own, dropped, target, added)
    torch.testing.assert_close(values.cpu(), expected, atol=1e-5, rtol=1e-5)


def explicit(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Attention and log-sum-exp in fp32, with a bias per slot."""
    group = queries.shape[1] // keys.shape[1]
    context = (x.repeat_interleave(group, 1) for x in (keys, values))
    wide = [x.float() for x in (queries, *context)]
    logits = wide[0] @ wide[1].mT * queries.shape[-1] ** -0.5 + bias.repeat_interleave(group, 1)[:, :, None]
    return logits.softmax(-1) @ wide[2], logits.logsumexp(-1)


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("kind", ["plain", "bias", "lengths", "both"])
def test_attention(kind: str, group: int) -> None:
    heads, slots, tail = 2, 300, 37
    queries = strided(2, heads * group, 90, 64, dtype=HALF)
    keys, values = (rows(2, heads, 400, 64, dtype=HALF, seed=n)[:, :, :slots] for n in (1, 2))
    bias = rows(2, heads, slots, seed=5) if kind in ("bias", "both") else None
    lengths = torch.tensor([[0, 263], [128, 131]], device=DEVICE, dtype=torch.int32)
    slot = torch.arange(slots, device=DEVICE)
    is_used = (slot < lengths[..., None]) | (slot >= slots - tail)
    seen = torch.zeros(2, heads, slots, device=DEVICE) if bias is None else bias
    if kind in ("lengths", "both"):
        seen = seen.masked_fill(~is_used, -torch.inf)
    out, log_sum = kernels.attention(
        queries, keys, values, bias=bias, lengths=lengths if kind in ("lengths", "both") else None, tail=tail
    )
    expected, expected_log_sum = explicit(queries, keys, values, seen)
    torch.testing.assert_close(out.float(), expected, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(log_sum, expected_log_sum, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("has_bias", [False, True])
def test_log_sum_and_column_sums(has_bias: bool) -> None:
    queries, keys = rows(3, 70, 64, dtype=HALF), rows(3, 333, 64, dtype=HALF, seed=1)
    bias = rows(3, 333, seed=2) if has_bias else None
    logits = queries.float() @ keys.float().mT / 8 + (0 if bias is None else bias[:, None])
    log_sum = kernels.log_sum(queries, keys, bias=bias)
    torch.testing.assert_close(log_sum, logits.logsumexp(-1), atol=1e-3, rtol=1e-3)
    sums = kernels.column_sums(queries, keys, log_sum, bias=bias)
    torch.testing.assert_close(sums, logits.softmax(-1).sum(1), atol=1e-3, rtol=1e-2)


def test_slots_that_are_hidden_by_their_bias_count_for_nothing() -> None:
    """Whole blocks at the start, in the middle and at the end: slots that hold nothing or are made anew."""
    queries = strided(1, 2, 70, 64, dtype=HALF)
    keys, values = (rows(1, 2, 600, 64, dtype=HALF, seed=n) for n in (1, 2))
    bias = torch.zeros(1, 2, 600, device=DEVICE)
    bias[:, 0, :300] = bias[:, 1, 200:460] = bias[:, :, 590:] = -torch.inf
    out, log_sum = kernels.attention(queries, keys, values, bias=bias)
    expected, expected_log_sum = explicit(queries, keys, values, bias)
    torch.testing.assert_close(out.float(), expected, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(log_sum, expected_log_sum, atol=1e-3, rtol=1e-3)
    flat = (queries.reshape(2, 70, 64), keys[0], bias[0])
    alone = kernels.log_sum(flat[0], flat[1], bias=flat[2])
    torch.testing.assert_close(alone, expected_log_sum[0], atol=1e-3, rtol=1e-3)
    sums = kernels.column_sums(flat[0], flat[1], alone, bias=flat[2])
    assert not sums[0, :300].any() and not sums[1, 200:460].any()
    torch.testing.assert_close(sums.sum(-1), torch.full((2,), 70.0, device=DEVICE), atol=0.1, rtol=1e-3)


def test_log_sum_in_parts_and_groups() -> None:
    queries, keys = rows(6, 20, 64, dtype=HALF), rows(3, 5000, 64, dtype=HALF, seed=1)
    logits = queries.float() @ keys.float().mT.repeat_interleave(2, 0) / 8
    log_sum = kernels.log_sum(queries, keys)
    torch.testing.assert_close(log_sum, logits.logsumexp(-1), atol=1e-3, rtol=1e-3)
    sums = kernels.column_sums(queries, keys, log_sum)
    torch.testing.assert_close(sums, logits.softmax(-1).sum(1), atol=1e-3, rtol=1e-2)


def test_mass_sums_to_the_number_of_queries() -> None:
    queries, keys = rows(1, 4, 96, 64, dtype=HALF), rows(1, 2, 200, 64, dtype=HALF, seed=1)
    if DEVICE == "cuda":
        total = mass(queries, keys, context=100, stride=3)
        every = torch.full((1, 2), 96.0, device=DEVICE)
        torch.testing.assert_close(total.sum(-1), every, atol=0.1, rtol=1e-3)
    flat = queries.reshape(2, -1, 64)
    log_sum = kernels.log_sum(flat, keys[0])
    sums = kernels.column_sums(flat, keys[0], log_sum)
    torch.testing.assert_close(sums.sum(-1), torch.full((2,), 192.0, device=DEVICE), atol=0.1, rtol=1e-3)


@pytest.mark.parametrize("parts", [1, 6])
def test_nearest(parts: int) -> None:
    source, target = (torch.nn.functional.normalize(rows(2, n, parts, seed=n), dim=-1) for n in (77, 1300))
    best, which = kernels.nearest(source, target)
    similarity = source @ target.mT
    torch.testing.assert_close(best, similarity.amax(-1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(similarity.gather(2, which[..., None])[..., 0], best, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(DEVICE != "cuda", reason="needs a CUDA device: cuDNN's kernel")
@pytest.mark.parametrize("dim", [64, 128])
def test_the_log_sum_that_attention_gives_is_that_of_the_softmax(dim: int) -> None:
    queries, keys, values = (
        rows(2, 3, n, dim, dtype=HALF, seed=seed) for seed, n in enumerate((96, 300, 300))
    )
    out, log_sum = attend(queries, keys, values, with_log_sum=True)
    logits = queries.float() @ keys.float().mT * dim**-0.5
    assert log_sum is not None
    torch.testing.assert_close(log_sum, logits.logsumexp(-1), atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(out.float(), logits.softmax(-1) @ values.float(), atol=2e-2, rtol=2e-2)
    given = mass(queries, keys, context=300, log_sum=log_sum)
    torch.testing.assert_close(given, logits.softmax(-1).sum(2), atol=2e-2, rtol=2e-2)
