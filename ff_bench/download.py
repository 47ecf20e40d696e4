"""Download of one file over https that goes on where it stopped; the standard library only."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from ssl import SSLError
from typing import IO, Protocol
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ff_bench import __version__

BLOCK = 1 << 20
TIMEOUT = 60.0
"""Bytes read at a time; seconds without a byte after which a connection is given up."""
ATTEMPTS = 20
SECURE = "https://"

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here and the bytes of the whole, None where the server does not say."""


class Failed(RuntimeError):
    """A file cannot be had; the text says why."""


class Answer(Protocol):
    """What a server sends."""

    status: int
    headers: Message

    def read(self, amount: int, /) -> bytes:
        """Return the next bytes, none at the end."""


Opener = Callable[[Request], AbstractContextManager[Answer]]


class SecureRedirects(HTTPRedirectHandler):
    """Follows redirections to https only."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        """Refuse an address without encryption."""
        if not newurl.startswith(SECURE):
            raise Failed(f"it leads to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def over_https(request: Request) -> AbstractContextManager[Answer]:
    """Open an address, by the proxies that the environment names."""
    answer: AbstractContextManager[Answer] = build_opener(SecureRedirects).open(request, timeout=TIMEOUT)
    return answer


def download(
    url: str, part: Path, *, size: int | None, opener: Opener = over_https, progress: Progress
) -> None:
    """Get a file; what an earlier attempt left in `part` is not got again where the server allows ranges.

    Args:
        url: address, https only.
        part: file that grows; it stays where the connection ends early.
        size: bytes of the whole, None where unknown.
        opener: opens an address.
        progress: is told how far it is.

    Raises:
        Failed: why the file cannot be had.
    """
    if not url.startswith(SECURE):
        raise Failed("its address is not https")
    reason = ""
    for _ in range(ATTEMPTS):
        before = _size(part)
        try:
            if _get_more(url, part, size=size, opener=opener, progress=progress):
                return
            reason = "the connection ended early"
        except HTTPError as error:
            error.close()
            if error.code != 416 or not before:
                raise Failed(f"the server answers {error.code} {error.reason}") from None
            if error.headers.get("Content-Range", "") == f"bytes */{before}":
                return
            part.unlink()  # the server has no such range: what is here belongs to another file
            continue
        except (URLError, HTTPException, ConnectionError, TimeoutError, SSLError) as error:
            reason = f"no connection ({getattr(error, 'reason', None) or error or type(error).__name__})"
        if _size(part) == before:
            break
    raise Failed(reason)


def _get_more(url: str, part: Path, *, size: int | None, opener: Opener, progress: Progress) -> bool:
    """Read until the server ends; say whether the file is whole."""
    start = _size(part)
    if size is not None and start == size:
        return True
    headers = {"User-Agent": f"ff-bench/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with opener(Request(url, headers=headers)) as answer:
        if answer.status != 206:
            start = 0
        whole = _whole(answer, start)
        _check(answer, whole, size)
        progress(start, whole)
        with part.open("ab" if start else "wb") as stream:
            while block := answer.read(BLOCK):
                stream.write(block)
                start += len(block)
                progress(start, whole)
    return start == (size if size is not None else whole) or (size is None and whole is None)


def _whole(answer: Answer, start: int) -> int | None:
    """Return the bytes of the whole file as the server says them."""
    if answer.status == 206:
        said = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if said is None or int(said[1]) != start:
            raise Failed("the server sends another range than was asked for")
        return None if said[2] == "*" else int(said[2])
    length = answer.headers.get("Content-Length")
    return int(length) if length else None


def _check(answer: Answer, whole: int | None, size: int | None) -> None:
    """Refuse before gigabytes are got what cannot be the file."""
    if answer.headers.get_content_type() == "text/html":
        raise Failed("the server sends a web page, not a file")
    if size is not None and whole is not None and whole != size:
        raise Failed(f"the server has {whole} bytes instead of {size}")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
