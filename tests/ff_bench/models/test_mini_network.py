"""The network: patches fold and unfold, and a cache repeats the graph that it was trained in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ff_bench.models.base import Attend
from ff_bench.models.mini.backbone import Mini
from ff_bench.models.mini.doubled import Inputs, dense_attention_of, predict, token_angles, visible
from ff_bench.models.mini.motion import FEATURES, Motion, token_features
from ff_bench.models.mini.network import (
    TOKEN_DIM,
    MiniNetwork,
    gated,
    modulate,
    patchify,
    unpatchify,
)
from ff_bench.models.mini.prompt import MiniPrompt
from ff_bench.models.mini.prompt_indices import PromptIndices
from policies.base import Budget, Protocol
from policies.context import Context
from policies.full import Full
from tests.ff_bench.tiny import CHUNK, PROMPTS, SIZE, tiny_model, tiny_network

CHUNKS = 3
FIRST_FRAME = 9
TOKENS = CHUNKS * CHUNK


def test_patches_fold_and_unfold() -> None:
    video = torch.randn(2, 8, 3, 64, 64)
    tokens = patchify(video)
    assert tokens.shape == (2, 2 * 64, TOKEN_DIM)
    assert torch.equal(unpatchify(tokens), video)


def test_tokens_are_ordered_by_latent_frame_row_column() -> None:
    video = torch.zeros(1, 8, 3, 64, 64)
    video[0, 4:8, :, 16:24, 40:48] = 1  # latent frame 1, row 2, column 5
    tokens = patchify(video)[0]
    assert tokens.sum(1).nonzero().flatten().tolist() == [64 + 2 * 8 + 5]


def test_groups_of_tokens_are_modulated_apart() -> None:
    x, shift, scale = torch.randn(2, 6, 4), torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    whole = modulate(x, shift, scale)
    for group in range(3):
        part = x[:, 2 * group : 2 * group + 2]
        alone = modulate(part, shift[:, group : group + 1], scale[:, group : group + 1])
        torch.testing.assert_close(whole[:, 2 * group : 2 * group + 2], alone)
    gates = torch.tensor([[[0.0] * 4, [1.0] * 4, [0.0] * 4]]).expand(2, -1, -1)
    moved = gated(x, torch.ones_like(x), gates) - x
    assert moved[:, :2].abs().max() == 0
    torch.testing.assert_close(moved[:, 2:4], torch.ones(2, 2, 4))


def test_a_fresh_network_predicts_grey() -> None:
    network = MiniNetwork(SIZE)
    tokens, features = torch.randn(1, CHUNK, TOKEN_DIM), torch.randn(1, CHUNK, FEATURES)
    prompt = network.prompt_tokens(PromptIndices.of([MiniPrompt("orbit")], "cpu"))
    out = network(tokens, features, torch.ones(1, 1), prompt, lambda layer, q, k, v: v)
    assert out.abs().max() == 0


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    """Two videos of three chunks that start at latent frame 9, everything visible."""
    generator = torch.Generator().manual_seed(4)
    prompts = [MiniPrompt.parse(prompt) for prompt in PROMPTS]
    frames = torch.arange(FIRST_FRAME, FIRST_FRAME + 3 * CHUNKS).expand(2, -1)
    return Inputs(
        clean=torch.randn(2, TOKENS, TOKEN_DIM, generator=generator),
        noisy=torch.randn(2, TOKENS, TOKEN_DIM, generator=generator),
        features=token_features(Motion.of(prompts), frames),
        level=torch.rand(2, CHUNKS, generator=generator),
        indices=PromptIndices.of(prompts, "cpu"),
        angles=token_angles(frames),
        keep=torch.ones(2, TOKENS, dtype=torch.bool),
        recent=torch.full((2,), 99),
    )


def _doubled(inputs: Inputs) -> tuple[Tensor, dict[int, tuple[Tensor, Tensor]]]:
    """Run the training graph: x0 of the noisy half, and keys and values of the clean half by layer."""
    seen: dict[int, tuple[Tensor, Tensor]] = {}

    def attention(angles: Tensor, keep: Tensor, recent: Tensor) -> Attend:
        inner = dense_attention_of(TOKENS)(angles, keep, recent)

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            seen[layer] = (keys[:, :, :TOKENS], values[:, :, :TOKENS])
            return inner(layer, queries, keys, values)

        return attend

    network = tiny_network()
    prompt = network.prompt_tokens(inputs.indices)
    with torch.no_grad():
        told = (inputs.features, inputs.clean, inputs.noisy, inputs.level)
        out = predict(network, attention, *told, inputs.angles, inputs.keep, inputs.recent, prompt)
    return out, seen


def _opened(inputs: Inputs) -> tuple[Mini, Tensor, Context]:
    """Return the tiny model, its embedded prompts and an empty full cache with room for every chunk."""
    model = tiny_model()
    protocol = Protocol(position="absolute")
    context = Context(Full(), model.shape, Budget(None), protocol, batch=2, capacity_tokens=TOKENS)
    return model, model.network.prompt_tokens(inputs.indices), context


def test_cached_inference_repeats_the_training_graph(inputs: Inputs) -> None:
    trained, expected = _doubled(inputs)
    model, tokens, context = _opened(inputs)
    for chunk in range(CHUNKS):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        context.start_chunk(chunk, FIRST_FRAME + 3 * chunk)
        level = inputs.level[:, chunk : chunk + 1]
        context.start_pass(level.expand(-1, 3), False)
        features = inputs.features[:, part]
        predicted = model.network(inputs.noisy[:, part], features, level, tokens, context.attend)
        torch.testing.assert_close(predicted, trained[:, part], atol=1e-4, rtol=1e-4)
        context.start_pass(torch.zeros(2, 3), True)
        model.network(inputs.clean[:, part], features, torch.zeros(2, 1), tokens, context.attend)
        context.finish_chunk()
    for layer, (keys, values) in expected.items():
        cache = context.caches[layer]
        torch.testing.assert_close(cache.keys, keys, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(cache.values, values, atol=1e-4, rtol=1e-4)


def test_the_context_matters_to_the_training_graph(inputs: Inputs) -> None:
    """Otherwise the test above would hold for a network that sees nothing."""
    whole, _ = _doubled(inputs)
    hidden = Inputs(**{**vars(inputs), "keep": ~inputs.keep, "recent": torch.zeros(2, dtype=torch.long)})
    blind, _ = _doubled(hidden)
    assert torch.allclose(whole[:, :CHUNK], blind[:, :CHUNK], atol=1e-5)
    assert (whole[:, CHUNK:] - blind[:, CHUNK:]).abs().mean() > 1e-2


def test_the_doubled_sequence_is_causal_by_chunk() -> None:
    index = torch.arange(2 * TOKENS)
    mask = visible(index[:, None], index[None], TOKENS)
    blocks = mask.view(2, CHUNKS, CHUNK, 2, CHUNKS, CHUNK).float().mean((2, 5))
    past = torch.ones(CHUNKS, CHUNKS).tril()
    assert torch.equal(blocks[0, :, 0], past)  # clean sees clean, itself included
    assert torch.equal(blocks[0, :, 1], torch.zeros(CHUNKS, CHUNKS))
    assert torch.equal(blocks[1, :, 0], past - torch.eye(CHUNKS))  # noisy sees the clean past
    assert torch.equal(blocks[1, :, 1], torch.eye(CHUNKS))


def test_a_pass_for_the_cache_alone_writes_the_same_keys_and_values(inputs: Inputs) -> None:
    contexts = []
    for cache_only in (False, True):
        model, tokens, context = _opened(inputs)
        for chunk in range(CHUNKS):
            part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
            context.start_chunk(chunk, 3 * chunk)
            context.start_pass(torch.zeros(2, 3), True, cache_only=cache_only)
            told = (inputs.clean[:, part], inputs.features[:, part], torch.zeros(2, 1), tokens)
            model.network(*told, context.attend, cache_only=cache_only)
            context.finish_chunk()
        contexts.append(context)
    for whole, short in zip(contexts[0].caches, contexts[1].caches, strict=True):
        assert torch.equal(whole.keys, short.keys)
        assert torch.equal(whole.values, short.values)
