"""What every policy must do, as a list of named properties: for the tests, and for policies of users.

A property is a function of a `Subject`; it returns, raises `Broken` with one sentence, or `NotApplicable`
with the reason. Nothing here knows a policy by name.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass

from policies.checking import conduct, likeness, sizes
from policies.checking.subject import Broken, NotApplicable, Subject

__all__ = [
    "FAILED", "NOT_APPLICABLE", "PASSED", "PROPERTIES", "Broken", "NotApplicable", "Property", "Result",
    "Subject", "examine", "told",
]  # fmt: skip

PASSED, FAILED, NOT_APPLICABLE = "passed", "failed", "not applicable"


@dataclass(frozen=True)
class Property:
    """One thing that every policy must do.

    Attributes:
        name: in words.
        check: raises where a policy does not.
    """

    name: str
    check: Callable[[Subject], None]

    @property
    def doc(self) -> str:
        """What it means, one sentence."""
        return (self.check.__doc__ or "").partition("\n")[0]


@dataclass(frozen=True)
class Result:
    """What an examination found.

    Attributes:
        name: of the property.
        status: passed, failed or not applicable.
        reason: why, where it did not pass.
    """

    name: str
    status: str
    reason: str = ""


PROPERTIES = (
    Property("says what it is", conduct.says_what_it_is),
    Property("runs", conduct.runs),
    Property("scores are numbers", conduct.scores_are_numbers),
    Property("budget of the video = full cache", sizes.full_at_a_large_budget),
    Property("holds its budget", sizes.holds_its_budget),
    Property("keeps slots in order", sizes.keeps_order),
    Property("protects sink and recent", sizes.protects_sink_and_recent),
    Property("whole frames, shared layers", sizes.keeps_frames_and_layers_whole),
    Property("keeps a prefix", sizes.keeps_a_prefix),
    Property("pays for its state", sizes.pays_for_its_state),
    Property("two runs are equal", likeness.repeats),
    Property("alone = in a batch", likeness.is_the_same_alone),
    Property("follows its heads", likeness.follows_heads),
    Property("moves slots whole", likeness.moves_slots_whole),
    Property("keys stand at their times", likeness.stands_at_its_times),
    Property("bfloat16 keeps the same", likeness.keeps_the_same_in_bf16),
    Property("survives equal keys", likeness.survives_equal_keys),
    Property("follows the protocol", likeness.follows_the_protocol),
    Property("leaves the cache alone", conduct.leaves_the_cache_alone),
    Property("leaves random numbers alone", conduct.leaves_random_numbers_alone),
)


def examine(subject: Subject, wanted: Property) -> Result:
    """Examine one property; whatever the policy raises becomes a sentence."""
    try:
        wanted.check(subject)
    except Broken as error:
        return Result(wanted.name, FAILED, str(error))
    except NotApplicable as error:
        return Result(wanted.name, NOT_APPLICABLE, str(error))
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # also SystemExit, which a policy could raise
        return Result(wanted.name, FAILED, f"raises {told(error)}")
    return Result(wanted.name, PASSED)


def told(error: BaseException) -> str:
    """Put an error into one line: its kind, its text, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""
    return " ".join(f"{type(error).__name__}: {error}".split()) + where
