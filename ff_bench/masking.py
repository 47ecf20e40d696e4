"""Secrets out of what is written down: manifests, rows, reports, logs and the command told after Ctrl-C."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

MASK = "***"
SHORTEST = 8
"""Signs of a secret of the environment; a shorter value is as likely a word of everyday."""
_SECRET = re.compile(
    r"(?:^|[._-])(?:api[._-]?key|access[._-]?key|key|token|auth|secret|password|passwd|credentials?)$",
    re.IGNORECASE,
)
_SETTING = re.compile(r"(?P<key>[^=\s]+)=(?P<value>.+)", re.DOTALL)
_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{0,20}://)[^/\s@]+@", re.IGNORECASE)
_BEARER = re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{16,})")


def words(given: Sequence[str]) -> list[str]:
    """Return the words of a command line with the values of secret settings masked.

    A setting is secret by its name (`tracker.api_key=...`, `--token ...`), a word by the secrets of the
    environment (`WANDB_API_KEY`, `HF_TOKEN`) that it holds.
    """
    masked = []
    hides_next = False
    for word in given:
        found = _SETTING.fullmatch(word)
        if hides_next and not word.startswith("-"):
            masked.append(MASK)
        elif found and _SECRET.search(found["key"].lstrip("+~-")):
            masked.append(f"{found['key']}={MASK}")
        else:
            masked.append(text(word))
        hides_next = word.startswith("--") and not found and bool(_SECRET.search(word.lstrip("-")))
    return masked


def text(told: str) -> str:
    """Return a text without the secrets of the environment, well-known tokens, and passwords in addresses."""
    for secret in _secrets():
        told = told.replace(secret, MASK)
    return _BEARER.sub(MASK, _ADDRESS.sub(rf"\g<scheme>{MASK}@", told))


def _secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        if len(value) >= SHORTEST and _SECRET.search(name):
            yield value
