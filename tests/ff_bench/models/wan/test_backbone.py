"""A member as a backbone: its passes, its latents, what it loads and when."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import policies
from ff_bench.errors import UsageError
from ff_bench.models.schedule import Span
from ff_bench.models.wan import backbone
from ff_bench.models.wan.backbone import Offloaded, Wan
from ff_bench.models.wan.checkpoint import write_checkpoint
from ff_bench.models.wan.files import digest
from ff_bench.models.wan.lora import LowRank
from ff_bench.models.wan.lora import write as write_lora
from ff_bench.models.wan.member import Checkpoint
from ff_bench.rollout import Chunk, Take, rollout
from policies.base import Budget, Protocol
from policies.context import Context
from tests.ff_bench.models.wan.tiny import dense, embed, tiny_member, tiny_model, tiny_network, tiny_source

TOKENS = 12


def roll(
    model: Wan, prompts: Sequence[str] = ("one",), *, frames: int = 9, tokens: int | None = None
) -> Tensor:
    """Generate with the full cache, or under a sliding window; return latents (B, F, C, h, w)."""
    steps, turns = len(model.member.steps), model.turns(frames, steps=len(model.member.steps))
    context = Context(
        policies.load("full" if tokens is None else "sliding_window")(), model.shape, Budget(tokens),
        Protocol(position="absolute"), batch=len(prompts), capacity_tokens=frames * TOKENS,
        pass_tokens=max(turn.widest for turn in turns) * TOKENS, dtype=model.dtype,
    )  # fmt: skip
    chunks: list[Chunk] = list(
        rollout(model, context, Take(prompts, range(len(prompts)), frames, steps, decode=False))
    )
    return torch.cat([chunk.latents for chunk in chunks], 1)


# -- passes -----------------------------------------------------------------------------------------------


def test_passes_are_the_warped_steps_and_a_clean_one() -> None:
    first, second = tiny_model().turns(6, steps=4)
    for turn in (first, second):
        *noisy, clean = turn.passes
        levels = [step.spans[0].level for step in noisy]
        assert levels == pytest.approx([1.0, 0.9375, 0.8333333, 0.625])
        assert [step.spans[0].next_level for step in noisy] == [*levels[1:], None]
        assert not any(step.commit for step in noisy)
        assert (clean.commit, clean.spans[0].level) == (True, 0.0)
    assert (second.first, second.frames) == (3, 3)


def test_steps_may_be_taken_as_they_are() -> None:
    model = tiny_model(steps=(1000.0, 757.0, 522.0), warp=False, shift=8.0, clean_step=10.0)
    (turn,) = model.turns(3, steps=3)
    assert [step.spans[0].level for step in turn.passes] == [1.0, 0.757, 0.522, 0.01]


def test_a_last_step_at_zero_is_a_pass() -> None:
    turn, *_ = tiny_model(steps=(1000.0, 750.0, 500.0, 250.0, 0.0)).turns(3, steps=5)
    assert [step.spans[0].level for step in turn.passes][-2:] == [0.0, 0.0]
    assert [step.commit for step in turn.passes] == [False] * 5 + [True]


def test_the_first_chunk_may_have_its_own_size_and_steps() -> None:
    model = tiny_model(first_chunk_frames=1, steps=(1000.0,), first_steps=(1000.0, 500.0))
    turns = model.turns(7, steps=1)
    assert [turn.frames for turn in turns] == [1, 3, 3]
    assert [len(turn.passes) for turn in turns] == [3, 2, 2]
    given = model.turns(7, steps=1, prefix_frames=1)
    assert [turn.is_prefix for turn in given] == [True, False, False]
    assert [len(turn.passes) for turn in given] == [1, 3, 2]


def test_chunks_may_roll() -> None:
    model = tiny_model(passes="rolling", steps=(1000.0, 800.0, 600.0, 400.0, 200.0))
    turns = model.turns(36, steps=5)
    assert max(turn.widest for turn in turns) == 15
    window = turns[4].passes[0]
    assert window.levels[::3] == pytest.approx((0.5555556, 0.7692308, 0.8823529, 0.952381, 1.0))
    with pytest.raises(UsageError, match=r"protocol.prefix is not allowed with model=tiny"):
        model.turns(36, steps=5, prefix_frames=3)


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_another_number_of_steps_is_refused(steps: int) -> None:
    told = rf"steps={steps} is not allowed: steps must be 4, the passes of model=tiny"
    with pytest.raises(UsageError, match=told):
        tiny_model().turns(6, steps=steps)


def test_shape_and_facts_say_the_same() -> None:
    model = tiny_model()
    for field in ("layers", "heads", "head_dim", "rows", "columns", "chunk_frames", "window_frames"):
        assert getattr(model.facts, field) == getattr(model.shape, field), field
    assert model.latent_shape == (16, 6, 8)
    assert model.shape.frame_tokens == TOKENS
    assert model.renoises


# -- latents ----------------------------------------------------------------------------------------------


def test_x0_is_the_latent_less_the_flow() -> None:
    model = tiny_model()
    latent, level = torch.randn(1, 3, *model.latent_shape), torch.tensor([[1.0, 0.8333333, 0.0]])
    prompt = model.encode(["one"])
    x0 = model.denoise(latent, level, prompt, dense, first_frame=0)
    flow = model.network(latent, level * 1000, prompt.text_kv, dense)
    expected = latent - torch.tensor([1.0, 0.8333333, 0.0049801])[None, :, None, None, None] * flow
    torch.testing.assert_close(x0, expected, atol=1e-5, rtol=0)


def test_advance_puts_noise_on_a_prediction_and_keeps_the_last() -> None:
    model = tiny_model(dtype=torch.bfloat16)
    latent, x0, noise = (torch.randn(1, 3, *model.latent_shape) for _ in range(3))
    x0 = x0.bfloat16()
    moved = model.advance(latent, x0, Span(0, 0, 3, 1.0, 0.9375, 0), noise)
    assert moved.dtype == torch.bfloat16
    torch.testing.assert_close(moved, (0.0625 * x0.float() + 0.9375 * noise.bfloat16().float()).bfloat16())
    assert model.advance(latent, x0, Span(0, 0, 3, 0.625, None, 3), None) is x0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rollout_stays_in_the_format_of_the_weights(dtype: torch.dtype) -> None:
    latents = roll(tiny_model(dtype=dtype))
    assert latents.shape == (1, 9, 16, 6, 8)
    assert latents.dtype == dtype
    assert torch.equal(latents, roll(tiny_model(dtype=dtype)))


def test_videos_side_by_side_are_those_alone() -> None:
    model = tiny_model()
    both = roll(model, ["one", "two"])
    torch.testing.assert_close(roll(model, ["one"]), both[:1], atol=2e-5, rtol=0)
    assert (both[0] - both[1]).abs().max() > 0.1


def test_the_context_is_seen_and_a_budget_that_holds_it_changes_nothing() -> None:
    model = tiny_model()
    whole = roll(model)
    assert torch.equal(roll(model, tokens=9 * TOKENS), whole)
    short = roll(model, tokens=3 * TOKENS)
    assert torch.equal(short[:, :6], whole[:, :6])
    assert (short[:, 6:] - whole[:, 6:]).abs().max() > 1e-3


def test_rolling_chunks_end_and_are_finite() -> None:
    model = tiny_model(passes="rolling", steps=(1000.0, 800.0, 600.0, 400.0, 200.0))
    latents = roll(model, frames=18)
    assert latents.shape[1] == 18
    assert torch.isfinite(latents).all()


# -- files ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where files are, and what is remembered of them; licences are told anew."""
    monkeypatch.setenv("FF_BENCH_CACHE", str(tmp_path / "cache"))
    backbone._tell.cache_clear()
    return tmp_path


