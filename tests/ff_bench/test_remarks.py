from __future__ import annotations

from ff_bench import compose
from ff_bench.remarks import remarks


def _remarks(*words: str) -> list[str]:
    return remarks([compose.compose(list(words)).config])


def test_a_complete_run_needs_no_remark(weights: None) -> None:
    assert _remarks("limit=null", "budget=1k", "length=60s") == []


def test_unused_prompts_are_counted(weights: None) -> None:
    assert _remarks("limit=3", "budget=1k") == ["used 3 of 32 prompts of orbit; limit=null uses all"]


def test_a_budget_that_never_binds_is_told(weights: None) -> None:
    assert "holds the whole video of 6s" in _remarks("limit=null", "budget=8k", "length=6s")[0]
    assert _remarks("limit=null", "policy=full", "length=6s") == []


def test_a_video_inside_its_prefix_is_told(weights: None) -> None:
    told = _remarks("limit=null", "budget=1k", "length=6s")
    assert len(told) == 1
    assert "32 of 32 prompts" in told[0]
    assert _remarks("limit=null", "budget=1k", "length=6s", "protocol.prefix=none") == []
