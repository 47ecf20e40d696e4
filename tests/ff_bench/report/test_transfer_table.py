"""Findings published on real backbones: the file that lists them, and the table that judges them."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from ff_bench import metrics
from ff_bench.models.facts import facts
from ff_bench.models.mini.prompt import WORLDS
from ff_bench.models.mini.recipe import RECIPES

ROOT = Path(__file__).parents[3]
CLAIM = {
    "id": "one", "finding": "A beats B", "source": "somewhere", "backbone": "", "published_metric": "score",
    "published_better": "2", "published_worse": "1", "better": "h2o", "worse": "random",
    "better_budget": "1024", "worse_budget": "1024", "worlds": "orbit;pendulum", "latent_frames": "240",
    "metric": "world.scene_consistency", "direction": "higher", "only": "", "not_testable": "",
}  # fmt: skip

EQUAL = {"passes": "clean", "denominator": "all", "unit": "token", "share": "head"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("transfer_table", ROOT / "scripts" / "transfer_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def claims() -> list[dict[str, str]]:
    with (ROOT / "docs" / "data" / "transfer_claims.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rows(policy: str, value: float, **changes: object) -> pd.DataFrame:
    """Rows of one policy over eight prompts of `orbit`."""
    row = {
        "model": "mini", "policy": policy, "policy_fields": "{}", "budget_tokens": 1024.0, "pinned": "",
        "protocol_fields": json.dumps(EQUAL | {"position": "absolute"}), "prompt_set": "orbit", "seed": 0,
        "metric": "world.scene_consistency", "clip": -1, "status": "ok", "latent_frames": 240,
    }  # fmt: skip
    made = [
        {**row, "prompt_id": f"p{number}", "value": value + 0.01 * (number % 3), **changes}
        for number in range(8)
    ]
    return pd.DataFrame(made)


def test_findings_are_enough_and_testable_as_written(
    script: ModuleType, claims: list[dict[str, str]]
) -> None:
    assert len({claim["id"] for claim in claims}) == len(claims) >= 12
    assert sum(not claim["not_testable"] for claim in claims) >= 10
    for claim in claims:
        assert claim.keys() == CLAIM.keys()
        assert claim["finding"]
        assert claim["source"]
        assert set(claim["only"].split(";")) - {""} <= set(RECIPES)
        if claim["not_testable"] and not claim["only"]:
            assert not claim["better"]
            continue
        assert set(claim["worlds"].split(";")) <= set(WORLDS)
        assert metrics.measure(claim["metric"]) is not None, claim["metric"]
        assert claim["direction"] in ("higher", "lower")
        assert claim["latent_frames"] in ("240", "window")
        for name in ("better", "worse"):
            side = script.Side.parse(claim[name], claim[f"{name}_budget"])
            tokens = side.tokens(facts("mini_short"))
            assert tokens is None or tokens % facts("mini_short").frame_tokens == 0


def test_a_policy_that_there_is_not_is_not_testable(script: ModuleType) -> None:
    verdict = script.judge(CLAIM | {"worse": "nobodys"}, rows("h2o", 0.9), "mini")
    assert (verdict.word, verdict.reason) == ("not testable", "nobodys is not in this package")


@pytest.mark.parametrize(
    ("direction", "value", "word"),
    [
        ("higher", 0.9, "reproduced"),
        ("higher", 0.1, "contradicted"),
        ("lower", 0.9, "contradicted"),
        ("lower", 0.1, "reproduced"),
        ("higher", 0.5, "not distinguishable"),
    ],
)
def test_the_interval_decides(script: ModuleType, direction: str, value: float, word: str) -> None:
    table = pd.concat([rows("h2o", value), rows("random", 0.5)])
    verdict = script.judge(CLAIM | {"direction": direction}, table, "mini")
    assert verdict.word == word
    assert verdict.found.pairs == 8
    assert verdict.found.mean == pytest.approx(value - 0.5)


def test_what_was_made_otherwise_does_not_count(script: ModuleType) -> None:
    layer = json.dumps(EQUAL | {"share": "layer", "position": "absolute"})
    others = [
        rows("h2o", 0.1, budget_tokens=2048.0), rows("h2o", 0.1, latent_frames=60),
        rows("h2o", 0.1, protocol_fields=layer), rows("h2o", 0.1, prompt_set="cut"),
        rows("h2o", 0.1, status="failed"), rows("h2o", 0.1, clip=0), rows("h2o", 0.1, metric="world.memory"),
    ]  # fmt: skip
    table = pd.concat([rows("h2o", 0.9), rows("random", 0.5), *others])
    assert script.judge(CLAIM, table, "mini").found.mean == pytest.approx(0.4)
    without = script.judge(CLAIM, pd.concat([rows("random", 0.5), *others]), "mini")
    assert (without.word, without.reason) == ("no rows", "no rows of h2o")


def test_fields_and_positions_are_those_asked_for_or_the_defaults(script: ModuleType) -> None:
    clamped = json.dumps(EQUAL | {"position": "clamped"})
    discarding = rows("future_forcing", 0.2, policy_fields=json.dumps({"merge": "none"}))
    table = pd.concat(
        [
            rows("future_forcing", 0.5, policy_fields=json.dumps({"merge": "value"})),
            discarding,
            rows("h2o", 0.9),
            rows("h2o", 0.4, protocol_fields=clamped),
        ]
    )
    asked = {"better": "h2o@position=clamped", "worse": "future_forcing:merge=none"}
    assert script.judge(CLAIM | asked, table, "mini").found.mean == pytest.approx(0.2)
    assert script.judge(CLAIM | {"worse": "future_forcing"}, table, "mini").found.mean == pytest.approx(0.4)


def test_two_videos_of_a_pair_are_refused(script: ModuleType) -> None:
    table = pd.concat([rows("h2o", 0.9), rows("h2o", 0.8), rows("random", 0.5)])
    with pytest.raises(SystemExit, match="one: two videos of p0, seed 0, fit policy h2o"):
        script.judge(CLAIM, table, "mini")


def test_a_finding_may_be_testable_on_one_checkpoint_only(script: ModuleType) -> None:
    claim = CLAIM | {"only": "mini_short", "not_testable": "because"}
    assert script.judge(claim, rows("h2o", 0.9), "mini").word == "not testable"
    assert script.judge(claim, rows("h2o", 0.9), "mini_short").word == "no rows"


def test_shares_of_the_window_are_whole_frames(script: ModuleType) -> None:
    for budget, model, frames in (("6/21", "mini_short", 6), ("6/21", "mini", 17), ("9/21", "mini", 26)):
        assert script.Side.parse("h2o", budget).tokens(facts(model)) == 64 * frames


def test_the_table_says_what_it_is_no_evidence_of(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pd.concat([rows("h2o", 0.9), rows("random", 0.5)]).to_csv(tmp_path / "rows.csv", index=False)
    with (tmp_path / "claims.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, CLAIM)
        writer.writeheader()
        writer.writerow(CLAIM)
    told = ["transfer_table", str(tmp_path / "rows.csv"), "--claims", str(tmp_path / "claims.csv")]
    monkeypatch.setattr(sys, "argv", told)
    monkeypatch.setattr(script.records, "read_table", pd.read_csv)
    script.main()
    first, *_, row, last = capsys.readouterr().out.splitlines()
    assert first == script.TOY
    assert "reproduced +0.4" in row
    assert json.loads(last)["counts"] == {"mini": {"reproduced": 1}}
