"""Odd values: text, bytes and numbers as people and broken programs write them, drawn from a generator."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

NUMBERS = (
    "0", "-0", "1", "-1", "1.5", ".5", "5.", "1e3", "1e309", "nan", "inf", "-inf", "0x10", "1_000", "007",
    "9" * 30, "9" * 5000, "1/2", "½", "٣", "１２", "²", "1,5", "2**63", "9223372036854775808", "4294967296",
)  # fmt: skip
UNITS = (
    "", "k", "K", "f", "c", "s", "m", "h", "%", "KiB", "MiB", "GiB", "TiB", "GB", "ks", "m1s", "ff", "%%",
    " f", "\n", "\0", "s1m", "e9s",
)  # fmt: skip
WORDS = (
    "", " ", "null", "None", "true", "false", "full", "auto", "???", "[]", "{}", "[1,2", "{a:1}", "''", '""',
    "'", '"', "\\", "${seed}", "${nothing}", "${oc.env:HOME}", "${now:%Y}", "${", "$", "~", "++", "--", "@",
    "../../etc/passwd", "/etc/passwd", "..", "/", "//", "~root", "~nobody/x", "a/b", "a\\b", "CON", ".hidden",
    "\x00", "\x1b[31m", "\r\n", "\t", "\u202eabc", "\ufeff", "\ud800", "😀", "é" * 40, "x" * 300,
    "x" * 5000, "<script>alert(1)</script>", "$(touch hacked)", "`touch hacked`", "; touch hacked", "%s%n",
    "{0}",
    "a,b", "range(1,3)", "choice(1,2)", "glob(*)", "interval(0,1)", "sort(3,1)", "shuffle(1,2)", "int(x)",
    "str(1)", "[[[[[[1]]]]]]", "{a:{b:{c:1}}}", "!!python/object/apply:os.system ['touch hacked']",
)  # fmt: skip
SIGNS = "abcxyzABC0123456789 .,:;=-+*/\\'\"`~!@#$%^&()[]{}<>|?_\t\n\r\x00\x1béß漢😀\ud800\ufeff\u202e"
BLOCKS = (
    b"",
    b"\0",
    b"\0" * 64,
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\r",
    b"\x80",
    b"\xff" * 16,
    b"{",
    b'"',
)


def text(draw: random.Random) -> str:
    """Return a text: a known odd one, a number with a unit, or signs by chance."""
    kind = draw.randrange(4)
    if kind == 0:
        return draw.choice(WORDS)
    if kind == 1:
        return draw.choice(NUMBERS) + draw.choice(UNITS)
    if kind == 2:
        return "".join(draw.choices(SIGNS, k=draw.randrange(1, 24)))
    return draw.choice(WORDS) + draw.choice(NUMBERS) + draw.choice(WORDS)


def value(draw: random.Random, depth: int = 0) -> object:
    """Return a plain value as YAML or JSON could hold it, nested at most three deep."""
    kind = draw.randrange(8 if depth < 3 else 6)
    if kind < 3:
        return text(draw)
    if kind == 3:
        return draw.choice((None, True, False))
    if kind == 4:
        return draw.choice((0, -1, 1, 2**31, 2**63, -(2**70), 10**400))
    if kind == 5:
        return draw.choice((0.0, -0.0, 1.5, 1e308, float("inf"), float("-inf"), float("nan")))
    items = [value(draw, depth + 1) for _ in range(draw.randrange(4))]
    return items if kind == 6 else {text(draw)[:20]: item for item in items}


def damaged(draw: random.Random, content: bytes) -> bytes:
    """Return bytes that were cut, changed, doubled or mixed with others."""
    changed = bytearray(content)
    for _ in range(draw.randrange(1, 4)):
        place = draw.randrange(len(changed) + 1)
        kind = draw.randrange(5)
        if kind == 0:
            del changed[place:]
        elif kind == 1:
            del changed[place : place + draw.randrange(1, 40)]
        elif kind == 2 and place < len(changed):
            changed[place] ^= 1 << draw.randrange(8)
        elif kind == 3:
            changed[place:place] = draw.choice(BLOCKS)
        else:
            changed[place:place] = changed[draw.randrange(len(changed) + 1) :][: draw.randrange(64)]
    return bytes(changed)


def encoded(draw: random.Random, content: str) -> bytes:
    """Return text in some encoding, with some line endings, sometimes behind a mark of its order of bytes."""
    content = content.replace("\n", draw.choice(("\n", "\n", "\r\n", "\r", "\n\r", "\n\n")))
    coding = draw.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252", "utf-32"))
    return content.encode(coding, errors="surrogatepass" if coding.startswith("utf") else "replace")


def changed(draw: random.Random, tree: object, *, share: float = 0.2) -> object:
    """Return a copy of a plain tree in which values are odd, keys missing, and keys new."""
    if draw.random() < share / 3:
        return value(draw)
    if isinstance(tree, dict):
        kept = {
            key: value(draw) if draw.random() < share else changed(draw, item, share=share / 2)
            for key, item in tree.items()
            if draw.random() > share / 4
        }
        return {**kept, text(draw): value(draw)} if draw.random() < share / 2 else kept
    if isinstance(tree, list):
        return [changed(draw, item, share=share / 2) for item in tree]
    return tree


def json_line(draw: random.Random, tree: object) -> str:
    """Return a tree as JSON; numbers that JSON does not know are written as Python does."""
    return json.dumps(tree, ensure_ascii=draw.random() < 0.5)


def some(draw: random.Random, items: Sequence[str]) -> str:
    """Return a word of a list, or one that is nearly so."""
    word = draw.choice(items)
    if draw.random() < 0.7 or not word:
        return word
    place = draw.randrange(len(word))
    return word[:place] + draw.choice(SIGNS) + word[place + draw.randrange(2) :]