def stored(folder: Path, **changes: Any) -> Checkpoint:
    write_checkpoint(folder / "weights.pt", tiny_network())
    return Checkpoint(**{"source": tiny_source(folder / "weights.pt"), "key": None, "ema": True, **changes})


def test_loading_tells_licence_and_digest(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    member = tiny_member(checkpoint=stored(folder))
    with caplog.at_level(logging.WARNING):
        model = backbone.load(member, device="cpu", dtype=torch.float32)
        backbone.load(member, device="cpu", dtype=torch.float32)
    assert [record.getMessage() for record in caplog.records] == [
        "weights of tiny (nobody/nothing): licence none at all"
    ]
    assert model.checkpoint == digest(folder / "weights.pt")
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, tiny_network().state_dict()[name])


def test_a_low_rank_update_counts_in_weights_and_digest(folder: Path) -> None:
    name = "blocks.0.ffn.0.weight"
    write_lora(folder / "lora.pt", {name: LowRank(torch.ones(2, 96), torch.ones(192, 2), 1.0)})
    checkpoint = stored(folder, lora=tiny_source(folder / "lora.pt", "update"))
    model = backbone.load(tiny_member(checkpoint=checkpoint), device="cpu", dtype=torch.float32)
    moved = model.network.state_dict()[name] - tiny_network().state_dict()[name]
    torch.testing.assert_close(moved, torch.full_like(moved, 2.0))
    assert model.checkpoint != digest(folder / "weights.pt")
    assert len(model.checkpoint) == 64


