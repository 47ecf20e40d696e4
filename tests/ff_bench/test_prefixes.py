"""Prefixes: the same for every policy, made once, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ff_bench import prefixes, runs
from ff_bench.compose import compose
from ff_bench.config import RunConfig
from ff_bench.models.mini.backbone import Mini
from ff_bench.models.mini.prompt import MiniPrompt
from tests.ff_bench.tiny import tiny_model

PROMPT = "orbit palette=3 speed=-4 sprite=disc hue=teal path=907"
OTHER = "change palette=1 speed=4 sprite=box hue=red path=955"
FRAMES = 24


@pytest.fixture
def model() -> Mini:
    return tiny_model()


def config(*words: str, prompts: Sequence[str] = (PROMPT,)) -> RunConfig:
    Path("some.txt").write_text("\n".join(prompts) + "\n")
    told = ["prompts=some.txt", "limit=null", "length=7s", "steps=1", "device=cpu", "budget=512", *words]
    return compose(told).config


def made(model: Mini, asked: RunConfig) -> torch.Tensor:
    group = runs.videos(asked)
    found = prefixes.latents(model, asked, group, prefixes.length(asked, group[0].prompt))
    assert found is not None
    return found


def files() -> list[Path]:
    return sorted(Path("runs/mini/prefixes").rglob(prefixes.FILE))


def length_of(config: RunConfig) -> int:
    return prefixes.length(config, config.chosen[0])


def test_the_length_is_that_of_the_prompt_and_at_most_the_video(clean: Path) -> None:
    assert MiniPrompt.parse(PROMPT).prefix_frames() == FRAMES
    assert length_of(config("protocol.prefix=first_lap")) == FRAMES
    assert length_of(config("protocol.prefix=truth")) == FRAMES
    assert length_of(config("protocol.prefix=none")) == 0
    assert length_of(config("length=9f")) == 9


def test_none_gives_nothing(clean: Path, model: Mini) -> None:
    asked = config("protocol.prefix=none")
    assert prefixes.latents(model, asked, runs.videos(asked), 0) is None
    assert not Path("runs").exists()


def test_truth_gives_the_exact_frames_of_every_video(clean: Path, model: Mini) -> None:
    asked = config("protocol.prefix=truth", "batch=2", prompts=(PROMPT, OTHER))
    found = made(model, asked)
    assert found.shape == (2, FRAMES, 768, 8, 8)
    for index, prompt in enumerate((PROMPT, OTHER)):
        assert torch.equal(found[index], model.truth(prompt, 0, FRAMES))
    assert not Path("runs").exists()


def test_a_first_lap_is_made_once_for_all_policies(
    clean: Path, model: Mini, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(model, config("policy=h2o"))
    assert first.shape == (1, FRAMES, 768, 8, 8)
    assert first.dtype == torch.float32
    assert torch.equal(load_file(files()[0])["latents"], first[0])
    monkeypatch.setattr(model, "denoise", None)
    for words in (["policy=streaming_llm"], ["policy=full"], ["budget=1k", "length=10s"]):
        assert torch.equal(made(model, config(*words)), first)
    assert len(files()) == 1


@pytest.mark.parametrize("words", [["seed=1"], ["steps=2"], ["dtype=bfloat16"], ["batch=2"], ["length=15f"]])
def test_what_changes_latents_has_a_prefix_of_its_own(clean: Path, model: Mini, words: list[str]) -> None:
    made(model, config())
    made(model, config(*words))
    assert len(files()) == 2


def test_models_of_one_name_share_no_prefix_but_equal_ones(clean: Path) -> None:
    def folder(*words: str) -> Path:
        told = ["model=self_forcing", "length=21f", "budget=6f", *words]
        asked = compose(told).config
        return prefixes._folder(asked, runs.videos(asked)[0], FRAMES)

    assert folder() == folder("policy=h2o", "protocol.sink=1f")
    others = [["model.shift=4"], ["model.height=464"], ["protocol.noise=upstream"], ["seed=1"]]
    assert len({folder(), *(folder(*words) for words in others)}) == 5


def test_the_name_of_a_prefix_of_mini_is_that_of_its_first_day(clean: Path) -> None:
    asked = config()
    spec = runs.videos(asked)[0]
    told = {
        "model": "mini", "checkpoint": asked.model.checkpoint, "steps": 1, "dtype": "float32", "batch": 1,
        "frames": FRAMES, "prompt": PROMPT, "seed": 0,
    }  # fmt: skip
    assert prefixes._folder(asked, spec, FRAMES).name.endswith(f"-s0-{runs.short_hash(told)}")


def test_a_longer_prefix_begins_as_the_shorter_one(clean: Path, model: Mini) -> None:
    assert torch.equal(made(model, config())[:, :15], made(model, config("length=15f")))


def test_those_that_are_there_stay_when_others_are_made(clean: Path, model: Mini) -> None:
    asked = config("batch=2", prompts=(PROMPT, OTHER))
    first = made(model, asked)
    kept, lost = (prefixes._folder(asked, spec, FRAMES) / prefixes.FILE for spec in runs.videos(asked))
    lost.unlink()
    before = kept.stat().st_mtime_ns
    assert torch.equal(made(model, asked), first)
    assert kept.stat().st_mtime_ns == before


def test_a_prefix_that_fails_leaves_no_file(
    clean: Path, model: Mini, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> torch.Tensor:
        return torch.full((1, 3, 768, 8, 8), float("nan"))

    with monkeypatch.context() as patched:
        patched.setattr(model, "advance", broken)
        with pytest.raises(FloatingPointError, match="chunk 0 under policy 'full'"):
            made(model, config())
    assert files() == []
    assert [path.name for path in Path("runs").rglob("*") if path.is_file()] == [".lock"]
    assert torch.isfinite(made(model, config())).all()
