"""Checks of settings that trackers have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ff_bench.checks import text
from ff_bench.errors import out_of_range

GROUP_SIGNS = "letters, digits and ._+=-"


def check_common(settings: Mapping[str, Any]) -> None:
    """Check group, tags, baseline and the time to wait.

    Raises:
        UsageError: Which is wrong and what is allowed.
    """
    group = settings["group"]
    if group is not None:
        name = text("tracker.group", group)
        if not all(sign.isalnum() or sign in "._+=-" for sign in name) or name.startswith("."):
            raise out_of_range("tracker.group", group, f"null or a name of {GROUP_SIGNS}")
    tags = settings["tags"]
    if not isinstance(tags, list | tuple):
        raise out_of_range("tracker.tags", tags, "a list of words")
    for tag in tags:
        if len(text("tracker.tags", tag)) > 64:
            raise out_of_range("tracker.tags", tag, "a list of words of at most 64 letters")
    text("tracker.baseline", settings["baseline"])
    wait = settings["wait"]
    if not isinstance(wait, int) or isinstance(wait, bool) or not 1 <= wait <= 3600:
        raise out_of_range("tracker.wait", wait, "whole seconds from 1 to 3600")
