"""Quantities as users write them: budgets (`8k`, `18f`, `2GiB`), lengths (`1m30s`, `240f`), slots (`1c`)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from ff_bench.errors import TooSmall, UsageError, nearest, out_of_range, shown
from ff_bench.models.facts import ModelFacts

BUDGET_WORDS = (
    "tokens (8192, 8k = 8192), latent frames (18f), a share of the video above 0 % and up to 100 % (25%), "
    "bytes (2GiB, 512MiB) or full"
)
TIME_WORDS = "seconds and minutes (20s, 1m30s)"
LENGTH_WORDS = "seconds and minutes (60s, 1m30s, up to 24 hours) or latent frames (240f)"
SLOT_WORDS = "tokens (192), latent frames (3f) or chunks (1c)"
BYTES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
LONGEST_SECONDS = 24 * 3600
MOST_TOKENS = 2**31 - 1
"""Tokens of a video: a cache counts them in 32 bits, and the last number stands for no token."""
LONGEST_TEXT = 64
"""Signs of a quantity: nobody means a number of more digits, and reading one can take long."""
ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"


@dataclass(frozen=True)
class Budget:
    """Context tokens that a layer holds per head between chunks.

    Attributes:
        asked: what the user wrote.
        tokens: tokens; None is the full cache.
    """

    asked: str
    tokens: int | None

    @property
    def is_full(self) -> bool:
        """Whether nothing is ever dropped."""
        return self.tokens is None


@dataclass(frozen=True)
class Length:
    """How long a video is.

    Attributes:
        asked: what the user wrote.
        latent_frames: frames generated, whole chunks.
        frames: decoded frames kept.
        seconds: duration of the kept frames.
    """

    asked: str
    latent_frames: int
    frames: int
    seconds: float


def parse_length(value: object, facts: ModelFacts) -> Length:
    """Read a length; seconds are rounded up to whole chunks and the decoded video is cut to seconds × fps.

    Raises:
        UsageError: for anything but a positive amount of seconds, minutes or latent frames.
    """
    asked = _text("length", value, LENGTH_WORDS)
    frames = re.fullmatch(r"(\d+)f", asked)
    if frames:
        latent = facts.whole_chunks(int(frames[1]))
        kept = facts.decoded_frames(latent) if int(frames[1]) else 0
    else:
        kept = math.floor(parse_seconds("length", value, allowed=LENGTH_WORDS) * facts.fps)
        latent = facts.whole_chunks(facts.needed_latents(kept))
    if kept < 1 or kept > LONGEST_SECONDS * facts.fps:
        raise out_of_range("length", value, LENGTH_WORDS)
    if latent * facts.frame_tokens > MOST_TOKENS:
        raise UsageError(
            f"length={asked} is not allowed: {latent} latent frames of {facts.frame_tokens} tokens are more "
            f"than can be counted, length must be at most {MOST_TOKENS // facts.frame_tokens}f"
        )
    return Length(asked=asked, latent_frames=latent, frames=kept, seconds=kept / facts.fps)


def parse_seconds(field: str, value: object, *, allowed: str = TIME_WORDS) -> Fraction:
    """Read a time: seconds, minutes, or both.

    Raises:
        UsageError: for anything else.
    """
    asked = _text(field, value, allowed)
    times = re.fullmatch(rf"(?:{_NUMBER}m)?(?:{_NUMBER}s)?", asked)
    if not times or not asked:
        raise out_of_range(field, value, allowed)
    return 60 * Fraction(times[1] or 0) + Fraction(times[2] or 0)


def parse_budget(
    value: object, facts: ModelFacts, *, latent_frames: int, element_bytes: int, field: str = "budget"
) -> Budget:
    """Read a budget and resolve it to tokens, floored; the whole video or more is the full cache.

    Args:
        value: what the user wrote.
        facts: sizes of the model.
        latent_frames: frames of the video.
        element_bytes: bytes of one number of keys and values.
        field: what the user calls it.

    Raises:
        UsageError: for an unknown unit, nothing, or a share outside (0, 100] %.
    """
    asked = _text(field, value, BUDGET_WORDS)
    if asked == "full":
        return Budget(asked=asked, tokens=None)
    match = re.fullmatch(rf"{_NUMBER}(k|K|f|%|KiB|MiB|GiB|TiB)?", asked)
    if not match:
        raise _unreadable(field, value, BUDGET_WORDS)
    amount, unit = Fraction(match[1]), match[2] or ""
    video = latent_frames * facts.frame_tokens
    if amount <= 0 or (unit == "%" and amount > 100) or (not unit and amount.denominator > 1):
        raise out_of_range(field, value, BUDGET_WORDS)
    tokens = math.floor(amount * _tokens_per_unit(unit, facts, video=video, element_bytes=element_bytes))
    return Budget(asked=asked, tokens=None if tokens >= video else tokens)


def parse_slots(field: str, value: object, facts: ModelFacts, *, budget: Budget) -> int:
    """Read a number of protected slots in tokens; a share (`50%`) is of the budget.

    Raises:
        UsageError: for anything else or a negative amount.
    """
    words = SLOT_WORDS + " or a share of the budget (50%)"
    asked = _text(field, value, words)
    match = re.fullmatch(rf"{_NUMBER}(c|f|%)?", asked)
    if not match:
        raise out_of_range(field, value, words)
    amount, unit = Fraction(match[1]), match[2] or ""
    if unit == "%":
        if amount > 100:
            raise out_of_range(field, value, words)
        return math.floor(amount * (budget.tokens or 0) / 100)
    if amount.denominator > 1:
        raise out_of_range(field, value, words)
    return int(amount) * {"c": facts.chunk_tokens, "f": facts.frame_tokens, "": 1}[unit]


def check_budget(budget: Budget, facts: ModelFacts, *, policy: str, sink: int, recent: int) -> None:
    """Refuse a budget that leaves a policy no room for one latent frame beside sink and recent.

    Raises:
        TooSmall: with the smallest budget that would do.
    """
    smallest = sink + recent + facts.frame_tokens
    if budget.tokens is not None and budget.tokens < smallest:
        raise TooSmall(
            f"budget={budget.asked} is {budget.tokens} tokens, policy={policy} needs at least {smallest}: "
            f"sink {sink} + recent {recent} + one latent frame of {facts.frame_tokens}",
            budget.asked,
        )


def describe_budget(budget: Budget, facts: ModelFacts, latent_frames: int) -> str:
    """Show a budget as tokens, frames, share of the video and of the training window."""
    if budget.tokens is None:
        return "full"
    frames = budget.tokens / facts.frame_tokens
    return (
        f"{budget.tokens} tokens = {frames:g} latent frames = {frames / latent_frames:.1%} of the video "
        f"= {frames / facts.window_frames:.1%} of the training window"
    )


def _tokens_per_unit(unit: str, facts: ModelFacts, *, video: int, element_bytes: int) -> Fraction:
    if unit in BYTES:
        return Fraction(BYTES[unit], facts.kv_bytes(1, element_bytes=element_bytes))
    return {"": Fraction(1), "f": Fraction(facts.frame_tokens), "%": Fraction(video, 100)}.get(
        unit, Fraction(1024)
    )


def _text(field: str, value: object, allowed: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise out_of_range(field, value, allowed)
    whole = isinstance(value, float) and value.is_integer()
    text = str(int(value) if whole else value).strip()
    if len(text) > LONGEST_TEXT or not text.isascii():
        raise out_of_range(field, value, allowed)
    return text


def _unreadable(field: str, value: object, allowed: str) -> UsageError:
    number = re.match(rf"{_NUMBER}", str(value))
    tail = str(value)[number.end() :] if number else str(value)
    near = nearest(tail, ["k", "f", "%", *BYTES]) if number else nearest(tail, ["full"])
    hint = f"; did you mean '{number[0] if number else ''}{near}'?" if near else ""
    return UsageError(f"{field}={shown(value)} is not allowed: {field} must be {allowed}{hint}")
