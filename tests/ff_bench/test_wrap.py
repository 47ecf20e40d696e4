"""`policy.wrap`: checked with a sentence, part of identity and label, and in force in a run."""

from __future__ import annotations

from pathlib import Path

import pytest

import ff_bench
from ff_bench import runs
from ff_bench.compose import compose
from ff_bench.errors import UsageError
from ff_bench.listing import describe
from ff_bench.making import make_policy


def test_without_wrappers_nothing_changes() -> None:
    policy = compose(["policy=h2o"]).config.policy
    assert (policy.label, policy.shown, policy.wrap) == ("h2o", {}, ())


@pytest.mark.parametrize("words", ["[pyramidkv,cam]", "[cam,pyramidkv]"])
def test_label_fields_and_identity_name_the_wrappers_in_one_order(words: str) -> None:
    config = compose(["policy=h2o", f"policy.wrap={words}", "budget=1k"]).config
    assert config.policy.label == "h2o+cam+pyramidkv"
    assert config.policy.shown == {"wrap": ["cam", "pyramidkv"]}
    spec = runs.videos(config)[0]
    assert spec.identity["policy"] == {"name": "h2o+cam+pyramidkv", "fields": {"wrap": ["cam", "pyramidkv"]}}
    assert "h2o+cam+pyramidkv-equal" in str(spec.relative_folder)
    made = make_policy(config)
    assert [made.name, made.inner.name, made.inner.inner.name] == ["pyramidkv", "cam", "h2o"]


def test_one_word_is_a_list_of_one() -> None:
    assert compose(["policy=h2o", "policy.wrap=adakv"]).config.policy.wrap == ("adakv",)


def test_published_settings_are_those_of_the_method_inside() -> None:
    plain, around = (
        compose(["policy=h2o", "protocol=published", "budget=4k", *words]).config.protocol
        for words in ([], ["policy.wrap=[adakv]"])
    )
    assert (plain.sink, plain.recent) == (around.sink, around.recent)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["policy=h2o", "policy.wrap=[ada]"], "policy.wrap=ada is not known: allowed are"),
        (["policy=h2o", "policy.wrap=[cam,d2o]"], r"allowed: at most one merge \(cam, d2o\)"),
        (["policy=full", "policy.wrap=[cam]"], r"policy.wrap=\[cam\] is not allowed with policy=full"),
        (["policy=native", "policy.wrap=[cam]"], r"policy.wrap=\[cam\] is not allowed with policy=native"),
        (["policy=h2o", "policy.wrap=[adakv]", "batch=2"], "batch=2 is not allowed with policy.wrap="),
    ],
)
def test_wrong_wrappers_get_a_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        compose(words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["policy=future_forcing", "policy.wrap=[adakv]"], "as 'future_forcing' merges"),
        (["policy=h2o", "policy.wrap=[adakv]", "protocol.share=layer"], r"protocol\.share is 'layer'"),
        (["policy=future_forcing", "policy.proxy_pass=first"], r"allowed with protocol\.passes=all"),
    ],
)
def test_what_only_the_policy_knows_is_said_before_anything_runs(
    words: list[str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=sentence):
        ff_bench.run(overrides=[*words, f"runs_dir={tmp_path}"])
    assert not list(tmp_path.iterdir())


def test_the_list_of_policies_names_them() -> None:
    assert "policy.wrap=[...] puts around one of them: cam, d2o, adakv, pyramidkv" in describe(["policies"])


def test_a_wrapped_run_holds_the_budget_and_its_rows_say_so(tmp_path: Path) -> None:
    rows = ff_bench.run(
        policy={"name": "h2o", "wrap": ["adakv"]}, budget="384", length="36f", prompts="orbit", steps=1,
        protocol={"prefix": "none"}, metrics="cost", device="cpu", runs_dir=str(tmp_path),
        stages=["generate", "score"], save=["record"],
    )  # fmt: skip
    assert set(rows["policy"]) == {"h2o+adakv"} and set(rows["status"]) == {"ok"}
    assert set(rows["policy_fields"]) == {'{"wrap":["adakv"]}'}
