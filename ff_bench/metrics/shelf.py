"""The shelf of a video: its signals on disk, each valid for one version, set of weights and frames."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ff_bench import weights
from ff_bench.errors import Unavailable
from ff_bench.files import canonical, short_hash, write_atomically
from ff_bench.metrics.signals import kind

STRICT, COMPAT, PLAIN = "strict", "compat", "frames"
"""Views of a video: clips of its frames as they are, clips after the codec step, all frames as they are."""
VIEWS = (STRICT, COMPAT, PLAIN)
Arrays = Mapping[str, np.ndarray]


def key(view: str, name: str) -> str:
    """Name a signal as seen in a view, such as `strict/dino`."""
    return f"{view}/{name}"


@dataclass
class Shelf:
    """Signals of one video.

    Attributes:
        folder: Where they lie; None holds them in memory only.
        frames_sha256: Digest of the frames that they must have been measured on.
        prompt: Text of the video, which some signals depend on.
        obstacles: Why a signal could not be measured this time, by key.
    """

    folder: Path | None
    frames_sha256: str
    prompt: str = ""
    obstacles: dict[str, str] = field(default_factory=dict)
    _held: dict[str, tuple[dict[str, str], Arrays]] = field(default_factory=dict, repr=False)

    def get(self, name: str) -> Arrays:
        """Return the arrays of a signal.

        Raises:
            Unavailable: Where it was not measured, with the reason.
        """
        found = self._read(name)
        if found is None:
            raise Unavailable(self.obstacles.get(name, f"signal {name} was not measured"))
        return found[1]

    def has(self, name: str) -> bool:
        """Say whether a signal is here and valid."""
        return self._read(name) is not None

    def put(self, name: str, arrays: Arrays, *, device: str) -> None:
        """Keep the arrays of a signal, by temporary name and rename."""
        about = {**self._stamp(name), "device": device}
        even = {label: np.ascontiguousarray(values) for label, values in arrays.items()}
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path(self.folder, name), save(even, {"about": canonical(about)}))
        self._held[name] = (about, even)

    def state(self, name: str) -> str:
        """Say what a number rests on: version and weights; of an absent signal, what of it is here."""
        found = self._read(name)
        if found is not None:
            return f"{name} v{found[0]['version']} {found[0]['weights']}".rstrip()
        libraries = [library for library in kind(name.partition("/")[2]).libraries if find_spec(library)]
        return f"{name} absent {self._stamp(name)['weights']} {' '.join(libraries)}".rstrip()

    def digest(self, names: tuple[str, ...]) -> str:
        """Digest the states of several signals."""
        return short_hash([self.state(name) for name in names]) if names else ""

    @staticmethod
    def _path(folder: Path, name: str) -> Path:
        return folder / f"{name.replace('/', '-')}.safetensors"

    def _stamp(self, name: str) -> dict[str, str]:
        signal = kind(name.partition("/")[2])
        used = ",".join(f"{file}={weights.sha256(file)[:16]}" for file in signal.weights)
        text = short_hash(self.prompt) if signal.reads_prompt else ""
        return {
            "version": str(signal.version), "weights": used, "frames": self.frames_sha256, "prompt": text
        }  # fmt: skip

    def _read(self, name: str) -> tuple[dict[str, str], Arrays] | None:
        if name in self._held or self.folder is None:
            return self._held.get(name)
        try:
            with safe_open(self._path(self.folder, name), framework="numpy") as stream:
                about = dict(json.loads(stream.metadata()["about"]))
                arrays = {label: stream.get_tensor(label) for label in stream.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None
        wanted = self._stamp(name)
        same = all(about.get(field) == wanted[field] for field in ("version", "frames", "prompt"))
        if not same or not _agree(str(about.get("weights", "")), wanted["weights"]):
            return None
        self._held[name] = (about, arrays)
        return self._held[name]


def _agree(used: str, here: str) -> bool:
    """Compare digests of weights; files that are not here any more do not make a finished signal invalid."""
    return used == here or "=absent" in here
