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


def test_more_than_the_training_window_of_a_model_of_text_is_told(bare: None) -> None:
    words = ["model=self_forcing", "limit=null"]
    told = _remarks(*words, "policy=full", "length=30s")
    assert len(told) == 1
    assert "budget=full of 30s is 123 latent frames, 32.9 GiB" in told[0]
    assert "self_forcing was trained on 21" in told[0]
    assert _remarks(*words, "policy=h2o", "budget=21f") == []
    assert "is 22 latent frames" in _remarks(*words, "policy=h2o", "budget=22f")[0]
    assert len(_remarks(*words, "policy=native")) == 1


def test_a_video_inside_its_prefix_is_told(weights: None) -> None:
    told = _remarks("limit=null", "budget=1k", "length=6s")
    assert len(told) == 1
    assert "32 of 32 prompts" in told[0]
    assert _remarks("limit=null", "budget=1k", "length=6s", "protocol.prefix=none") == []
