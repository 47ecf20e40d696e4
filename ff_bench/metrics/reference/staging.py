"""Stage videos for VBench's own code, and run that code in its own environment, one dimension a process."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from ff_bench import weights
from ff_bench.errors import Unavailable
from ff_bench.footage import Footage
from ff_bench.metrics.reference.runner import PLACES
from ff_bench.video import decode

LOGGER = logging.getLogger(__name__)
ENVIRONMENT, FOLDER = "FF_BENCH_SCORER", ".venv-vbench"
CHECKOUTS = {"dino_vitb16": "VBENCH_DINO_REPO", "dinov2_vitb14": "VBENCH_DINOV2_REPO"}
"""Network to the environment variable that names a local checkout of its repository."""
RUNNER = Path(__file__).with_name("runner.py")
MAPPING = Path(__file__).parents[1] / "vbench_long_mapping.csv"
DIMENSIONS = tuple(PLACES)


class ReferenceFailed(RuntimeError):
    """VBench's own code ended with an error; the text is the last thing it said."""


@dataclass(frozen=True)
class Staged:
    """One video as VBench reads it.

    Attributes:
        name: Of the file, without suffix: no underscore (VBench drops the clip-to-clip branch at one), and a
            number after a hyphen at the end.
        prompt: Text of the video.
        fps: Frames per second.
        count: Number of frames.
    """

    name: str
    prompt: str
    fps: float
    count: int


@dataclass(frozen=True)
class Setting:
    """How VBench's own code is run.

    Attributes:
        python: Of the environment; None looks for it.
        device: Torch device.
        threads: Threads of the encoder of clips; 0 lets it choose, as torchvision did.
        is_lossless: Whether clips keep their pixels, which VBench-Long's do not.
        timeout: Seconds for one dimension.
        weights: Folder of weights; None is this package's.
    """

    python: Path | None = None
    device: str = "cpu"
    threads: int = 1
    is_lossless: bool = False
    timeout: float = 24 * 3600.0
    weights: Path | None = None


def find_environment(named: str | os.PathLike[str] | None = None) -> Path:
    """Return the python of the environment of VBench's own code.

    Args:
        named: That python, or the folder of its environment; None asks `FF_BENCH_SCORER`, then looks for
            `.venv-vbench` here and beside the repository.

    Raises:
        Unavailable: Where there is none, with the command that makes it.
    """
    asked = named or os.environ.get(ENVIRONMENT)
    folders = [Path(asked)] if asked else [Path.cwd() / FOLDER, Path(__file__).parents[3] / FOLDER]
    for folder in folders:
        for python in (folder / "bin" / "python", folder):
            if python.is_file():
                return python.absolute()
    raise Unavailable(
        f"no environment of VBench's own code in {' or '.join(map(str, folders))}: make scorer-env"
    )


