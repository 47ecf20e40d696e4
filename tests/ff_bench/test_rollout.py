"""The laws of a rollout, for every policy from one list, on a tiny network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import policies
from ff_bench import noise
from ff_bench.models.base import Attend
from ff_bench.models.facts import facts
from ff_bench.models.mini.backbone import Mini, load
from ff_bench.models.schedule import Span
from tests.ff_bench.tiny import CHUNK, PROMPTS, STEPS, latents, roll, tiny_model, tiny_network

FRAMES = 18
VIDEO = FRAMES * 64
BINDING = 512
"""Eight latent frames: compression happens four times in a video of six chunks."""
ALL = [name for name in policies.names() if name != "recompute"]  # which keeps nothing: tests of its own
EXACT = [name for name in ALL if name != "full_eps"]
BOUNDED = [name for name in ALL if not policies.load(name).is_full]


class Recording(Mini):
    """The tiny model, with every forward written down."""

    def __init__(self) -> None:
        super().__init__(tiny_network(), "recording")
        self.seen: list[tuple[int, float, Tensor]] = []

    def denoise(
        self,
        latent: Tensor,
        noise: Tensor,
        conditioning: object,
        attend: Attend,
        *,
        first_frame: int,
        cache_only: bool = False,
    ) -> Tensor:
        self.seen.append((first_frame, float(noise[0, 0]), latent.clone()))
        return super().denoise(
            latent, noise, conditioning, attend, first_frame=first_frame, cache_only=cache_only
        )

    def draws(self) -> list[Tensor]:
        """Return what each chunk was denoised from."""
        return [latent for _, level, latent in self.seen if level == 1]


class Renoising(Mini):
    """A model that goes on from fresh noise after each step."""

    renoises = True

    def __init__(self) -> None:
        super().__init__(tiny_network(), "renoising")
        self.fresh: list[Tensor] = []

    def advance(self, latent: Tensor, predicted: Tensor, step: Span, noise: Tensor | None) -> Tensor:
        assert noise is not None
        self.fresh.append(noise)
        level = step.next_level or 0.0
        return torch.lerp(predicted, noise, level)


@pytest.fixture(scope="module")
def model() -> Mini:
    return tiny_model()


@pytest.fixture(scope="module")
def full(model: Mini) -> Tensor:
    return latents(roll(model, "full", tokens=None))


def test_the_full_video_is_a_video(full: Tensor) -> None:
    assert full.shape == (1, FRAMES, 768, 8, 8)
    assert full.abs().max() <= 1
    assert full.std() > 0.1


@pytest.mark.parametrize("prefix_frames", [0, 6])
@pytest.mark.parametrize("position", ["absolute", "contiguous"])
@pytest.mark.parametrize("name", EXACT)
def test_a_budget_of_the_video_is_the_full_cache(
    model: Mini, full: Tensor, name: str, position: str, prefix_frames: int
) -> None:
    prefix = full[:, :prefix_frames] if prefix_frames else None
    for tokens in (VIDEO, 2 * VIDEO):
        made = latents(roll(model, name, tokens=tokens, prefix=prefix, position=position))
        assert torch.equal(made, full)
        if position == "contiguous":
            break


@pytest.mark.parametrize("name", BOUNDED)
def test_a_binding_budget_binds(model: Mini, full: Tensor, name: str) -> None:
    chunks = roll(model, name, tokens=BINDING)
    assert max(chunk.summary["context_tokens"] for chunk in chunks) == BINDING  # mean over heads
    most = max(chunk.summary["context_tokens_max"] for chunk in chunks)
    assert BINDING <= most <= policies.load(name).widest_head * BINDING
    made = latents(chunks)
    assert torch.equal(made[:, :9], full[:, :9])  # nothing was dropped before the fourth chunk
    assert not torch.equal(made, full)


def test_one_ulp_is_a_small_difference(model: Mini, full: Tensor) -> None:
    moved = latents(roll(model, "full_eps", tokens=None))
    assert torch.equal(moved[:, :3], full[:, :3])
    assert 0 < float((moved - full).abs().max()) < 1e-3


@pytest.mark.parametrize("name", ALL)
def test_two_equal_rollouts_are_equal(model: Mini, name: str) -> None:
    first, second = (latents(roll(model, name, tokens=BINDING, frames=15)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", ["full", "random", "future_forcing", "streaming_llm"])
def test_a_longer_video_begins_as_the_shorter_one(model: Mini, name: str) -> None:
    tokens, sink = (None, 0) if name == "full" else (BINDING, CHUNK if name == "streaming_llm" else 0)
    position = "contiguous" if name == "streaming_llm" else "absolute"
    short, long = (
        latents(roll(model, name, tokens=tokens, frames=frames, sink=sink, position=position))
        for frames in (15, 21)
    )
    assert torch.equal(long[:, :15], short)


@pytest.mark.parametrize("name", ALL)
def test_noise_does_not_depend_on_the_policy(name: str) -> None:
    model = Recording()
    roll(model, name, tokens=BINDING, frames=12)
    for chunk, drawn in enumerate(model.draws()):
        expected = noise.draw(PROMPTS[0], 0, chunk=chunk, step=0, shape=(3, 768, 8, 8))
        assert torch.equal(drawn[0], expected)


def test_noise_does_not_depend_on_batch_or_order() -> None:
    straight, turned, alone = Recording(), Recording(), Recording()
    roll(straight, "full", tokens=None, frames=6, prompts=PROMPTS, seeds=(0, 5))
    roll(turned, "full", tokens=None, frames=6, prompts=PROMPTS[::-1], seeds=(5, 0))
    roll(alone, "full", tokens=None, frames=6, prompts=PROMPTS[1:], seeds=(5,))
    for one, other, single in zip(straight.draws(), turned.draws(), alone.draws(), strict=True):
        assert torch.equal(one, other.flip(0))
        assert torch.equal(one[1:], single)
        assert not torch.equal(one[0], one[1])


def test_fresh_noise_is_named_by_its_step() -> None:
    model = Renoising()
    roll(model, "full", tokens=None, frames=6)
    names = [(chunk, step) for chunk in range(2) for step in range(1, STEPS + 1)]
    for (chunk, step), fresh in zip(names, model.fresh, strict=True):
        expected = noise.draw(PROMPTS[0], 0, chunk=chunk, step=step, shape=(3, 768, 8, 8))
        assert torch.equal(fresh[0], expected)


@pytest.mark.parametrize("name", ["sliding_window", "h2o", "future_forcing"])
def test_a_video_is_close_alone_and_in_a_batch(model: Mini, name: str) -> None:
    both = latents(roll(model, name, tokens=BINDING, prompts=PROMPTS, seeds=(0, 1)))
    for index, prompt in enumerate(PROMPTS):
        alone = latents(roll(model, name, tokens=BINDING, prompts=[prompt], seeds=[index]))
        torch.testing.assert_close(both[index : index + 1, :9], alone[:, :9], atol=1e-4, rtol=1e-4)


def test_a_chunk_of_a_prefix_runs_the_clean_pass_alone(full: Tensor) -> None:
    model = Recording()
    chunks = roll(model, "h2o", tokens=BINDING, frames=12, prefix=full[:, :6])
    assert [chunk.is_prefix for chunk in chunks] == [True, True, False, False]
    levels = [(frame, round(level, 6)) for frame, level, _ in model.seen]
    passes = [step.spans[0].level for step in model.turns(3, steps=STEPS)[0].passes]
    assert levels == [(0, 0.0), (3, 0.0), *((frame, level) for frame in (6, 9) for level in passes)]
    assert torch.equal(latents(chunks[:2]), full[:, :6])


@pytest.mark.parametrize("prefix_frames", [3, 9, 18])
def test_full_goes_on_from_its_own_prefix_as_without_one(
    model: Mini, full: Tensor, prefix_frames: int
) -> None:
    made = roll(model, "full", tokens=None, prefix=full[:, :prefix_frames].clone())
    assert torch.equal(latents(made), full)


def test_the_cache_is_cut_to_its_budget_when_the_prefix_ends(model: Mini, full: Tensor) -> None:
    chunks = roll(model, "h2o", tokens=BINDING, prefix=full[:, :12])
    sizes = [chunk.summary["context_tokens_max"] for chunk in chunks]
    assert sizes == [192, 384, 576, BINDING, BINDING, BINDING]


def test_a_chunk_tells_its_place_and_its_time(model: Mini) -> None:
    chunks = roll(model, "h2o", tokens=BINDING)
    assert [chunk.number for chunk in chunks] == list(range(6))
    assert [chunk.first_frame for chunk in chunks] == list(range(0, FRAMES, 3))
    for chunk in chunks:
        assert 0 < chunk.policy_seconds < chunk.seconds
        assert list(chunk.summary["kept"][0])[-1] == chunk.number
        assert set(chunk.summary["kept"][0]) <= set(range(chunk.number + 1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", BOUNDED)
def test_latents_that_are_no_numbers_stop_the_rollout(name: str, value: float) -> None:
    """The policy sees them before the rollout is told; it must survive that, on a GPU most of all."""

    class Broken(Recording):
        def advance(self, latent: Tensor, predicted: Tensor, step: Span, noise: Tensor | None) -> Tensor:
            out = super().advance(latent, predicted, step, noise)
            if self.seen[-1][0] == 9 and step.next_level == 0:
                out[1, 0, 5, 2, 3] = value
            return out

    told = rf"^latents are not finite in chunk 3 under policy '{name}': 'cut .*' seed 4$"
    with pytest.raises(FloatingPointError, match=told):
        roll(Broken(), name, tokens=CHUNK * 2, prompts=PROMPTS, seeds=(3, 4))


def test_a_prefix_of_no_numbers_stops_the_rollout(model: Mini, full: Tensor) -> None:
    prefix = full[:, :6].clone()
    prefix[0, 4] = float("nan")
    with pytest.raises(FloatingPointError, match="chunk 1"):
        roll(model, "full", tokens=None, prefix=prefix)


@pytest.mark.slow
def test_the_shipped_weights_keep_the_first_law() -> None:
    shipped = load(facts("mini").weights, device="cpu")
    full = latents(roll(shipped, "full", tokens=None, frames=9))
    assert torch.equal(latents(roll(shipped, "future_forcing", tokens=9 * 64, frames=9)), full)
