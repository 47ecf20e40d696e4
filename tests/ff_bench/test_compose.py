from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import policies
from ff_bench.compose import compose, expand, overrides_of
from ff_bench.config import conf_dir
from ff_bench.errors import UsageError

MINE = '''
from dataclasses import dataclass
from typing import ClassVar

from policies.base import Policy


@dataclass
class Mine(Policy):
    """Keep the first slots."""

    strength: float = 2.0
    name: ClassVar[str] = "mine"
    source: ClassVar[str] = "test"

    def score(self, cache, step):
        return -cache.tokens.float() * self.strength
'''


def test_a_sweep_is_the_product_of_its_values() -> None:
    sweep = expand(["policy=glob(*,exclude=[full*,native])", "budget=1k,2k"], multirun=True)
    names = {(job.config.policy.label, job.config.budget.tokens) for job in sweep.jobs}
    assert len(sweep.jobs) == len(names) == 2 * len(set(policies.POLICIES) - {"full", "full_eps"})
    assert sweep.launcher == "basic"


def test_an_experiment_may_ask_for_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    lines = [
        "# @package _global_",
        "defaults:",
        "  - override /policy: h2o",
        "budget: 2k",
        "hydra:",
        "  mode: MULTIRUN",
    ]
    lines += ["  sweeper:", "    params:", "      seed: 0,1,2", "      budget: 1k,2k"]
    (tmp_path / "experiment" / "mine.yaml").write_text("\n".join(lines) + "\n")
    sweep = expand(["+experiment=mine"], multirun=False, config_dir=str(tmp_path))
    assert len(sweep.jobs) == 6
    assert {job.config.policy.label for job in sweep.jobs} == {"h2o"}
    sweep = expand(["+experiment=mine", "budget=3k"], multirun=False, config_dir=str(tmp_path))
    assert {job.config.budget.tokens for job in sweep.jobs} == {3072}
    with pytest.raises(UsageError, match="'mine'"):
        expand(["+experiment=mime"], multirun=False, config_dir=str(tmp_path))


def test_a_policy_of_the_users_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    config = compose([f"policy={path}", "policy.strength=3"]).config
    assert config.policy.label == "mine"
    assert config.policy.fields == {"strength": 3.0}
    assert len(config.policy.source_sha256) == 64
    with pytest.raises(UsageError, match=r"policy.strenght=3.*policy.strength"):
        compose([f"policy={path}", "policy.strenght=3"])


def test_python_values_become_overrides() -> None:
    words = overrides_of(
        {"policy": {"name": "h2o"}, "limit": None, "seed": [0, 1], "overwrite": True, "prompts": "it's a\\b"}
    )
    assert words == ["policy='h2o'", "limit=null", "seed=[0,1]", "overwrite=true", "prompts='it\\'s a\\\\b'"]
    config = compose(
        overrides_of({"policy": {"name": "future_forcing", "lam": 0.25}, "protocol": {"prefix": "none"}})
    ).config
    assert config.policy.fields["lam"] == 0.25
    assert config.protocol.prefix == "none"


def test_hydra_state_of_the_caller_is_put_back() -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        before = GlobalHydra.instance().is_initialized()
        compose(["policy=h2o"])
        assert GlobalHydra.instance().is_initialized() == before
        assert hydra_compose("config").budget == "8k"
    compose(["policy=h2o"])
    assert not GlobalHydra.instance().is_initialized()


def test_a_sweep_leaves_out_what_a_budget_is_too_small_for() -> None:
    words = ["model=self_forcing", "policy=sliding_window,attention_sink,h2o", "budget=6f", "length=10s"]
    sweep = expand(words, multirun=True)
    assert [job.config.policy.label for job in sweep.jobs] == ["sliding_window", "h2o"]
    assert len(sweep.left_out) == 1
    told = "budget=6f is 9360 tokens, policy=attention_sink needs at least 10920"
    assert sweep.left_out[0].startswith(told)
    for wrong in (["policy=attention_sink", *words[:1], *words[2:]], [*words[:2], "budget=1f"]):
        with pytest.raises(UsageError, match="needs at least"):
            expand(wrong, multirun=len(wrong) == 3)