def versions(python: Path) -> dict[str, str]:
    """Return the versions of the environment, and that VBench can be imported there.

    Raises:
        ReferenceFailed: Where it cannot.
    """
    done = subprocess.run(
        [str(python), "-Es", str(RUNNER), "--check"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ReferenceFailed(done.stderr.strip().splitlines()[-1])
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def needs(dimension: str) -> tuple[str, ...]:
    """Return the names in the manifest of weights that a dimension loads in VBench's own code."""
    names = {weight.file: name for name, weight in weights.manifest().items()}
    return tuple(names[file] for file in PLACES[dimension])


@contextmanager
def workplace() -> Iterator[Path]:
    """Make a fresh folder for one set of videos and remove it afterwards: VBench takes what it finds."""
    with tempfile.TemporaryDirectory(prefix="ff-bench-vbench-") as folder:
        (Path(folder) / "videos").mkdir()
        yield Path(folder)


def stage(folder: Path, footage: Footage, *, place: int, prompt: str, fps: float) -> Staged:
    """Write a video where VBench reads it, losslessly (libx264rgb, quantiser 0), and read it back.

    Args:
        folder: Of `workplace`.
        footage: The frames.
        place: Number of the video in the folder.
        prompt: Text of the video.
        fps: Frames per second.

    Raises:
        ValueError: Where what is read back differs in a pixel or in whole frames per second.
    """
    name = f"v{place:04d}-0"
    path = folder / "videos" / f"{name}.mp4"
    written = _write(path, footage, fps)
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
    if rate is None or int(rate) != int(fps):
        raise ValueError(f"the staged video tells {rate} frames per second, not {fps:g}")
    if _digest(decode(path)) != written:
        raise ValueError("the staged video differs from its frames: this libx264rgb is not lossless")
    return Staged(name, prompt, fps, footage.count)


def _write(path: Path, footage: Footage, fps: float) -> str:
    """Write frames and return the SHA-256 of their bytes."""
    digest = hashlib.sha256()
    with av.open(str(path), "w") as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream("libx264rgb", rate=rate, options={"qp": "0", "preset": "ultrafast"})
        assert isinstance(stream, av.VideoStream), stream
        stream.pix_fmt = "rgb24"
        stream.height, stream.width = footage.size
        for block in footage.blocks():
            for frame in block:
                digest.update(np.ascontiguousarray(frame).data)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return digest.hexdigest()


def _digest(frames: Iterator[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(np.ascontiguousarray(frame).data)
    return digest.hexdigest()


def run(folder: Path, dimension: str, videos: Sequence[Staged], setting: Setting) -> Mapping[str, Any]:
    """Score one dimension of staged videos with VBench's own code.

    Args:
        folder: Of `workplace`, with all the videos.
        dimension: One of `DIMENSIONS`.
        videos: What `stage` returned.
        setting: How.

    Returns:
        What `runner.py` tells: `aggregate`, `clips`, `flows`, `substituted`, `versions`, `seconds`,
        `peak_bytes`.

    Raises:
        Unavailable: Where the environment or a weight file is not there.
        ReferenceFailed: Where VBench's code ends with an error or takes too long.
    """
    python = find_environment(setting.python)
    if setting.weights is None:
        for name in needs(dimension):
            weights.path(name)
    place = folder / dimension
    place.mkdir()
    request = _request(place, dimension, videos, setting)
    (place / "request.json").write_text(json.dumps(request), encoding="utf-8")
    begun = time.perf_counter()
    LOGGER.info("vbench_reference: %s of %d videos ...", dimension, len(videos))
    _call([str(python), "-Es", str(RUNNER), str(place / "request.json")], place, setting.timeout)
    LOGGER.info("vbench_reference: %s took %.0f s", dimension, time.perf_counter() - begun)
    told: Mapping[str, Any] = json.loads((place / "result.json").read_text(encoding="utf-8"))
    return told


def _request(place: Path, dimension: str, videos: Sequence[Staged], setting: Setting) -> dict[str, Any]:
    """Link the videos into the dimension's own folder, as VBench writes beside them."""
    (place / "videos").mkdir()
    for video in videos:
        (place / "videos" / f"{video.name}.mp4").symlink_to(
            place.parent.resolve() / "videos" / f"{video.name}.mp4"
        )
    checkouts = {network: os.environ[name] for network, name in CHECKOUTS.items() if os.environ.get(name)}
    return {
        "dimension": dimension, "device": setting.device, "videos": str(place / "videos"),
        "prompts": {video.name: video.prompt for video in videos}, "tree": str(place / "tree"),
        "weights": str(setting.weights or weights.folder()), "mapping": mapping(), "threads": setting.threads,
        "is_lossless": setting.is_lossless, "checkouts": checkouts, "result": str(place / "result.json"),
    }  # fmt: skip


def mapping() -> dict[str, list[tuple[float, float]]]:
    """Read VBench-Long's tables: branch to points (clip-to-clip score, mapped score), 101 each."""
    points: dict[str, list[tuple[float, float]]] = {}
    with MAPPING.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            points.setdefault(row["branch"], []).append((float(row["clip2clip"]), float(row["mapped"])))
    return points


def _call(command: Sequence[str], place: Path, timeout: float) -> None:
    """Run a command; what it says goes to a file, of which the last line explains an error."""
    log = place / "log.txt"
    with log.open("wb") as stream:
        try:
            done = subprocess.run(
                command, cwd=place, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                timeout=timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ReferenceFailed(f"no result after {timeout:g} s") from None
    if done.returncode:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ReferenceFailed(said[-1].strip() if said else f"no word, exit code {done.returncode}")