@pytest.mark.parametrize("what", ["source", "lora"])
def test_a_missing_file_is_named_with_the_command_that_gets_it(folder: Path, what: str) -> None:
    checkpoint = stored(folder, **{what: tiny_source(folder / "gone.pt", "gone")})
    with pytest.raises(FileNotFoundError, match=r"tiny .*gone\.pt.*hf download nobody/gone gone\.pt"):
        backbone.load(tiny_member(checkpoint=checkpoint), device="cpu", dtype=torch.float32)


def test_weights_of_another_size_are_refused(folder: Path) -> None:
    member = tiny_member(checkpoint=stored(folder), layers=3)
    with pytest.raises(UsageError, match=r"holds 2 layers x 3 heads .*; model=tiny is declared with 3 x 3"):
        backbone.load(member, device="cpu", dtype=torch.float32)


class CountingVae:
    """Notes where it is when it is asked."""

    def __init__(self) -> None:
        self.device, self.asked = "cpu", []

    def to(self, device: torch.device | str) -> CountingVae:
        self.device = str(device)
        return self

    def decoder(self) -> Any:
        def decode(latents: Tensor) -> Tensor:
            self.asked.append(self.device)
            return latents

        return decode

    def encode(self, frames: Tensor) -> Tensor:
        self.asked.append(self.device)
        return torch.zeros(1 + (len(frames) - 1) // 4, 16, frames.shape[1] // 8, frames.shape[2] // 8)


def with_vae(vae: Any, *, offload: bool) -> Wan:
    return Wan(tiny_member(offload=offload), tiny_network(), "tiny", embed=embed, vae=vae)


def test_a_vae_that_is_offloaded_comes_for_its_work_alone() -> None:
    vae = CountingVae()
    model = with_vae(vae, offload=True)
    decode = model.decoder()
    assert isinstance(decode, Offloaded)
    decode.device = torch.device("meta")
    assert decode(torch.zeros(1)).shape == (1,)
    assert (vae.asked, vae.device) == (["meta"], "cpu")
    model.encode_frames(torch.zeros(5, 48, 64, 3, dtype=torch.uint8))
    assert (vae.asked, vae.device) == (["meta", "cpu"], "cpu")
    assert not isinstance(with_vae(vae, offload=False).decoder(), Offloaded)


def test_a_vae_comes_back_when_decoding_fails() -> None:
    vae = CountingVae()

    def fail(latents: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        Offloaded(vae, fail, torch.device("meta"))(torch.zeros(1))  # type: ignore[arg-type]
    assert vae.device == "cpu"


def test_pictures_of_another_size_are_refused() -> None:
    model = with_vae(CountingVae(), offload=False)
    assert model.encode_frames(torch.zeros(9, 48, 64, 3, dtype=torch.uint8)).shape == (3, 16, 6, 8)
    with pytest.raises(ValueError, match="pictures are 64 x 40; model=tiny takes 64 x 48"):
        model.encode_frames(torch.zeros(1, 40, 64, 3, dtype=torch.uint8))


@pytest.mark.parametrize("decoder", ["vae", "taehv"])
def test_a_decoder_is_looked_for_when_it_is_used(folder: Path, decoder: str) -> None:
    source = tiny_source(folder / "gone.pth", "gone")
    model = tiny_model(decoder=decoder, vae=source, preview=source)
    what = "VAE" if decoder == "vae" else "preview decoder"
    with pytest.raises(FileNotFoundError, match=f"{what} weights of tiny"):
        model.decoder()
