"""What pages of a report are made of: templates that escape, the only scripts that may run, data inside."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

_KINDS = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm"}


def render(name: str, values: Mapping[str, object], *, scripts: Sequence[str]) -> str:
    """Fill a template of this folder.

    Every text is escaped. The browser is told to run the given scripts alone, known by their digest, and to
    ask no server for anything: what slips through the escaping does not run.

    Args:
        name: Template without its ending; `base.css` and `name.css` are its styles.
        values: What the template shows.
        scripts: Files that run, in order, as one script.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = '\n"use strict";\n' + "".join(_source(script) for script in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; media-src data: file: 'self'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    style = Markup(_source("base.css") + _source(f"{name}.css"))
    template = environment.from_string(_source(f"{name}.html"))
    return template.render(content_policy=policy, style=style, script=Markup(script), **values)


@lru_cache(maxsize=16)
def _source(name: str) -> str:
    return files("ff_bench.report").joinpath(name).read_text(encoding="utf-8")


def data(content: bytes, kind: str) -> str:
    """Return an address that holds the content itself.

    Args:
        content: Of a file.
        kind: Its media type.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def video_data(path: Path) -> str:
    """Return an address that holds a video file."""
    return data(path.read_bytes(), _KINDS.get(path.suffix.lower(), "video/mp4"))


def link(path: Path, out: Path) -> str:
    """Return the address of a file relative to the folder of a page."""
    return quote(Path(os.path.relpath(path, out)).as_posix())
