from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

import pytest
import yaml

import policies
from ff_bench import traits
from ff_bench.compose import compose
from ff_bench.config import RunConfig, conf_dir
from ff_bench.errors import UsageError


def _config(*words: str) -> RunConfig:
    return compose(words).config


@pytest.mark.parametrize("name", list(policies.POLICIES))
def test_yaml_and_tables_equal_the_dataclass(name: str) -> None:
    policy: Any = policies.load(name)
    defaults = {field.name: field.default for field in fields(policy) if field.init}
    assert MISSING not in defaults.values()
    written = yaml.safe_load((conf_dir() / "policy" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert written == {"name": name, **defaults}
    assert dict(policy.pins) == dict(traits.pins(name))
    assert policy.is_full == traits.is_full(name)
    assert policy.name == name


def test_every_policy_has_a_file_and_every_file_a_policy() -> None:
    names = {path.stem for path in (conf_dir() / "policy").glob("*.yaml")}
    assert names == {*policies.POLICIES, traits.NATIVE}


@pytest.mark.parametrize("group", ["model", "policy", "protocol", "metrics", "tracker"])
def test_every_choice_composes(group: str, bare: None) -> None:
    for path in sorted((conf_dir() / group).glob("*.yaml")):
        choice = f"[{path.stem}]" if group == "metrics" else path.stem
        _config(f"{group}={choice}")


def test_the_default_is_the_paper_under_the_equal_protocol() -> None:
    config = _config()
    assert config.policy.label == "future_forcing"
    assert (config.budget.tokens, config.length.latent_frames, config.steps) == (
        8192,
        240,
        config.facts.steps,
    )
    protocol = config.protocol
    assert (protocol.label, protocol.sink, protocol.recent, protocol.position) == (
        "equal",
        0,
        192,
        "absolute",
    )
    assert (protocol.passes, protocol.denominator, protocol.unit, protocol.share) == (
        "clean",
        "all",
        "token",
        "head",
    )
    assert (protocol.prefix, protocol.noise, protocol.query_stride, protocol.charge_state) == (
        "first_lap",
        "own",
        1,
        False,
    )


def test_the_embedded_model_asks_for_nothing_by_itself() -> None:
    config = _config()
    assert (config.dtype, config.prompts.name, config.facts.prefix) == ("float32", "orbit", "first_lap")
    assert (config.model.label, config.model.fields) == ("mini", "mini")
    assert set(config.model.identity) == {"name", "fields", "checkpoint"}
    assert config.model.identity["fields"] == {}


def test_native_of_the_embedded_model_is_the_full_cache() -> None:
    assert _config("policy=native", "budget=1k").policy == _config("policy=full").policy


def test_pins_override_the_protocol_and_are_marked() -> None:
    config = _config("policy=streaming_llm", "budget=1k")
    assert (config.protocol.sink, config.protocol.position) == (192, "contiguous")
    assert config.protocol.pinned == ("position", "sink")
    assert _config("policy=sliding_window").protocol.pinned == ("sink",)
    assert _config("policy=h2o").protocol.pinned == ()
    pinned = _config("policy=sliding_window", "protocol.sink=1c", "budget=1k").protocol
    assert (pinned.sink, pinned.label) == (0, "equal")


def test_changed_fields_stand_in_the_label() -> None:
    assert _config("protocol.recent=4f").protocol.label == "equal+recent=4f"
    assert _config("protocol.recent=3f", "protocol.position=absolute").protocol.label == "equal"
    assert _config("protocol=published").protocol.label == "published"


def test_published_settings_differ_by_policy() -> None:
    h2o = _config("policy=h2o", "protocol=published", "budget=1k").protocol
    assert (h2o.recent, h2o.position) == (512, "absolute")
    assert _config("policy=future_forcing", "protocol=published").protocol.recent == 0
    assert (
        _config("policy=h2o", "protocol=published", "budget=1k", "protocol.recent=3f").protocol.recent == 192
    )


@pytest.mark.parametrize("policy", ["full", "full_eps"])
def test_full_policies_take_the_full_budget(policy: str) -> None:
    assert _config(f"policy={policy}", "budget=1k").budget.tokens is None


def test_a_budget_of_the_video_is_full() -> None:
    assert _config("policy=h2o", "budget=100%").budget.tokens is None
    assert _config("policy=h2o", "budget=15359").budget.tokens == 15359


def test_a_budget_needs_room_beside_sink_and_recent() -> None:
    assert _config("policy=streaming_llm", "budget=448").budget.tokens == 448
    with pytest.raises(UsageError, match="448"):
        _config("policy=streaming_llm", "budget=447")


def test_seeds_and_words_are_normalised() -> None:
    config = _config("seed=[3,1]", "stages=[score,generate]", "save=[video,record]")
    assert config.seeds == (3, 1)
    assert config.stages == ("generate", "score")
    assert config.save == ("record", "video")


def test_whole_numbers_pass_as_decimals() -> None:
    assert _config("policy.lam=1").policy.fields["lam"] == 1.0
    assert isinstance(_config("policy.lam=1").policy.fields["lam"], float)
