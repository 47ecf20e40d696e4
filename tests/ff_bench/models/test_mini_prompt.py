"""Prompts of the embedded model: what parses prints back, what does not is told in one sentence."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ff_bench.config import conf_dir
from ff_bench.models.facts import facts
from ff_bench.models.mini import world
from ff_bench.models.mini.motion import Motion
from ff_bench.models.mini.prompt import (
    FRAMES_PER_LATENT,
    HUES,
    PALETTES,
    PATHS,
    PREFIX_STEP,
    RING,
    SPEEDS,
    SPRITES,
    WORLDS,
    MiniPrompt,
)
from ff_bench.models.mini.training import TRAINING_PATHS


@st.composite
def any_prompt(draw: st.DrawFn) -> MiniPrompt:
    name = draw(st.sampled_from(WORLDS))
    is_told = name != "occlusion"
    return MiniPrompt(
        world=name,
        palette=draw(st.integers(0, PALETTES - 1)),
        speed=draw(st.sampled_from(SPEEDS)),
        sprite=draw(st.sampled_from(SPRITES)) if is_told else None,
        hue=draw(st.sampled_from(HUES)) if is_told else None,
        path=draw(st.integers(0, PATHS - 1)),
    )


def shipped(name: str) -> list[MiniPrompt]:
    lines = (conf_dir() / "prompts" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [MiniPrompt.parse(line) for line in lines if line.strip() and not line.startswith("#")]


ALL = [prompt for name in WORLDS for prompt in shipped(name)]


@given(any_prompt())
def test_a_prompt_prints_what_it_was_parsed_from(prompt: MiniPrompt) -> None:
    assert MiniPrompt.parse(prompt.text) == prompt
    shuffled = " ".join([prompt.text.split()[0], *reversed(prompt.text.split()[1:])])
    assert MiniPrompt.parse(f"  {shuffled}  ") == prompt
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,60}", prompt.id)


@given(any_prompt(), any_prompt())
@settings(max_examples=300)
def test_different_prompts_have_different_ids(first: MiniPrompt, second: MiniPrompt) -> None:
    assert (first.id == second.id) == (first == second)


def test_missing_keys_take_defaults() -> None:
    assert MiniPrompt.parse("orbit") == MiniPrompt("orbit")
    assert MiniPrompt.parse("occlusion").sprite is None
    assert MiniPrompt.parse("pendulum speed=-3 path=901").speed == -3


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("a dog runs", "'a'"),
        ("orbitt", "nearest is 'orbit'"),
        ("palette=3 orbit", "'palette=3'"),
        ("orbit fast", "'fast'"),
        ("orbit speed=", "'speed='"),
        ("orbit =3", "'' is not one of palette"),
        ("orbit sped=3", "nearest is 'speed'"),
        ("orbit speed=0", "speed '0'"),
        ("orbit speed=5", "speed '5'"),
        ("orbit speed=-5", "speed '-5'"),
        ("orbit speed=1.5", "speed '1.5'"),
        ("orbit speed=two", "speed 'two'"),
        ("orbit palette=-1", "palette '-1'"),
        ("orbit palette=8", "palette '8'"),
        ("orbit path=1000", "path '1000'"),
        ("orbit path=-1", "path '-1'"),
        ("orbit sprite=disk", "nearest is 'disc'"),
        ("orbit hue=turquoise", "hue 'turquoise'"),
        ("orbit hue=Teal", "nearest is 'teal'"),
        ("orbit path=1 path=2", "'path=2'"),
        ("occlusion sprite=disc", "'sprite=disc'"),
        ("occlusion hue=teal", "'hue=teal'"),
    ],
)
def test_a_wrong_word_is_named_in_one_sentence(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)) as caught:
        MiniPrompt.parse(text)
    sentence = str(caught.value)
    assert sentence.startswith("prompt: ")
    assert "\n" not in sentence
    assert len(sentence) < 200


@pytest.mark.parametrize("name", WORLDS)
def test_a_shipped_set_is_large_and_held_out_of_training(name: str) -> None:
    prompts = shipped(name)
    assert len(prompts) >= 24
    assert {prompt.world for prompt in prompts} == {name}
    assert min(prompt.path for prompt in prompts) >= TRAINING_PATHS
    assert len({prompt.path for prompt in prompts}) == len(prompts)
    assert {prompt.speed > 0 for prompt in prompts} == {True, False}


def test_ids_are_unique_over_the_shipped_sets() -> None:
    assert len({prompt.id for prompt in ALL}) == len(ALL)


def test_the_facts_list_the_shipped_sets() -> None:
    assert facts("mini").prompt_sets == WORLDS


@given(any_prompt())
@settings(max_examples=60)
def test_prefixes_are_whole_steps_that_end_before_the_first_event(prompt: MiniPrompt) -> None:
    frames = prompt.prefix_frames()
    assert frames > 0
    assert frames % PREFIX_STEP == 0
    assert frames * FRAMES_PER_LATENT <= prompt.motion().event_start


@pytest.mark.parametrize("name", ["orbit", "change", "pendulum", "cut"])
def test_a_prefix_sees_every_place(name: str) -> None:
    for prompt in shipped(name):
        columns = world.places(prompt, 960) % RING
        seen = set(columns[: prompt.prefix_frames() * FRAMES_PER_LATENT].flatten().tolist())
        ever = set(columns.flatten().tolist())
        if name in ("orbit", "change"):
            assert seen == set(range(RING))
        else:  # the wobble reaches a little further at later turns
            assert len(seen) >= 0.8 * len(ever), prompt.text


def test_a_prefix_of_occlusion_sees_its_sprite_whole_and_alone() -> None:
    for prompt in shipped("occlusion"):
        frames = prompt.prefix_frames() * FRAMES_PER_LATENT
        cover = world.sprite_alpha(prompt, frames).sum((1, 2))
        radius = prompt.motion().sprite_radius
        assert int((cover > radius**2).sum()) >= 32  # two seconds
        assert prompt.motion().visit_start + prompt.motion().visit_length <= frames
        x, _ = Motion.of([prompt]).sprite(world.torch.arange(frames, frames + 64)[None])
        assert float(x.min()) > 64  # away for long after the first visit


def test_only_a_cut_changes_the_palette() -> None:
    assert [MiniPrompt("orbit", palette=3).palette_of(version) for version in range(3)] == [3, 3, 3]
    assert [MiniPrompt("cut", palette=3).palette_of(version) for version in range(3)] == [3, 6, 1]
