"""The checkpoints for control: what distinguishes them, what their networks are told, how they are loaded."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ff_bench import shipped
from ff_bench.errors import UsageError
from ff_bench.models.facts import facts
from ff_bench.models.mini import backbone, training
from ff_bench.models.mini import facts as room
from ff_bench.models.mini.backbone import Mini
from ff_bench.models.mini.doubled import dense_attention_of, predict, token_angles
from ff_bench.models.mini.motion import Motion
from ff_bench.models.mini.motion_numbers import (
    CAMERA,
    FAR,
    MOTION_NUMBERS,
    SPRITE,
    events_begun,
    motion_numbers,
)
from ff_bench.models.mini.network import MOTION_TOKENS, TOKEN_DIM, MiniNetwork
from ff_bench.models.mini.painting import VERSIONS
from ff_bench.models.mini.prompt import FRAMES_PER_LATENT, RING, WORLDS, MiniPrompt
from ff_bench.models.mini.prompt_indices import PromptIndices
from ff_bench.models.mini.recipe import RECIPES, is_mini
from ff_bench.noise import draw
from ff_bench.rollout import Take, rollout
from policies.base import Budget, Protocol
from policies.context import Context
from policies.full import Full
from tests.ff_bench.tiny import CHUNK, PROMPTS, SIZE, latents, randomised

VISITS = CAMERA + SPRITE
EVERY_WORLD = [MiniPrompt.parse(f"{world} speed=-3 path=17") for world in WORLDS]


def short_network() -> MiniNetwork:
    return randomised(MiniNetwork(SIZE, has_features=False), seed=3)


def test_checkpoints_recipes_and_files_are_the_same_set() -> None:
    minis = [name for name in shipped.models() if is_mini(name)]
    assert set(minis) == set(RECIPES) == set(room.VARIANTS) == {"mini", "mini_b", "mini_short"}
    assert not is_mini("self_forcing")
    assert not is_mini("")


def test_a_second_seed_changes_nothing_but_the_weights() -> None:
    assert replace(RECIPES["mini_b"], name="mini", seed=1) == RECIPES["mini"]
    first, second = facts("mini"), facts("mini_b")
    assert replace(second, name="mini", weights=first.weights) == first
    assert not set(first.weights) & set(second.weights)


def test_the_short_model_is_described_as_real_backbones_are() -> None:
    known, real = facts("mini_short"), facts("self_forcing")
    assert known.window_frames == real.window_frames == 21
    assert (known.position, known.prefix) == (real.position, real.prefix)
    assert not RECIPES["mini_short"].drops_context
    assert not RECIPES["mini_short"].has_features


def test_a_checkpoint_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match=r"model\.name=mini_c .*mini, mini_b, mini_short"):
        room.read({"name": "mini_c", "architecture": "mini"})


@pytest.mark.parametrize("prompt", EVERY_WORLD, ids=WORLDS)
def test_numbers_tell_camera_and_sprite_of_the_moment(prompt: MiniPrompt) -> None:
    """The ring angle and the sprite's place are those that pictures are drawn from, at any start."""
    for start in (0, 60, 400):
        numbers = motion_numbers(prompt, start)
        assert len(numbers) == MOTION_NUMBERS
        assert all(math.isfinite(number) and abs(number) < 10 for number in numbers)
        angle = math.atan2(numbers[0], numbers[1])
        motion, time = Motion.of([prompt]), torch.tensor([[start]])
        shown = float(motion.camera(time)) * 2 * math.pi / RING
        assert abs(math.remainder(angle - shown, 2 * math.pi)) <= 2 * math.pi / RING * 0.51
        if prompt.world != "occlusion":  # where it may be away
            x, _ = motion.sprite(time)
            assert float(x) == pytest.approx(31.5 + 80 * numbers[CAMERA + 2], abs=1e-3)


