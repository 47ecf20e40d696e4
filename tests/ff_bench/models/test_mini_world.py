"""Motion and pictures of the procedural worlds: places return exactly, and change when they are said to."""

from __future__ import annotations

import math

import pytest
import torch

from ff_bench.models.mini import world
from ff_bench.models.mini.motion import FEATURES, GRID, HARMONICS, VIEW, Motion, token_features
from ff_bench.models.mini.prompt import EVENTS, FRAMES_PER_LATENT, RING, SECTORS, SPRITES, MiniPrompt
from ff_bench.models.mini.world import draw_appearance, render, truth, truth_seed

WORLDS = {
    "orbit": MiniPrompt.parse("orbit palette=3 speed=-3 sprite=disc hue=teal path=907"),
    "pendulum": MiniPrompt.parse("pendulum palette=1 speed=4 sprite=box hue=red path=923"),
    "cut": MiniPrompt.parse("cut palette=6 speed=3 sprite=triangle hue=lime path=931"),
    "occlusion": MiniPrompt.parse("occlusion palette=3 speed=1 path=943"),
    "change": MiniPrompt.parse("change palette=0 speed=-4 sprite=diamond hue=violet path=948"),
}


@pytest.mark.parametrize("speed", [-4, -3, -1, 2])
def test_an_orbit_returns_to_the_same_columns(speed: int) -> None:
    lap = RING // abs(speed)
    columns = world.places(MiniPrompt("orbit", speed=speed, path=950), 2 * lap + 64)
    assert torch.equal(columns[lap:], columns[:-lap])
    assert not torch.equal(columns[1:], columns[:-1])
    assert columns.min() >= 0
    assert columns.max() < RING


