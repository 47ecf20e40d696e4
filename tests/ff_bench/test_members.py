"""Models as data: every file of `conf/model/` is read, checked and named; none needs its weights or torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import policies
from ff_bench import cli, runs, shipped
from ff_bench.compose import compose, expand
from ff_bench.config import RunConfig
from ff_bench.models.facts import facts, find
from ff_bench.models.mini.recipe import is_mini
from ff_bench.models.wan import facts as wan
from ff_bench.models.wan.member import Member
from ff_bench.remarks import remarks

pytestmark = pytest.mark.usefixtures("bare")
MEMBERS = [name for name in shipped.models() if not is_mini(name)]
RULES = {
    "self_forcing": ("roll21", "sliding_window", 18, 0, "absolute"),
    "causal_forcing": ("roll21", "sliding_window", 18, 0, "absolute"),
    "causal_forcing_framewise": ("roll21", "sliding_window", 20, 0, "absolute"),
    "causal_forcing_2step": ("roll21", "sliding_window", 20, 0, "absolute"),
    "causal_forcing_1step": ("roll21", "sliding_window", 20, 0, "absolute"),
    "causvid": ("roll21", "sliding_window", 18, 0, "absolute"),
    "longlive": ("sink3+roll12", "attention_sink", 9, 3, "absolute"),
    "longlive_infinity": ("sink3+roll12 relative", "streaming_llm", 9, 3, "contiguous"),
    "infinite_forcing": ("sink1+roll6", "streaming_llm", 3, 1, "contiguous"),
    "reward_forcing": ("ema3+roll9", "ema_sink", 6, 3, "contiguous"),
    "rolling_forcing": ("anchor3+roll21", "rolling_anchor", 21, 3, "absolute"),
    "krea_14b": ("recompute3", "recompute", 3, 0, "contiguous"),
}
"""Rule, policy, budget and sink in latent frames, positions."""
FRAME = 1560


def _config(*words: str) -> RunConfig:
    return compose(words).config


def _member(*words: str) -> Member:
    member = _config(*words).model.fields
    assert isinstance(member, Member)
    return member


def test_every_member_has_a_rule_to_check() -> None:
    assert set(RULES) == set(MEMBERS)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_is_what_its_file_says(name: str) -> None:
    config = _config(f"model={name}")
    known, member = config.facts, config.model.fields
    assert isinstance(member, Member)
    assert known == facts(name) == find(name)
    assert (known.architecture, known.name, config.model.label) == ("wan", name, name)
    assert (known.rows, known.columns, known.frame_tokens) == (30, 52, FRAME)
    assert member.latent_shape == (16, 60, 104)
    assert (known.layers, known.heads) == ((40, 40) if name == "krea_14b" else (30, 12))
    assert config.steps == len(member.steps)
    assert all(later < earlier for earlier, later in pairwise(member.steps))
    assert config.dtype == "bfloat16"
    assert config.prompts.name == "scenes"
    assert (config.protocol.prefix, config.protocol.position) == ("none", "contiguous")
    assert config.length.latent_frames == (241 if known.chunk_frames == 1 else 243)
    for source in (member.checkpoint.source, member.text_encoder, member.tokenizer, member.vae):
        assert source.path is None
        assert all((source.repo, source.file, source.licence))


@pytest.mark.parametrize("name", MEMBERS)
def test_the_head_of_a_file_names_source_and_rule(name: str) -> None:
    lines = (shipped.conf_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    head = "\n".join(line for line in lines if line.startswith("#"))
    assert "@" in head, "repository@commit"
    assert "weights" in head
    assert "Rule: " in head


@pytest.mark.parametrize("name", MEMBERS)
def test_native_is_the_rule_of_the_release(name: str) -> None:
    rule, policy, budget, sink, position = RULES[name]
    config = _config(f"model={name}", "policy=native", "budget=5f", "protocol.sink=2f", "protocol.recent=2f")
    assert (config.policy.label, config.policy.name, config.policy.rule) == ("native", policy, rule)
    assert config.budget.tokens == budget * FRAME
    assert (config.protocol.sink, config.protocol.recent) == (sink * FRAME, 0)
    assert config.protocol.position == position
    assert {"sink", "recent", "position"} <= set(config.protocol.pinned)
    assert config.protocol.label == "equal"
    made: Any = policies.load(config.policy.name)(**config.policy.fields)
    assert made.name == policy
    spec = runs.videos(config)[0]
    assert spec.identity["policy"] == {
        "name": "native", "fields": {"rule": rule, "policy": policy, **config.policy.fields}
    }  # fmt: skip
    told = [sentence for sentence in remarks([config]) if "native" in sentence]
    assert len(told) == 1
    assert rule in told[0]
    assert spec.reference.config.policy.name == "full"
    assert spec.reference.config.protocol.position == "contiguous"


@pytest.mark.parametrize("name", ["self_forcing", "reward_forcing"])
def test_native_is_another_video_than_its_policy(name: str) -> None:
    native = _config(f"model={name}", "policy=native")
    words = [f"budget={native.facts.native.budget}", "protocol.recent=0", f"policy={native.policy.name}"]
    same = _config(f"model={name}", *words, f"protocol.position={native.protocol.position}")
    assert same.budget.tokens == native.budget.tokens
    assert same.policy.fields == native.policy.fields
    assert runs.videos(same)[0].folder != runs.videos(native)[0].folder


def test_longlive_recomputes_and_the_others_do_not() -> None:
    assert {name for name in MEMBERS if _member(f"model={name}").recache_frames} == {
        "longlive", "longlive_infinity"
    }  # fmt: skip
    assert _member("model=longlive").recache_sink
    assert _member("model=longlive").checkpoint.lora is not None


def test_first_steps_and_warps() -> None:
    assert _member("model=causal_forcing_1step").steps == (1000,)
    assert _member("model=causal_forcing_1step").first_steps == (1000, 750, 500, 250)
    causvid = _member("model=causvid")
    assert (causvid.steps, causvid.shift, causvid.warp) == ((1000, 757, 522), 8, False)
    assert _member("model=rolling_forcing").passes == "rolling"


TINY = ["model=self_forcing", "model.layers=2", "model.heads=2", "model.head_dim=16", "model.height=64"]
TINY += ["model.width=96"]


def test_overridden_sizes_are_facts_and_are_told_in_the_label() -> None:
    config = _config(*TINY)
    assert (config.facts.layers, config.facts.heads, config.facts.head_dim) == (2, 2, 16)
    assert (config.facts.rows, config.facts.columns) == (4, 6)
    label = "self_forcing+head_dim=16+heads=2+height=64+layers=2+width=96"
    assert config.model.label == label
    assert find(label) == config.facts
    assert {hash(config.model), hash(replace(config.model))} == {hash(config.model)}


def test_nested_fields_are_told_but_for_the_names_of_files() -> None:
    model = _config("model=self_forcing", "model.weights.ema=false", "model.vae.path=/nowhere").model
    assert model.label == "self_forcing+weights.ema=false"
    known = find("self_forcing+steps=[1000,500]+native.budget=12f")
    assert known is not None
    assert (known.steps, known.native.budget) == (2, "12f")


@pytest.mark.parametrize("label", ["", "other", "other+height=64", "self_forcing+height=7", "mini+x=[", "+"])
def test_a_label_that_nobody_knows_is_no_error(label: str) -> None:
    assert find(label) is None


SF = ("model=self_forcing", "policy=h2o", "budget=6f")


def _id(*words: str) -> str:
    return runs.videos(_config(*SF, *words))[0].video_id


@pytest.mark.parametrize(
    "word",
    [
        "model.weights.path=/a.pt", "model.weights.repo=a/b", "model.vae.licence=mine",
        "model.native.budget=3f", "model.steps=[1000,750.0,500,250]", "prompts=scenes",
        "protocol.prefix=auto", "dtype=bfloat16", "steps=4",
    ],
)  # fmt: skip
def test_what_changes_no_frame_changes_no_id(word: str) -> None:
    assert _id(word) == _id()


@pytest.mark.parametrize(
    "word",
    [
        "model.height=464", "model.width=816", "model.steps=[1000,750,500,200]", "model.shift=4",
        "model.warp=false", "model.clean_step=1", "model.first_steps=[1000,500]", "model.passes=rolling",
        "model.chunk_frames=1", "model.first_chunk_frames=1", "model.decoder=taehv", "model.recache_frames=6",
        "model.weights.ema=false", "model.weights.key=generator", "model.window_frames=9",
        "dtype=float32", "protocol.noise=upstream",
    ],
)  # fmt: skip
def test_what_changes_frames_changes_the_id(word: str) -> None:
    assert _id(word) != _id()


def test_other_files_are_in_the_id(tmp_path: Path) -> None:
    for name in ("weights", "vae", "text_encoder", "tokenizer"):
        (tmp_path / name).write_text(name)
    own = [f"model.{name}.path={tmp_path / name}" for name in ("weights", "vae", "text_encoder", "tokenizer")]
    ids = [_id(*own)]
    model = _config(*SF, *own).model
    assert "absent" not in (model.checkpoint, *dict(model.others).values())
    assert {key for key, _ in model.others} == {"vae", "text_encoder"}
    for name in ("weights", "vae", "text_encoder", "tokenizer"):
        (tmp_path / name).write_text("other " + name)
        ids.append(_id(*own))
    assert len(set(ids)) == 5
    assert {key for key, _ in _config(*SF, "model.decoder=taehv").model.others} >= {"preview"}


def test_an_encoder_that_is_gone_is_known_by_what_it_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts that were encoded keep their id, and need no encoder."""
    pytest.importorskip("ftfy")
    monkeypatch.setenv("FF_BENCH_CACHE", str(tmp_path / "cache"))
    for name in ("weights", "vae", "encoder", "tokenizer"):
        (tmp_path / name).write_text(name)
    files = [f"model.{name}.path={tmp_path / name}" for name in ("weights", "vae")]
    paths = {"text_encoder": tmp_path / "encoder", "tokenizer": tmp_path / "tokenizer"}
    readers = [f"model.{name}.path={path}" for name, path in paths.items()]
    there = _config(*SF, *files, *readers)
    text, member = there.chosen[0].text, there.model.fields
    assert isinstance(member, Member)
    encoder = wan.embeddings.encoder_sha256(member)
    path = wan.embeddings.entry(text, encoder, tokens=512, dtype="bfloat16")
    assert path is not None
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    gone = _config(*SF, *files)
    assert runs.videos(gone)[0].video_id == runs.videos(there)[0].video_id
    assert wan.missing(gone.model.fields, prompts=[text], dtype="bfloat16") == ""
    assert "umt5" in wan.missing(gone.model.fields, prompts=[text, "another"], dtype="bfloat16")


