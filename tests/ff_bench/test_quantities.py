from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff_bench.errors import UsageError
from ff_bench.models.facts import ModelFacts, facts
from ff_bench.quantities import (
    Budget,
    check_budget,
    parse_budget,
    parse_length,
    parse_seconds,
    parse_slots,
)

MINI = facts("mini")
TEXT = facts("self_forcing")
FRAMEWISE = facts("causal_forcing_framewise")
FULL = Budget("full", None)


def _tokens(value: object, *, latent_frames: int = 240) -> int | None:
    return parse_budget(value, MINI, latent_frames=latent_frames, element_bytes=4).tokens


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        ("8k", 8192),
        ("8K", 8192),
        (8192, 8192),
        ("8192", 8192),
        (8192.0, 8192),
        ("1.5k", 1536),
        ("18f", 18 * 64),
        ("0.5f", 32),
        ("25%", 3840),
        ("33.3%", 5114),
        ("1MiB", 85),
        ("96MiB", 8192),
        ("full", None),
        ("100%", None),
        ("15k", None),
        (15359, 15359),
        (15360, None),
        ("2GiB", None),
    ],
)
def test_budgets(value: object, tokens: int | None) -> None:
    assert _tokens(value) == tokens


def test_bytes_are_keys_and_values_of_one_video_over_all_layers() -> None:
    tokens = _tokens("96MiB")
    assert tokens is not None
    assert MINI.kv_bytes(tokens, element_bytes=4) == 96 << 20


@pytest.mark.parametrize(
    ("value", "latent_frames", "frames", "seconds"),
    [
        ("60s", 240, 960, 60),
        ("1m", 240, 960, 60),
        ("1m30s", 360, 1440, 90),
        ("240f", 240, 960, 60),
        ("241f", 243, 972, 60.75),
        ("23s", 93, 368, 23),
        ("0.5s", 3, 8, 0.5),
        ("1f", 3, 12, 0.75),
        ("1.53s", 6, 24, 1.5),
        ("1440m", 345600, 1382400, 86400),
    ],
)
def test_lengths(value: str, latent_frames: int, frames: int, seconds: float) -> None:
    length = parse_length(value, MINI)
    assert (length.latent_frames, length.frames, length.seconds) == (latent_frames, frames, seconds)


@pytest.mark.parametrize(
    ("value", "model", "latent_frames", "frames", "seconds"),
    [
        ("60s", TEXT, 243, 960, 60),
        ("5s", TEXT, 21, 80, 5),
        ("81f", TEXT, 81, 321, 321 / 16),
        ("21f", TEXT, 21, 81, 81 / 16),
        ("1f", TEXT, 3, 9, 9 / 16),
        ("0.0625s", TEXT, 3, 1, 1 / 16),
        ("60s", FRAMEWISE, 241, 960, 60),
        ("1f", FRAMEWISE, 1, 1, 1 / 16),
        ("0.0625s", replace(TEXT, first_chunk_frames=1), 1, 1, 1 / 16),
        ("0.125s", replace(TEXT, first_chunk_frames=1), 4, 2, 1 / 8),
        ("240f", replace(TEXT, first_chunk_frames=1), 241, 961, 961 / 16),
    ],
)
def test_lengths_of_a_decoder_whose_first_latent_frame_is_one_picture(
    value: str, model: ModelFacts, latent_frames: int, frames: int, seconds: float
) -> None:
    length = parse_length(value, model)
    assert (length.latent_frames, length.frames, length.seconds) == (latent_frames, frames, seconds)
    assert sum(model.chunks(latent_frames)) == latent_frames
    assert model.decoded_frames(latent_frames) >= frames


@pytest.mark.parametrize(("value", "seconds"), [("20s", 20), ("1m", 60), ("1m30s", 90), ("0.5s", 0.5)])
def test_times(value: str, seconds: float) -> None:
    assert parse_seconds("switch", value) == seconds


@pytest.mark.parametrize("value", ["", "20", 20, "s", "1h", "-1s", None, [], True])
def test_no_times(value: object) -> None:
    with pytest.raises(UsageError, match="switch"):
        parse_seconds("switch", value)


@pytest.mark.parametrize(
    ("value", "tokens"), [("0", 0), (0, 0), ("1c", 192), ("3f", 192), ("192", 192), (64, 64), ("50%", 512)]
)
def test_slots(value: object, tokens: int) -> None:
    assert parse_slots("protocol.recent", value, MINI, budget=Budget("1k", 1024)) == tokens


def test_the_smallest_budget_is_sink_recent_and_one_frame() -> None:
    check_budget(Budget("256", 256), MINI, policy="h2o", sink=0, recent=192)
    check_budget(FULL, MINI, policy="h2o", sink=10**9, recent=0)
    with pytest.raises(UsageError, match="at least 256"):
        check_budget(Budget("255", 255), MINI, policy="h2o", sink=0, recent=192)


@given(st.text(max_size=12))
def test_any_text_gives_a_quantity_or_a_sentence(text: str) -> None:
    for parse in (
        lambda: parse_length(text, MINI),
        lambda: _tokens(text),
        lambda: parse_slots("protocol.sink", text, MINI, budget=FULL),
    ):
        try:
            parse()
        except UsageError as error:
            assert "\n" not in str(error)


@given(st.integers(1, 10**6))
def test_a_budget_is_never_above_what_was_asked(tokens: int) -> None:
    resolved = _tokens(tokens)
    assert resolved == (tokens if tokens < 240 * 64 else None)
