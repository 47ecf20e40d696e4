"""Fuzzed readers: quantities, prompts, rows, manifests, tables, votes, weights, videos, files of policies."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ff_bench import checks, foreign_prompts, metrics, prompts, records, row_cells, runs, traits, video
from ff_bench.errors import Unavailable
from ff_bench.foreign_files import Place
from ff_bench.metrics.networks import checkpoints
from ff_bench.models.facts import find
from ff_bench.models.wan import containers
from ff_bench.probe import Broken, examine
from ff_bench.quantities import Budget, parse_budget, parse_length, parse_seconds, parse_slots
from ff_bench.report import votes
from ff_bench.shipped import conf_dir
from fuzzing import odd
from fuzzing.judge import Target, Wrong

MINI = find("mini")
WAN = find("self_forcing")
ROW = {
    **{name: "x" for name in (*records.COLUMNS, *records.PROVENANCE)}, **dict.fromkeys(row_cells.COUNTED, 1),
    "schema": 1, "video_id": "0123456789", "metric": "flicker.mean", "version": 1, "clip": -1, "t0": 0.0,
    "t1": 1.0, "value": 0.5, "status": "ok", "reason": "", "seed": 0, "frames": 8, "budget_tokens": None,
}  # fmt: skip
MANIFEST = {
    "video_id": runs.short_hash({"seed": 0}), "identity": {"seed": 0}, "folder": "a/b", "frames": 8,
    "latent_frames": 2, "prefix_frames": 0, "fps": 8.0, "frames_sha256": "0" * 64, "seconds": 1.0,
    "peak_bytes": None, "files": {"record.mkv": 3}, "environment": {"versions": {}}, "code_version": "",
    "created": "", "status": "ok", "schema": 1,
}  # fmt: skip
POLICY = """
from dataclasses import dataclass
from policies.base import Policy

@dataclass
class Own(Policy):
    '''A policy.'''
    name = 'own'
    share: float = 0.5
    def score(self, cache, step):
        return cache.tokens.float()