def test_a_clip_of_a_periodic_world_is_told_as_the_period_before() -> None:
    prompt = MiniPrompt("orbit", speed=4)
    now, later = motion_numbers(prompt, 0), motion_numbers(prompt, RING // 4)
    assert later[: CAMERA - 8] == pytest.approx(now[: CAMERA - 8], abs=1e-9)
    assert later[CAMERA + 2] != pytest.approx(now[CAMERA + 2], abs=1e-3)


def test_numbers_tell_when_the_sprite_comes_and_leaves() -> None:
    prompt = MiniPrompt.parse("occlusion path=17")
    motion = prompt.motion()
    across = [float(Motion.of([prompt]).sprite(torch.tensor([[t]]))[0]) for t in range(400)]
    for start in (0, 20, 50, 90, 150, 250):
        is_inside, comes, leaves = motion_numbers(prompt, start)[VISITS : VISITS + 3]
        visits = [motion.visit_start + number * motion.visit_period for number in range(4)]
        arrival = min(visit for visit in visits if visit > start)
        assert comes == pytest.approx(min(arrival - start, FAR) / 100)
        phase = (start - motion.visit_start) % motion.visit_period
        assert is_inside == float(start >= motion.visit_start and phase < motion.visit_length)
        end = start + 100 * leaves
        if end < min(start + FAR, 390):  # just after it left it is out of view
            assert across[math.ceil(end) + 1] > 64


def test_numbers_tell_the_events_to_come() -> None:
    prompt = MiniPrompt.parse("change speed=4 path=17")
    motion = prompt.motion()
    first = motion.event_start
    for start, begun in ((0, 0), (first - 1, 0), (first, 1), (first + motion.event_gap, 2), (1e5, 5)):
        assert events_begun(motion, start) == begun
        until, _, *bits = motion_numbers(prompt, start)[VISITS + 5 :]
        following = motion.event_start + begun * motion.event_gap - start
        assert until == pytest.approx(min(FAR, following if begun < 5 else FAR) / 100)
        told = [bool(bit) for bit in bits]
        left = [bit for event in motion.event_sectors[begun:] for bit in event]
        assert told == left + [False] * (len(told) - len(left))


def test_a_clip_of_a_cut_scene_begins_with_the_palette_in_view() -> None:
    prompt = MiniPrompt.parse("cut palette=2 path=17")
    motion = prompt.motion()
    after = math.ceil((motion.event_start + motion.event_gap) / FRAMES_PER_LATENT)
    whole, clip = PromptIndices.of_clips([prompt], "cpu"), PromptIndices.of_clips([prompt], "cpu", [after])
    assert whole.palettes.tolist() == [[prompt.palette_of(version) for version in range(VERSIONS)]]
    assert clip.palettes[0, : VERSIONS - 2].tolist() == whole.palettes[0, 2:].tolist()
    assert not torch.equal(whole.numbers, clip.numbers)


def test_clips_show_their_world_from_their_start_at_positions_from_zero() -> None:
    prompts = [MiniPrompt("orbit", path=1), MiniPrompt("pendulum", path=2)]
    chunks = torch.arange(2).expand(2, -1)
    shifted = training.draw_batch(prompts, chunks, torch.Generator().manual_seed(0), [6, 0])
    whole = training.draw_batch(prompts, torch.arange(4).expand(2, -1), torch.Generator().manual_seed(0))
    frames = 6 * FRAMES_PER_LATENT
    assert shifted.latent_frames.tolist() == [list(range(6))] * 2
    assert torch.equal(shifted.places[0], whole.places[0, frames : 2 * frames])
    assert torch.equal(shifted.places[1], whole.places[1, :frames])
    assert torch.equal(shifted.video[0], whole.video[0, frames : 2 * frames])


def test_a_third_of_clips_begins_where_rollouts_do() -> None:
    starts = training.draw_starts(6000, torch.Generator().manual_seed(0))
    assert sum(start == 0 for start in starts) / len(starts) == pytest.approx(1 / 3, abs=0.03)
    assert 0 <= min(starts) < max(starts) <= (training.TIMELINE - 1) * training.CHUNK_FRAMES


def test_the_motion_changes_the_prediction_only_through_the_prompt() -> None:
    network = short_network()
    slow, fast = MiniPrompt("orbit", speed=1), MiniPrompt("orbit", speed=4)
    tokens = network.prompt_tokens(network.read([slow, fast], "cpu"))
    assert tokens.shape == (2, VERSIONS + 2 + MOTION_TOKENS, SIZE.dim)
    assert torch.equal(tokens[0, : VERSIONS + 2], tokens[1, : VERSIONS + 2])
    x = torch.randn(1, CHUNK, TOKEN_DIM).expand(2, -1, -1)
    out = network(x, None, torch.ones(2, 1), tokens, lambda layer, q, k, v: v)
    assert (out[0] - out[1]).abs().max() > 1e-3


def test_a_token_knows_its_place_in_the_view_and_no_time() -> None:
    network = short_network()
    prompt = network.prompt_tokens(network.read([MiniPrompt("orbit")], "cpu"))
    x = torch.zeros(1, CHUNK, TOKEN_DIM)
    out = network(x, None, torch.ones(1, 1), prompt, lambda layer, q, k, v: v).unflatten(1, (3, -1))
    assert torch.equal(out[:, 0], out[:, 1])
    assert (out[0, 0, 0] - out[0, 0, -1]).abs().max() > 1e-3


def test_a_rollout_without_features_repeats_the_training_graph() -> None:
    """One step from pure noise gives, chunk by chunk, what the doubled sequence predicts from that noise."""
    network = short_network()
    model = Mini(network, checkpoint="short", name="mini_short")
    prompt, frames = PROMPTS[0], 6
    protocol = Protocol(position="absolute")
    context = Context(Full(), model.shape, Budget(None), protocol, batch=1, capacity_tokens=2 * CHUNK)
    made = latents(list(rollout(model, context, Take([prompt], [0], frames, 1))))
    parts = [draw(prompt, 0, chunk=chunk, step=0, shape=(3, *model.latent_shape)) for chunk in range(2)]
    clean, noisy = (part.flatten(3).transpose(2, 3).flatten(1, 2) for part in (made, torch.cat(parts)[None]))
    told = network.prompt_tokens(network.read([MiniPrompt.parse(prompt)], "cpu"))
    angles, keep = token_angles(torch.arange(frames)[None]), torch.ones(1, 2 * CHUNK, dtype=torch.bool)
    attention = dense_attention_of(2 * CHUNK)
    with torch.no_grad():
        inputs = (clean, noisy, torch.ones(1, 2), angles, keep, torch.full((1,), 99), told)
        graph = predict(network, attention, None, *inputs)
    torch.testing.assert_close(graph.clamp(-1, 1), clean, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", list(RECIPES))
def test_written_shards_come_back_under_their_name_alone(tmp_path: Path, name: str) -> None:
    network = randomised(MiniNetwork(SIZE, has_features=RECIPES[name].has_features), seed=1)
    training.write_shards(network, tmp_path, name)
    files = [tmp_path / path.name for path in room.weights(name)]
    model = backbone.load(files, name=name, device="cpu")
    assert model.facts.name == name
    assert model.shape.window_frames == facts(name).window_frames
    for key, value in model.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[key].half().float()), key
    other = "mini" if name == "mini_short" else "mini_short"
    with pytest.raises(ValueError, match=rf"weights of the model '{other}' do not fit"):
        backbone.load(files, name=other, device="cpu")


def test_full_size_shards_stay_small(tmp_path: Path) -> None:
    for name in ("mini_b", "mini_short"):
        training.write_shards(MiniNetwork(has_features=RECIPES[name].has_features), tmp_path, name)
        assert max((tmp_path / path.name).stat().st_size for path in room.weights(name)) <= 16 * 2**20


def test_a_missing_control_is_named_with_its_own_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"'mini_b' are missing: .*--model mini_b"):
        backbone.load([tmp_path / "x.safetensors"], name="mini_b", device="cpu")


@pytest.mark.parametrize("name", ["mini_b", "mini_short"])
def test_shipped_controls_fit_their_facts(name: str) -> None:
    files = room.weights(name)
    if not all(path.is_file() for path in files):
        pytest.skip(f"the weights of {name} are not here")
    tensors = {key: value for file in files for key, value in load_file(file).items()}
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert all(bool(torch.isfinite(value).all()) for value in tensors.values())
    model = backbone.load(files, name=name, device="cpu")
    assert model.facts == facts(name)
    assert model.checkpoint != backbone.load(facts("mini").weights, device="cpu").checkpoint
