"""Which lines of a comparison are drawn together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ff_bench.report.plots import budgets_of, lines_at


def table(*lines: tuple[str, int | None]) -> Any:
    found = [SimpleNamespace(policy=policy, budget_tokens=tokens) for policy, tokens in lines]
    return SimpleNamespace(lines=found)


def test_the_released_rule_stands_beside_every_budget() -> None:
    mixed = table(("full", None), ("h2o", 9), ("h2o", 18), ("native", 12))
    assert budgets_of(mixed) == [9, 18]
    for budget in (9, 18):
        drawn = [(line.policy, line.budget_tokens) for line in lines_at(mixed, budget)]
        assert drawn == [("full", None), ("h2o", budget), ("native", 12)]


def test_the_released_rule_alone_has_its_own_budget() -> None:
    assert budgets_of(table(("full", None), ("native", 12))) == [12]
