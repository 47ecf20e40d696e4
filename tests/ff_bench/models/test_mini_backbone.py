"""The embedded model as a backbone: its schedule, its latents, its files, its facts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ff_bench.errors import UsageError
from ff_bench.files import checkpoint_sha256
from ff_bench.models.facts import facts
from ff_bench.models.mini import backbone, world
from ff_bench.models.mini.prompt import MiniPrompt
from tests.ff_bench.tiny import PROMPTS, SIZE, tiny_model, tiny_network

SHIPPED = facts("mini").weights


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return {name: value.half() for name, value in tiny_network().state_dict().items()}


def write(folder: Path, weights: dict[str, Tensor]) -> tuple[Path, Path]:
    """Write weights as two shards."""
    names, files = sorted(weights), (folder / "a.safetensors", folder / "b.safetensors")
    for file, part in zip(files, (names[::2], names[1::2]), strict=True):
        save_file({name: weights[name].contiguous() for name in part}, file)
    return files


def test_shards_come_back_as_the_network(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    files = write(tmp_path, weights)
    model = backbone.load(files, device="cpu")
    assert model.network.size == SIZE
    assert model.dtype == torch.float32
    assert model.checkpoint == checkpoint_sha256(files)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, weights[name].float()), name
    assert not any(parameter.requires_grad for parameter in model.network.parameters())


def test_a_missing_file_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing: .*a\.safetensors; make them with .*train_mini"):
        backbone.load([tmp_path / "a.safetensors"], device="cpu")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_damaged(tmp_path: Path, weights: dict[str, Tensor], share: float) -> None:
    files = write(tmp_path, weights)
    content = files[1].read_bytes()
    files[1].write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"^weights of the model 'mini' are damaged: .*b\.safetensors"):
        backbone.load(files, device="cpu")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (
            "head.weight",
            torch.zeros(5, 96),
            r"1 tensors differ, the first is 'head.weight', expected \(768, 96\)",
        ),
        ("foreign", torch.zeros(1), r"'foreign', expected none, found \(1,\)"),
        ("head.bias", None, r"'head.bias', expected \(768,\), found none"),
        ("blocks.0.up.weight", None, r"there is no tensor 'blocks.0.up.weight'"),
        ("blocks.0.up.weight", torch.zeros(3), "tensors of block 0 lack axes"),
        ("blocks.0.query_norm", torch.zeros(48), "heads have 48 channels"),
        ("blocks.7.down.weight", torch.zeros(3, 3), "tensors differ"),
        ("blocks.x", torch.zeros(3, 3), "tensors differ"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, weights: dict[str, Tensor], name: str, value: Tensor | None, told: str
) -> None:
    changed = {key: tensor for key, tensor in weights.items() if key != name}
    if value is not None:
        changed[name] = value
    with pytest.raises(ValueError, match=rf"^weights of the model 'mini' do not fit: .*{told}") as caught:
        backbone.load(write(tmp_path, changed), device="cpu")
    assert "\n" not in str(caught.value)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    save_file({"text.embedding": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="there is no tensor"):
        backbone.load([tmp_path / "a.safetensors"], device="cpu")


def test_an_unknown_model_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"model=mimi is not known: .*; did you mean 'mini'\?"):
        facts("mimi")


def test_the_shipped_weights_fit_the_facts() -> None:
    assert len(SHIPPED) == 2
    assert max(file.stat().st_size for file in SHIPPED) <= 15 * 2**20
    tensors = {name: value for file in SHIPPED for name, value in load_file(file).items()}
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert all(bool(torch.isfinite(value).all()) for value in tensors.values())
    model = backbone.load(SHIPPED, device="cpu")
    assert model.facts == facts("mini")
    assert model.checkpoint == checkpoint_sha256(SHIPPED)


def test_facts_agree_with_the_shape() -> None:
    known, model = facts("mini"), backbone.load(SHIPPED, device="cpu")
    shape = model.shape
    for field in ("layers", "heads", "head_dim", "rows", "columns", "chunk_frames", "window_frames"):
        assert getattr(known, field) == getattr(shape, field), field
    assert known.frame_tokens == shape.frame_tokens
    assert known.chunk_tokens == shape.chunk_tokens
    assert known.kv_bytes(10) == 2 * known.layers * known.heads * known.head_dim * 10 * 4
    decoded = model.decoder()(torch.zeros(1, 3, *model.latent_shape))
    assert decoded.shape == (1, 3 * known.temporal_stride, known.height, known.width, 3)
    assert len(model.turns(3, steps=known.steps)[0].passes) == known.steps + 1


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_schedule_goes_from_noise_to_a_picture_and_ends_clean(steps: int) -> None:
    turns = tiny_model().turns(9, steps=steps, prefix_frames=3)
    assert [len(turn.passes) for turn in turns] == [1, steps + 1, steps + 1]
    assert [turn.is_prefix for turn in turns] == [True, False, False]
    *passes, last = turns[1].passes
    noisy, clean = [step.spans[0] for step in passes], last.spans[0]
    assert noisy[0].level == 1
    assert noisy[-1].next_level == 0
    assert all(step.next_level == following.level for step, following in pairwise(noisy))
    assert all(step.level > (step.next_level or 0) for step in noisy)
    assert not any(step.commit for step in passes)
    assert (clean.level, clean.next_level, last.commit) == (0, None, True)


def test_euler_steps_lead_to_a_prediction_that_stays() -> None:
    model = tiny_model()
    target = torch.rand(1, 3, *model.latent_shape) * 2 - 1
    latent = torch.randn(target.shape)
    for step in model.turns(3, steps=5)[0].passes[:-1]:
        latent = model.advance(latent, target, step.spans[0], None)
    torch.testing.assert_close(latent, target, atol=1e-5, rtol=0)


def test_truth_decodes_to_the_exact_frames() -> None:
    model = tiny_model()
    latents = model.truth(PROMPTS[0], 3, 6)
    assert latents.shape == (6, *model.latent_shape)
    expected, _ = world.truth(MiniPrompt.parse(PROMPTS[0]), 3, 24)
    assert torch.equal(model.decoder()(latents[None])[0], expected)


def test_denoise_folds_tokens_as_truth_does() -> None:
    """Attention that returns values, so that the check needs no cache: a video alone and in a batch."""
    model = tiny_model()
    both = torch.randn(2, 3, *model.latent_shape)
    level = torch.full((2, 3), 0.5)

    def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return values

    whole = model.denoise(both, level, model.encode(PROMPTS), attend, first_frame=6)
    assert whole.shape == both.shape
    assert whole.dtype == torch.float32
    for index, prompt in enumerate(PROMPTS):
        part = slice(index, index + 1)
        alone = model.denoise(both[part], level[part], model.encode([prompt]), attend, first_frame=6)
        torch.testing.assert_close(alone, whole[part], atol=1e-5, rtol=1e-5)
