from __future__ import annotations

import pytest

import ff_bench
from ff_bench import cli, plan
from ff_bench.compose import compose
from tests.conftest import FakeGenerate

WORDS = ["policy=h2o", "budget=256", "length=1s", "limit=2"]


def test_a_plan_counts_what_is_done_and_what_is_left(fake: FakeGenerate) -> None:
    config = compose(WORDS).config
    made = plan.make([config])
    assert len(made.left) == len(made.videos) == 2
    assert not made.videos[0].is_measured
    ff_bench.run(overrides=[*WORDS, "limit=1", "stages=[generate]"])
    made = plan.make([config, config])
    assert len(made.videos) == 2
    assert len(made.left) == 1
    assert made.left[0].is_measured
    assert made.left[0].seconds == pytest.approx(0.5)
    assert len(plan.make([compose([*WORDS, "overwrite=true"]).config]).left) == 2


def test_kv_bytes_are_the_budget_and_one_chunk() -> None:
    config = compose(WORDS).config
    video = plan.make([config]).videos[0]
    assert video.kv_bytes == config.facts.kv_bytes(6 * 64)
    assert plan.make([compose([*WORDS, "policy=h2o", "length=6s"]).config]).videos[
        0
    ].kv_bytes == config.facts.kv_bytes(256 + 192)
    assert plan.make([compose(["policy=full", "length=6s"]).config]).videos[
        0
    ].kv_bytes == config.facts.kv_bytes(24 * 64)


def test_a_record_of_latents_is_counted_as_latents(bare: None) -> None:
    config = compose(["model=self_forcing", "policy=native"]).config
    video = plan.make([config]).videos[0]
    assert video.disk_bytes == 243 * 16 * 60 * 104 * 2
    assert video.kv_bytes == 2 * 30 * 12 * 128 * 21 * 1560 * 2
    assert video.seconds > 3600
    assert "a GPU takes a small part" in plan.describe(plan.make([config]))


@pytest.mark.parametrize(
    "words", [[*WORDS, "--dry-run"], [*WORDS, "dry_run=true"], ["-m", "seed=0,1", *WORDS, "--dry-run"]]
)
def test_a_dry_run_prints_totals_and_writes_nothing(
    fake: FakeGenerate, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    for word in (
        "videos",
        "frames",
        "KV",
        "disk",
        "time",
        "constant of the model",
        "256 tokens = 4 latent frames",
    ):
        assert word in out
    assert fake.made == []


def test_a_dry_run_from_python_is_a_table(fake: FakeGenerate) -> None:
    rows = ff_bench.run(policy="h2o", budget="256", length="1s", limit=2, dry_run=True)
    assert list(rows["done"]) == ["no", "no"]


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (65, "1 min 05 s"), (3720, "1 h 02 min")])
def test_durations(seconds: float, text: str) -> None:
    assert plan.duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"), [(12, "12 B"), (2048, "2.0 KiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes(amount: int, text: str) -> None:
    assert plan.size(amount) == text
