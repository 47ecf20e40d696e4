"""The transformer: its sizes, its patches, what it hands to `attend`, and what depends on what."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ff_bench.models.wan import layouts
from ff_bench.models.wan.network import Size, WanNetwork, patchify, sinusoid, unpatchify
from tests.ff_bench.models.wan.tiny import SIZE, dense, embed, tiny_network

FRAMES, TOKENS = 3, 12


def forward(network: WanNetwork, latent: Tensor, times: Tensor, prompts: list[str]) -> Tensor:
    flow: Tensor = network(latent, times, network.text_kv(embed(prompts)), dense)
    return flow


def inputs(batch: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    latent = torch.randn(batch, FRAMES, 16, 6, 8, generator=generator)
    return latent, torch.tensor([[1000.0, 833.3333, 0.0]]).repeat(batch, 1)


@pytest.mark.parametrize(
    ("size", "parameters", "tensors"),
    [
        (Size(1536, 12, 128, 30, 8960), 1_418_996_800, 825),
        (Size(5120, 40, 128, 40, 13824), 14_288_491_584, 1095),
    ],
)
def test_released_sizes_have_the_released_number_of_parameters(
    size: Size, parameters: int, tensors: int
) -> None:
    with torch.device("meta"):
        network = WanNetwork(size)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert len(layouts.split(network.state_dict())) == tensors


def test_heads_must_fill_the_tokens() -> None:
    with pytest.raises(ValueError, match=r"size\.dim is 100; allowed: 3 x 32"):
        Size(100, 3, 32, 2, 192)


def test_patches_are_those_of_a_convolution() -> None:
    latent, _ = inputs(2)
    weight, bias = torch.randn(5, 16, 1, 2, 2), torch.randn(5)
    expected = F.conv3d(latent.transpose(1, 2), weight, bias, stride=(1, 2, 2)).flatten(2).transpose(1, 2)
    found = F.linear(patchify(latent), weight.flatten(1), bias)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_patches_of_the_head_are_channel_last() -> None:
    latent, _ = inputs(2)
    tokens = patchify(latent).unflatten(-1, (16, 4)).transpose(-1, -2).flatten(-2)
    assert torch.equal(unpatchify(tokens, latent.shape), latent)


def test_a_sinusoid_begins_with_cosines_in_float64() -> None:
    found = sinusoid(torch.tensor([[937.5]]), 256)
    assert found.shape == (1, 1, 256)
    assert found.dtype == torch.float64
    assert found[0, 0, 0].item() == pytest.approx(torch.tensor(937.5).double().cos().item(), abs=1e-12)
    assert found[0, 0, 129].item() == pytest.approx(
        (torch.tensor(937.5).double() * 10000 ** (-1 / 128)).sin().item(), abs=1e-12
    )


def test_attend_gets_heads_of_every_layer_without_copies() -> None:
    network, seen = tiny_network(), []

    def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        for heads in (queries, keys, values):
            assert heads.shape == (2, SIZE.heads, FRAMES * TOKENS, SIZE.head_dim)
            assert heads.stride(1) == SIZE.head_dim  # a view of (B, N, H, D)
        seen.append(layer)
        return dense(layer, queries, keys, values)

    latent, times = inputs(2)
    flow = network(latent, times, network.text_kv(embed(["one", "two"])), attend)
    assert flow.shape == latent.shape
    assert seen == [0, 1]


def test_attend_may_return_either_order_of_axes() -> None:
    network, (latent, times) = tiny_network(), inputs()

    def strided(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return dense(layer, queries, keys, values).transpose(1, 2).contiguous().transpose(1, 2)

    def packed(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return dense(layer, queries, keys, values).contiguous()

    text_kv = network.text_kv(embed(["one"]))
    assert torch.equal(network(latent, times, text_kv, strided), network(latent, times, text_kv, packed))


def test_a_pass_for_the_cache_stops_behind_the_last_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    network, (latent, times) = tiny_network(), inputs()
    text_kv = network.text_kv(embed(["one"]))
    whole: list[Tensor] = []
    short: list[Tensor] = []

    def keep(into: list[Tensor], layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        into.extend((queries, keys, values))
        return dense(layer, queries, keys, values)

    network(latent, times, text_kv, lambda *heads: keep(whole, *heads))
    monkeypatch.setattr(type(network.head), "forward", None)  # the head must not run
    monkeypatch.setattr(network._blocks()[-1], "after", None)  # nor what is behind the last attention
    found = network(latent, times, text_kv, lambda *heads: keep(short, *heads), cache_only=True)
    assert found is latent
    assert len(short) == len(whole) == 3 * SIZE.layers
    assert all(map(torch.equal, short, whole))


def test_videos_of_a_batch_do_not_touch_each_other() -> None:
    network, (latent, times) = tiny_network(), inputs(2)
    both = forward(network, latent, times, ["one", "two"])
    for index, prompt in enumerate(["one", "two"]):
        part = slice(index, index + 1)
        alone = forward(network, latent[part], times[part], [prompt])
        torch.testing.assert_close(alone, both[part], atol=1e-5, rtol=1e-5)


def test_each_frame_has_its_own_time_step() -> None:
    """Without attention between frames, a frame at another step changes and the others do not."""
    network, (latent, times) = tiny_network(), inputs()
    text_kv = network.text_kv(embed(["one"]))

    def to_itself(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return values

    before = network(latent, times, text_kv, to_itself)
    times[0, 1] = 500.0
    after = network(latent, times, text_kv, to_itself)
    changed = (after - before).abs().amax((0, 2, 3, 4))
    assert changed[1] > 1e-2
    assert changed[0] == changed[2] == 0


def test_padding_of_the_text_is_attended() -> None:
    network, (latent, times) = tiny_network(), inputs()
    text = embed(["one"])
    whole = network(latent, times, network.text_kv(text), dense)
    cut = network(latent, times, network.text_kv(text[:, :10]), dense)
    assert (whole - cut).abs().max() > 1e-2


def test_text_keys_depend_on_the_text_alone() -> None:
    network, text = tiny_network(), embed(["one"])
    first = network.text_kv(text)
    forward(network, *inputs(), ["another"])
    for (keys, values), (again, others) in zip(first, network.text_kv(text), strict=True):
        assert keys.shape == values.shape == (1, SIZE.heads, text.shape[1], SIZE.head_dim)
        assert torch.equal(keys, again)
        assert torch.equal(values, others)


def test_bfloat16_stays_bfloat16() -> None:
    network, (latent, times) = tiny_network(dtype=torch.bfloat16), inputs()
    flow = forward(network, latent, times, ["one"])
    assert flow.dtype == torch.bfloat16
    wide = forward(tiny_network(), latent, times, ["one"])
    assert 0 < (flow.float() - wide).abs().max() < 0.2