def test_a_pendulum_turns_and_never_goes_faster_than_its_wobble_allows() -> None:
    columns = Motion.of([WORLDS["pendulum"]]).camera(torch.arange(960)[None])[0]
    steps = torch.remainder(columns[1:] - columns[:-1] + RING // 2, RING) - RING // 2
    assert steps.min() < 0 < steps.max()
    assert steps.abs().max() <= 2 * 4


@pytest.mark.parametrize(("name", "sectors"), [("cut", SECTORS), ("change", SECTORS // 2)])
def test_an_event_changes_all_or_half_of_the_sectors(name: str, sectors: int) -> None:
    prompt = WORLDS[name]
    numbers = prompt.motion()
    for event in range(EVENTS):
        at = math.ceil(numbers.event_start + event * numbers.event_gap)
        versions = Motion.of([prompt]).versions(torch.tensor([[at - 1, at]]))[0]
        assert int((versions[1] - versions[0]).sum()) == sectors
        assert int((versions[1] - versions[0]).max()) == 1
    assert versions.max() <= EVENTS


@pytest.mark.parametrize("name", ["cut", "change"])
def test_places_carry_the_version_of_their_sector(name: str) -> None:
    prompt, times = WORLDS[name], torch.arange(900)[None]
    motion = Motion.of([prompt])
    places, versions = motion.places(times)[0], motion.versions(times)[0]
    assert torch.equal(places // RING, versions.gather(1, places % RING // (RING // SECTORS)))
    before = math.ceil(prompt.motion().event_start)
    assert int((places[:before] // RING).max()) == 0
    assert int((places[before:] // RING).max()) > 0


@pytest.mark.parametrize("name", ["orbit", "pendulum", "occlusion"])
def test_worlds_without_events_keep_version_0(name: str) -> None:
    assert int(world.places(WORLDS[name], 960).max()) < RING


@pytest.mark.parametrize("name", list(WORLDS))
def test_truth_is_the_same_each_time_and_depends_on_the_seed(name: str) -> None:
    frames, alpha = truth(WORLDS[name], 3, 24)
    again, _ = truth(WORLDS[name], 3, 24)
    other, other_alpha = truth(WORLDS[name], 4, 24)
    assert frames.shape == (24, VIEW, VIEW, 3)
    assert frames.dtype == torch.uint8
    assert torch.equal(frames, again)
    assert not torch.equal(frames, other)
    assert name == "occlusion" or torch.equal(alpha, other_alpha)


def test_truth_of_a_long_video_begins_as_the_short_one() -> None:
    assert torch.equal(truth(WORLDS["change"], 0, 40)[0][:16], truth(WORLDS["change"], 0, 16)[0])


def test_a_place_seen_twice_looks_the_same_without_the_sprite() -> None:
    prompt = WORLDS["orbit"]
    lap = RING // 3
    frames, alpha = truth(prompt, 0, lap + 8)
    free = (alpha[:8] < 1e-3) & (alpha[lap:] < 1e-3)
    assert free.float().mean() > 0.5
    assert torch.equal(frames[:8][free], frames[lap:][free])


def test_truth_draws_each_video_alone() -> None:
    """A batched draw gives other pictures (one generator serves all); `truth` must not depend on a batch."""
    prompt = WORLDS["orbit"]
    look = draw_appearance([prompt], torch.Generator().manual_seed(truth_seed(prompt, 5)))
    video, _ = render(Motion.of([prompt]), look, torch.arange(8)[None])
    expected = ((video[0] + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    assert torch.equal(truth(prompt, 5, 8)[0], expected)


def test_what_a_batch_shows_is_in_range_and_follows_each_motion() -> None:
    prompts = list(WORLDS.values())
    look = draw_appearance(prompts, torch.Generator().manual_seed(0))
    times = torch.arange(400, 408).expand(len(prompts), -1)
    video, alpha = render(Motion.of(prompts), look, times)
    assert video.shape == (5, 8, 3, VIEW, VIEW)
    assert video.min() >= -1
    assert video.max() <= 1
    assert torch.isfinite(video).all()
    for index, prompt in enumerate(prompts):
        alone, cover = render(Motion.of([prompt]), _element(look, index), times[:1])
        torch.testing.assert_close(alone[0], video[index])
        torch.testing.assert_close(cover[0], alpha[index])


def _element(look: world.Appearance, index: int) -> world.Appearance:
    return world.Appearance(**{name: value[index : index + 1] for name, value in vars(look).items()})


@pytest.mark.parametrize("sprite", SPRITES)
def test_sprite_alpha_is_that_of_the_picture_where_the_shape_is_told(sprite: str) -> None:
    prompt = MiniPrompt("orbit", sprite=sprite, path=971)
    torch.testing.assert_close(world.sprite_alpha(prompt, 80), truth(prompt, 0, 80)[1])
    assert truth(prompt, 0, 80)[1].max() > 0.9


@pytest.mark.parametrize("seed", range(6))
def test_sprite_alpha_covers_every_shape_where_it_is_not_told(seed: int) -> None:
    prompt = WORLDS["occlusion"]
    bound, alpha = world.sprite_alpha(prompt, 96), truth(prompt, seed, 96)[1]
    assert (alpha - bound).max() < 0.1  # the tips of a triangle fade more slowly than the box
    assert (bound[alpha > 0.5] > 0.5).all()


def test_sprite_path_is_the_centre_of_the_alpha() -> None:
    prompt = WORLDS["orbit"]
    alpha, (x, y) = world.sprite_alpha(prompt, 400), world.sprite_path(prompt, 400)
    inside = (x > 12) & (x < 51) & (y > 12) & (y < 51)
    assert inside.any()
    pixels = torch.arange(VIEW).float()
    mass = alpha.sum((1, 2))
    torch.testing.assert_close(((alpha.sum(1) * pixels).sum(1) / mass)[inside], x[inside], atol=0.05, rtol=0)
    torch.testing.assert_close(((alpha.sum(2) * pixels).sum(1) / mass)[inside], y[inside], atol=0.05, rtol=0)


def test_token_features_have_one_row_per_token() -> None:
    prompts = list(WORLDS.values())
    told = token_features(Motion.of(prompts), torch.arange(60, 66).expand(len(prompts), -1))
    assert told.shape == (5, 6 * GRID * GRID, FEATURES)
    assert told.dtype == torch.float32
    assert torch.isfinite(told).all()
    alone = token_features(Motion.of(prompts[2:3]), torch.arange(60, 66)[None])
    assert torch.equal(alone[0], told[2])


def test_token_features_are_equal_for_equal_poses() -> None:
    """One lap later camera, movement and version are the same; only the sprite has moved on."""
    lap = RING // 3 // FRAMES_PER_LATENT  # 32 latent frames
    told = token_features(Motion.of([WORLDS["orbit"]]), torch.arange(2 * lap)[None])[0]
    view = 2 * len(HARMONICS) + FRAMES_PER_LATENT + EVENTS + 1
    half = len(told) // 2
    assert torch.equal(told[:half, :view], told[half:, :view])
    assert not torch.equal(told[:half, view:], told[half:, view:])


def test_token_features_tell_a_change_of_version() -> None:
    prompt = WORLDS["cut"]
    frame = math.ceil(prompt.motion().event_start / FRAMES_PER_LATENT)
    told = token_features(Motion.of([prompt]), torch.tensor([[frame - 2, frame]]))[0]
    first = 2 * len(HARMONICS) + FRAMES_PER_LATENT
    shares = told[:, first : first + EVENTS + 1].view(2, GRID * GRID, EVENTS + 1)
    assert torch.equal(shares[0, :, 0], torch.ones(GRID * GRID))
    assert torch.equal(shares[1, :, 1], torch.ones(GRID * GRID))