def test_a_plan_needs_neither_weights_nor_torch(clean: Path) -> None:
    program = (
        "import sys; from ff_bench.cli import main; code = main(); "
        "print(sorted({'torch', 'pandas', 'numpy', 'transformers'} & set(sys.modules))); sys.exit(code)"
    )
    words = ["-m", "model=self_forcing,krea_14b", "policy=native,full", "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    *plan, modules = done.stdout.splitlines()
    assert modules == "[]"
    told = "\n".join(plan)
    for word in ("28080 tokens = 18 latent frames", "to make 4", "4680 tokens", "GiB per video", "1 of 16"):
        assert word in told, word
    assert "self_forcing was trained on 21" in told
    assert list(clean.iterdir()) == []


def test_lists_name_every_member_and_no_base(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ls", "models"]) == 0
    rows = capsys.readouterr().out.splitlines()
    named = [row.split()[0] for row in rows if row.endswith(("yes", "no"))]
    assert named == list(shipped.models())
    assert "base" not in named
    jobs = expand(["model=glob(*)", "policy=native"], multirun=True).jobs
    assert {job.config.model.name for job in jobs} == set(shipped.models())


def test_doctor_gives_the_command_for_every_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for name in MEMBERS:
        member = _member(f"model={name}")
        source = member.checkpoint.source
        assert f"hf download {source.repo} {source.file}" in out
    assert out.count("Wan2.1_VAE.pth") == 1


def test_a_model_of_the_users_is_a_file_over_the_shared_base(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text(
        "defaults:\n  - base/wan@_here_\n  - _self_\n\nname: mine\nchunk_frames: 2\n"
        "weights: {repo: me/mine, file: a.pt, licence: none}\n"
    )
    config = compose(["model=mine", "policy=native"], config_dir=str(tmp_path)).config
    assert (config.model.name, config.facts.chunk_frames) == ("mine", 2)
    assert config.budget.tokens == 18 * FRAME
