"""`ff-bench check-policy NAME|FILE [policy.FIELD=...]`: does a policy do what every policy must?"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence

from ff_bench.errors import UsageError, shown


def run(words: Sequence[str]) -> int:
    """Examine one policy and print a line per property; the last line is JSON.

    Args:
        words: of the command line after `check-policy`.

    Returns:
        0 where no property failed, else 1.

    Raises:
        UsageError: for a policy that cannot be loaded, or a word that is not understood.
    """
    from ff_bench.challenge import examination

    name, fields = read("check-policy", words)
    began, counts = time.monotonic(), Counter[str]()
    failed = {}
    for result in examination.examine([f"policy={name}", *fields]):
        counts[result.status] += 1
        reason = f": {result.reason}" if result.reason else ""
        print(f"{result.name:<34}{result.status}{reason}", flush=True)
        if result.status == "failed":
            failed[result.name] = result.reason
    seconds = round(time.monotonic() - began, 1)
    print(
        f"\n{name}: {counts['passed']} passed, {counts['failed']} failed, {counts['not applicable']} not "
        f"applicable, in {seconds:g} s"
    )
    print(json.dumps({"policy": name, **counts, "reasons": failed, "seconds": seconds}))
    return 1 if failed else 0


def read(command: str, words: Sequence[str], own: Sequence[str] = ()) -> tuple[str, list[str]]:
    """Separate the policy from its fields.

    Args:
        command: name of the command, for sentences.
        words: of the command line; words of `own` settings are left out before.
        own: settings that the command has as well, for sentences.

    Returns:
        Name or path, and `policy.FIELD=...`.

    Raises:
        UsageError: where there is not exactly one policy, or another word.
    """
    names = [word.removeprefix("policy=") for word in words if "=" not in word or word.startswith("policy=")]
    fields = [word for word in words if word.startswith("policy.")]
    others = [word for word in words if "=" in word and not word.startswith(("policy.", "policy="))]
    flags = [name for name in names if name.startswith("-")]
    for word in [*flags, *others]:
        allowed = ", ".join(["NAME or FILE.py", "policy.FIELD=VALUE", *own])
        raise UsageError(f"{shown(word)} is not allowed: {command} takes {allowed}")
    if len(names) != 1:
        raise UsageError(
            f"{command} takes one policy, a name (ff-bench ls policies) or a .py file, not {len(names)}"
        )
    return names[0], fields
