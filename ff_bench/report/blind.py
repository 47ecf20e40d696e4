"""The blind page: two videos side by side, which is better? Methods are hidden, sides drawn by lot."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import av

from ff_bench import files, video_kinds
from ff_bench.errors import UsageError
from ff_bench.report import trials, web
from ff_bench.report.comparison import Table
from ff_bench.report.trials import Key
from ff_bench.report.videos import Shown

PAGE, FOLDER = "blind.html", "blind"
EMBED_TOTAL = 24 * 2**20
"""Up to this size all videos stand in the page itself; else all lie in a folder beside it."""


def write_blind(out: Path, tables: Sequence[Table], *, shown: Mapping[str, Shown], most: int) -> list[Path]:
    """Write the blind page, its videos under neutral names where they are large, and the key.

    Neither the page nor the files beside it tell which policy made which video; the key does, and is written
    last but for the page.

    Args:
        out: Folder of the report.
        tables: The comparisons.
        shown: Finished videos by id.
        most: Trials at most.

    Returns:
        The page and the key.

    Raises:
        UsageError: Where no two videos can be compared.
    """
    key = trials.draw(tables, shown, most=most)
    if not key.trials:
        raise UsageError(
            "blind=true is not allowed: no two policies have a video of the same prompt, seed and budget "
            "here that browsers play"
        )
    out.mkdir(parents=True, exist_ok=True)
    ids = dict.fromkeys(video_id for trial in key.trials for video_id in (trial.left, trial.right))
    # Names are drawn anew each time: nothing that could be computed from a run leads to them.
    names = {video_id: secrets.token_hex(8) for video_id in sorted(ids)}
    sources = _place(out, {names[video_id]: _file(shown[video_id]) for video_id in ids}, key)
    fps = {video_id: shown[video_id].manifest.fps for video_id in ids}
    shows = [
        {
            "trial": trial.trial,
            "prompt": shown[trial.left].prompt,
            "left": names[trial.left],
            "right": names[trial.right],
            "fps": fps[trial.left],
        }
        for trial in key.trials
    ]
    values = {"content": {"assignment": key.digest, "trials": shows, "videos": sources}}
    files.write_atomically(out / key.file_name, key.text)
    page = web.render("blind", values, scripts=("sync.js", "checksum.js", "blind.js"))
    files.write_atomically(out / PAGE, page)
    return [out / PAGE, out / key.file_name]


def _file(video: Shown) -> Path:
    path = video.viewing
    assert path is not None, video.folder
    return path


def _place(out: Path, found: Mapping[str, Path], key: Key) -> dict[str, str]:
    """Put videos under neutral names, without what files say of themselves, into the page or beside it."""
    folder = out / FOLDER / key.digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    copies = {}
    for name in sorted(found):
        copies[name] = folder / f"{name}{found[name].suffix.lower()}"
        strip_tags(found[name], copies[name])
    if sum(path.stat().st_size for path in copies.values()) > EMBED_TOTAL:
        return {name: web.link(path, out) for name, path in copies.items()}
    sources = {name: web.video_data(path) for name, path in copies.items()}
    for path in copies.values():
        path.unlink()
    folder.rmdir()
    if not os.listdir(folder.parent):
        folder.parent.rmdir()
    return sources


def strip_tags(source: Path, target: Path) -> None:
    """Copy the pictures of a video file as they are, without title, comment, sound or other tracks.

    Args:
        source: A video file.
        target: With the same ending.

    Raises:
        UsageError: Where the file cannot be read.
    """
    options = {"fflags": "+bitexact"}
    if target.suffix != ".webm":
        options["movflags"] = "+faststart"
    try:
        with (
            files.temporary(target) as part,
            av.open(str(source), options=video_kinds.LOCAL) as old,
            av.open(str(part), "w", options=options) as new,
        ):
            stream = old.streams.video[0]
            copy = new.add_stream_from_template(stream)
            copy.metadata.clear()
            for packet in old.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    new.mux(packet)
    except av.FFmpegError as error:
        raise UsageError(f"blind=true cannot read {source}: {error}") from None
