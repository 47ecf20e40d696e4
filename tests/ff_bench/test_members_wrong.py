"""What is wrong with a model is one sentence, and nothing is written: fields, words, missing files."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ff_bench import cli, shipped
from ff_bench.errors import UsageError
from ff_bench.models.wan import facts as wan
from tests.ff_bench.test_wrong_command_lines import _check

pytestmark = pytest.mark.usefixtures("bare")

WRONG_FIELDS: list[tuple[str, list[str]]] = [
    ("layers=0", ["=0"]),
    ("heads=x", ["=x"]),
    ("head_dim=15", ["15", "even"]),
    ("height=470", ["470", "16"]),
    ("width=0", ["=0", "16"]),
    ("chunk_frames=0", ["=0"]),
    ("first_chunk_frames=0", ["=0"]),
    ("window_frames=null", ["null"]),
    ("fps=0", ["=0"]),
    ("passes=roling", ["roling", "'rolling'"]),
    ("steps=[]", ["[]"]),
    ("steps=1000", ["1000"]),
    ("steps=[250,500]", ["[250,500]"]),
    ("steps=[1000,1000]", ["[1000,1000]"]),
    ("steps=[1001]", ["[1001]"]),
    ("steps=[a]", ["[a]"]),
    ("steps=[true]", ["[true]"]),
    ("first_steps=[5,6]", ["[5,6]"]),
    ("shift=0", ["=0"]),
    ("shift=.nan", ["nan"]),
    ("warp=1", ["=1"]),
    ("clean_step=-1", ["-1"]),
    ("recache_frames=-1", ["-1"]),
    ("recache_sink=no_", ["no_"]),
    ("text_tokens=0", ["=0"]),
    ("decoder=vea", ["vea", "'vae'"]),
    ("weights=null", ["null"]),
    ("weights.ema=1", ["=1"]),
    ("weights.path=''", ["path"]),
    ("weights.key=3", ["=3"]),
    ("weights.sha=1", ["=1", "weights.path"]),
    ("weights.lora=a.pt", ["a.pt"]),
    ("vae=a.pt", ["a.pt"]),
    ("vea.path=a.pt", ["'model.vae'"]),
    ("native=roll21", ["roll21"]),
    ("native.fields=3", ["=3"]),
    ("native.policies=h2o", ["h2o", "'model.native.policy'"]),
]


@pytest.mark.parametrize(("change", "parts"), WRONG_FIELDS, ids=lambda value: str(value)[:40])
def test_a_wrong_field_is_named_with_what_is_allowed(change: str, parts: list[str]) -> None:
    key, _, value = change.partition("=")
    path = key.split(".")
    fields = shipped.model_fields("self_forcing")
    inner = fields
    for name in path[:-1]:
        inner[name] = dict(inner.get(name, {}))
        inner = inner[name]
    inner[path[-1]] = yaml.safe_load(value)
    with pytest.raises(UsageError) as caught:
        wan.read(fields)
    for part in [f"model.{path[0]}", *parts]:
        assert part in str(caught.value)


WRONG: list[tuple[list[str], list[str]]] = [
    (["model.height=470"], ["model.height", "470", "16"]),
    (["model.steps=[250,500]"], ["model.steps", "[250,500]"]),
    (["model.steps=[1000,750.5,500,250]"], ["model.steps", "750.5", "model.warp=true", "whole"]),
    (["model.first_steps=[1000,0.5]"], ["model.first_steps", "0.5", "model.warp=true", "whole"]),
    (["model.passes=rolling", "model.first_steps=[1000]"], ["first_steps", "rolling"]),
    (["model.passes=rolling", "model.first_chunk_frames=1"], ["first_chunk_frames=1", "rolling"]),
    (["+model.weights.sha=1"], ["model.weights.sha", "=1", "model.weights."]),
    (["model.vea.path=/x"], ["model.vea", "'model.vae'"]),
    (["model.native.policy=lru", "policy=native"], ["model.native.policy", "lru"]),
    (["+model.native.fields.decay=1", "policy=native"], ["model.native.fields.decay", "=1"]),
    (["+model.native.protocol.sinks=1f", "policy=native"], ["model.native.protocol.sinks", "1f"]),
    (["model.native.budget=9x", "policy=native"], ["model.native.budget", "9x"]),
    (["model.name=other"], ["model.name", "other"]),
    (["model.architecture=mini"], ["model.architecture", "mini"]),
    (["steps=3"], ["steps", "=3", "self_forcing", "4"]),
    (["prompts=orbit"], ["prompts", "orbit", "self_forcing", "scenes"]),
    (["protocol.prefix=first_lap"], ["protocol.prefix", "first_lap", "none"]),
    (["protocol.noise=upstream", "batch=2"], ["batch", "=2", "noise=upstream"]),
    (["budget=1559", "protocol.recent=0"], ["budget", "1559", "1560"]),
    (["policy=native", "budget=9x"], ["budget", "9x"]),
]


@pytest.mark.parametrize(("words", "parts"), WRONG, ids=lambda value: " ".join(value)[:60])
def test_one_sentence_and_nothing_written(
    words: list[str], parts: list[str], clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.main(["model=self_forcing", *words])
    captured = capsys.readouterr()
    assert captured.out == ""
    _check(words, parts, clean, captured.err, code)


def test_missing_weights_are_said_before_anything_is_written(
    clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights first, then the VAE, then what new prompts need; each with the command that gets it."""
    pytest.importorskip("huggingface_hub")
    words = ["model=longlive"]
    for field, file in (
        ("weights", "models/longlive_base.pt"), ("weights.lora", "models/lora.pt"), ("vae", "Wan2.1_VAE.pth"),
        ("text_encoder", "models_t5_umt5-xxl-enc-bf16.pth"), ("tokenizer", "google/umt5-xxl"),
    ):  # fmt: skip
        assert cli.main([*words, "device=cpu"]) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        assert file in error
        assert "hf download" in error
        assert not Path("runs").exists()
        Path(field).write_text("here")
        words.append(f"model.{field}.path={Path(field).absolute()}")


def test_a_named_file_that_is_not_there_is_named(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["model=self_forcing", "model.weights.path=nowhere.pt", "device=cpu"]) == 2
    assert "nowhere.pt" in capsys.readouterr().err
    assert list(clean.iterdir()) == []
