"""Prompts that were encoded before: a folder of small files, so that the text encoder loads once per prompt.

A prompt is named by its cleaned text, the digests of encoder and tokenizer, the number of tokens and the
number format. Where the encoder is not here, prompts that one encoder alone has encoded are found without it.
"""

from __future__ import annotations

import hashlib
import html
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ff_bench.errors import UsageError
from ff_bench.files import canonical, lock, temporary
from ff_bench.models.wan.files import ABSENT, cache_folder, digest_of, joined, library

if TYPE_CHECKING:
    from torch import Tensor

    from ff_bench.models.wan.member import Member

LOGGER = logging.getLogger(__name__)
ROWS = "embedding"


def cleaned(prompt: str) -> str:
    """Mend broken characters, resolve HTML entities twice and collapse white space.

    Source: Wan-Video/Wan2.1 wan/modules/tokenizers.py, the mode `whitespace`.

    Raises:
        UsageError: where the library ftfy is missing.
    """
    ftfy = library("ftfy", purpose="prompts of this model need")
    text = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", text).strip()


def encoder_sha256(member: Member) -> str:
    """Digest the text encoder and its tokenizer together, or say `absent` where one is not here."""
    return joined([digest_of(member.text_encoder), digest_of(member.tokenizer)])


def home() -> Path:
    """Where prompts are remembered."""
    return cache_folder() / "prompts"


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no other process encodes prompts, so that one encoder is in memory at a time."""
    with ExitStack() as held:
        with suppress(OSError):  # a home that cannot be written costs memory, not the run
            held.enter_context(lock(home(), wait=True))
        yield


def entry(prompt: str, encoder: str, *, tokens: int, dtype: str) -> Path | None:
    """Name the file of a prompt.

    Args:
        prompt: as the user wrote it.
        encoder: from `encoder_sha256`.
        tokens: tokens of a prompt, padding included.
        dtype: number format, such as `bfloat16`.

    Returns:
        Its path, whether it exists or not; under `absent` the path that exists, None where there is none.

    Raises:
        UsageError: under `absent`, where several encoders have encoded this prompt.
    """
    text = canonical({"prompt": cleaned(prompt), "tokens": tokens, "dtype": dtype})
    folder = home() / hashlib.sha256(text.encode()).hexdigest()[:32]
    if encoder != ABSENT:
        return folder / f"{encoder}.safetensors"
    found = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("."))
    if len(found) > 1:
        raise UsageError(
            f"the prompt '{prompt[:60]}' is remembered from {len(found)} text encoders and none of them is "
            f"here to tell which counts: name one with model.text_encoder.path, or remove {folder}"
        )
    return found[0] if found else None


def missing(prompts: Iterable[str], member: Member, *, dtype: str) -> list[str]:
    """Return the prompts that the text encoder must still encode; no torch is imported."""
    encoder = encoder_sha256(member)
    paths = ((prompt, entry(prompt, encoder, tokens=member.text_tokens, dtype=dtype)) for prompt in prompts)
    return [prompt for prompt, path in paths if path is None or not path.is_file()]


def read(path: Path) -> Tensor | None:
    """Read the rows (tokens of the prompt, width), or None where the file is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())[ROWS]
    except (OSError, SafetensorError, KeyError):
        return None


def write(path: Path, rows: Tensor) -> None:
    """Write the rows of a prompt by temporary name and rename; where that fails, it is encoded again."""
    from safetensors.torch import save

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary(path) as part:
            part.write_bytes(save({ROWS: rows.detach().cpu().contiguous()}))
    except OSError as error:
        LOGGER.warning("a prompt is not remembered: %s", error)