"""


def quantity(draw: random.Random, _: Path) -> None:
    """Read a quantity, a number, a list of seeds or of names."""
    assert MINI is not None and WAN is not None, "shipped models"
    asked: object = odd.text(draw) if draw.random() < 0.8 else odd.value(draw)
    facts, budget = draw.choice((MINI, WAN)), Budget("8k", 8192)
    readers: tuple[Callable[[], object], ...] = (
        lambda: parse_length(asked, facts).frames,
        lambda: parse_budget(asked, facts, latent_frames=60, element_bytes=2).tokens,
        lambda: parse_slots("sink", asked, facts, budget=budget),
        lambda: parse_seconds("time", asked),
        lambda: min(checks.seeds(asked)),
        lambda: checks.whole("workers", asked, low=1, high=256),
        lambda: None if checks.names("ids", asked) else 0,
        lambda: None if checks.text("runs_dir", asked) else 0,
    )
    found = draw.choice(readers)()
    if isinstance(found, int | float) and found < 0:
        raise Wrong(f"{asked!r} was read as {found}")


def prompt_file(draw: random.Random, folder: Path) -> None:
    """Read a file of prompts; ids must stay names of one folder."""
    assert MINI is not None and WAN is not None, "shipped models"
    ending = draw.choice((".txt", ".csv", ".jsonl"))
    path = folder / f"asked{ending}"
    path.write_bytes(_prompt_bytes(draw, ending))
    found = prompts.load(str(path), conf_dir() / "prompts", model=draw.choice((WAN, WAN, MINI)))
    for prompt in found.prompts:
        if (folder / prompt.id).resolve().parent != folder.resolve() or prompt.id.startswith("."):
            raise Wrong(f"id {prompt.id!r} leaves its folder")


def _prompt_bytes(draw: random.Random, ending: str) -> bytes:
    texts = [draw.choice((odd.text(draw), "a cat", "orbit speed=4", "ä b")) for _ in range(draw.randrange(4))]
    if ending == ".txt":
        lines = [draw.choice(("# sha256: 00", "# source: me", "#", "")), *texts]
    elif ending == ".csv":
        head = ["id", "prompt", odd.some(draw, ["start", "switch", "text", "seed"])]
        lines = [",".join(head), *(f'{odd.text(draw)},"{text}",{odd.text(draw)}' for text in texts)]
    else:
        keys = {"id": odd.value(draw), "switch": odd.value(draw), "start": odd.text(draw)}
        kept = {key: item for key, item in keys.items() if draw.random() < 0.4}
        lines = [odd.json_line(draw, {"prompt": text, **kept}) for text in texts]
    content = odd.encoded(draw, "\n".join(lines))
    return odd.damaged(draw, content) if draw.random() < 0.4 else content


def foreign_table(draw: random.Random, folder: Path) -> None:
    """Read a table of videos that were not made here."""
    (folder / "a.mp4").touch()
    path = folder / draw.choice(("table.csv", "table.jsonl"))
    keys = [odd.some(draw, foreign_prompts.COLUMNS) for _ in range(draw.randrange(1, 5))]
    cells = [draw.choice(("a.mp4", "../a.mp4", odd.text(draw))) for _ in range(len(keys) + 1)]
    if path.suffix == ".csv":
        content = ",".join(["file", *keys]) + "\n" + ",".join(cells)
    else:
        content = odd.json_line(
            draw, dict(zip(["file", *keys], [cells[0], *map(_any(draw), keys)], strict=True))
        )
    path.write_bytes(odd.encoded(draw, content))
    foreign_prompts.read(path, [Place(folder / "a.mp4", folder)])


def _any(draw: random.Random) -> Callable[[object], object]:
    return lambda _: odd.value(draw)


def rows(draw: random.Random, folder: Path) -> None:
    """Read rows and the trace of a video; a row without a sound number must not come back as one."""
    lines = []
    for item in ({"begin": "flicker", "version": 1}, ROW, ROW, {"done": "flicker", "version": 1}):
        lines.append(odd.json_line(draw, odd.changed(draw, item)))
    content = "\n".join(lines).encode(errors="surrogatepass")
    (folder / runs.ROWS).write_bytes(odd.damaged(draw, content) if draw.random() < 0.5 else content)
    found = records.frame(records.rows_of(folder))
    fine = found["value"][found["status"] == "ok"]
    if not np.isfinite(fine.astype(float)).all():
        raise Wrong(f"a row is ok and its value is {fine.tolist()}")


def manifest(draw: random.Random, folder: Path) -> None:
    """Read a manifest, and ask whether the folder is finished; what is promised must be of its type."""
    content = odd.json_line(draw, odd.changed(draw, MANIFEST)).encode(errors="surrogatepass")
    (folder / runs.MANIFEST).write_bytes(odd.damaged(draw, content) if draw.random() < 0.3 else content)
    (folder / "record.mkv").write_bytes(b"abc")
    runs.is_finished(folder)
    runs.find([folder])
    found = runs.read_manifest(folder)
    if found is not None and not (isinstance(found.frames, int) and isinstance(found.frames_sha256, str)):
        raise Wrong(f"a manifest with frames {found.frames!r} was taken")


def table(draw: random.Random, folder: Path) -> None:
    """Read a table of rows."""
    path = folder / draw.choice(("rows.csv", "rows.csv", "rows.parquet"))
    if path.suffix == ".parquet":
        path.write_bytes(odd.damaged(draw, _parquet()))
    else:
        held = odd.changed(draw, ROW)
        held = held if isinstance(held, dict) else ROW
        content = ",".join(map(str, held)) + "\n" + ",".join(_cell(cell) for cell in held.values())
        path.write_bytes(
            odd.encoded(draw, content)
            if draw.random() < 0.5
            else odd.damaged(draw, content.encode(errors="replace"))
        )
    found = records.read_table(path)
    values = found["value"][found["status"] == "ok"].astype(float)
    if not np.isfinite(values).all():
        raise Wrong(f"a row is ok and its value is {values.tolist()}")


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace(",", ";")


@lru_cache(maxsize=1)
def _parquet() -> bytes:
    import io

    import pandas as pd

    stream = io.BytesIO()
    pd.DataFrame([ROW]).to_parquet(stream)
    return stream.getvalue()


def vote_file(draw: random.Random, folder: Path) -> None:
    """Read a file of votes."""
    tree = {
        "format": votes.FORMAT, "version": votes.VERSION, "assignment": "0" * 64, "voter": "0" * 12,
        "votes": [{"trial": "a", "choice": "left", "ms": 3}], "checksum": "00000000",
    }  # fmt: skip
    content = odd.json_line(draw, odd.changed(draw, tree)).encode(errors="surrogatepass")
    (folder / "votes.json").write_bytes(odd.damaged(draw, content) if draw.random() < 0.4 else content)
    votes.read([folder / "votes.json"])


class Bomb:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        """Return what unpickling calls."""
        return open, ("hacked", "w")


@lru_cache(maxsize=1)
def _weights(folder: Path) -> tuple[bytes, ...]:
    """Return sound and wicked files of weights: zip, old pickle, with code inside, safetensors."""
    from safetensors.torch import save

    state = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([float("nan")])}
    made = []
    for held, new in (
        (state, True),
        (state, False),
        ({**state, "c": Bomb()}, True),
        ({"c": Bomb()}, False),
        ([1], True),
    ):
        torch.save(held, folder / "made.pt", _use_new_zipfile_serialization=new)
        made.append((folder / "made.pt").read_bytes())
    return (*made, save(state))


def checkpoint(draw: random.Random, folder: Path) -> None:
    """Read a file of weights by both readers; no code of it may run."""
    content = draw.choice(_weights(folder))
    path = folder / draw.choice(("file.pt", "file.safetensors", "file.bin"))
    path.write_bytes(odd.damaged(draw, content) if draw.random() < 0.8 else content)
    try:
        (containers.opened if draw.random() < 0.5 else checkpoints.read)(path)
    finally:
        if Path("hacked").exists():
            raise Wrong("a file of weights ran code")


@lru_cache(maxsize=1)
def _videos(folder: Path) -> tuple[bytes, ...]:
    frames = np.random.default_rng(0).integers(0, 255, (9, 16, 24, 3), dtype=np.uint8)
    video.write_video(folder / "made.mp4", frames, 8)
    video.write_record(folder / "made.mkv", frames, 8)
    return (folder / "made.mp4").read_bytes(), (folder / "made.mkv").read_bytes()


def video_file(draw: random.Random, folder: Path) -> None:
    """Decode a video from end to end."""
    path = folder / draw.choice(("one.mp4", "one.mkv", "one.gif"))
    path.write_bytes(odd.damaged(draw, draw.choice(_videos(folder))))
    examine(path)


def policy_file(draw: random.Random, folder: Path) -> None:
    """Load a file of a policy; damage is within its text, so that nothing but its own lines runs."""
    lines = POLICY.splitlines()
    for _ in range(draw.randrange(1, 3)):
        place = draw.randrange(len(lines))
        line = draw.choice(
            (
                "",
                "    x: int",
                "    y: object = object()",
                "raise ValueError('no')",
                lines[place][::-1],
                "1/0",
            )
        )
        lines[place : place + draw.randrange(2)] = [line]
    path = folder / f"own{draw.randrange(10**9)}.py"
    path.write_text("\n".join(lines), encoding="utf-8")
    try:
        traits.defaults(str(path))
    finally:
        path.unlink()


def setting(draw: random.Random, _: Path) -> None:
    """Let the metrics that have settings check them."""
    fields = ("modes", "dimensions", "flow")
    metrics.load("vbench_long", {draw.choice(fields): odd.value(draw)})


TARGETS = (
    Target("quantities", quantity, 35), Target("prompt files", prompt_file, 20),
    Target("tables of videos", foreign_table, 6), Target("rows", rows, 8), Target("manifests", manifest, 10),
    Target("tables of rows", table, 3), Target("votes", vote_file, 5),
    Target("weights", checkpoint, 6, (*Target.refusals, Unavailable)),
    Target("videos", video_file, 2, (Broken,)), Target("policy files", policy_file, 2),
    Target("metric settings", setting, 1, (ValueError,)),
)  # fmt: skip
