"""Fixtures for every test: a clean directory, and a stand-in for generation that writes noise in no time."""

from __future__ import annotations

import hashlib
import signal
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import ff_bench
from ff_bench import config, records, runs, video
from ff_bench.config import RunConfig
from ff_bench.runs import VideoSpec

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # tests that run in the background of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


class FakeGenerate:
    """Writes frames that follow from the video id; remembers what it made, fails where it is told to."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.fail_for: Callable[[VideoSpec], Exception | None] = lambda _: None

    def generate(
        self, config: RunConfig, videos: Sequence[VideoSpec], progress: Callable[[int], None]
    ) -> None:
        for spec in runs.unfinished(videos):
            error = self.fail_for(spec)
            if error is not None:
                raise error
            with runs.lock(spec.folder):
                self._write(spec, config.device)
            self.made.append(spec.video_id)
            progress(config.length.latent_frames)

    def _write(self, spec: VideoSpec, device: str) -> None:
        runs.prepare(spec.folder)
        config = spec.config
        seed = int(hashlib.sha256(spec.video_id.encode()).hexdigest()[:8], 16)
        shape = (config.length.frames, config.facts.height, config.facts.width, 3)
        frames = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        with runs.temporary(spec.folder / runs.RECORD) as part:
            video.write_record(part, frames, config.facts.fps)
        chunks = range(config.length.latent_frames // config.facts.chunk_frames)
        records.append(spec.folder / runs.TRACE, [self._chunk(chunk, config) for chunk in chunks])
        digest = video.frames_sha256(frames)
        environment = records.environment(device)
        manifest = runs.describe(
            spec, frames_sha256=digest, prefix_frames=0, seconds=0.5, peak_bytes=None, environment=environment
        )
        runs.write_manifest(spec.folder, manifest)

    @staticmethod
    def _chunk(chunk: int, config: RunConfig) -> dict[str, object]:
        seconds = {name: 0.01 for name in ("seconds", "model_seconds", "policy_seconds", "decode_seconds")}
        sizes = {
            name: 64
            for name in ("context_tokens", "context_tokens_max", "kv_bytes", "state_bytes", "transient_bytes")
        }
        frame = chunk * config.facts.chunk_frames
        return {
            "chunk": chunk,
            "frame": frame,
            "prefix": False,
            **seconds,
            **sizes,
            "max_distance": 3,
            "beyond_window": 0.0,
            "kept": [1.0],
        }


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the weights are there."""
    monkeypatch.setattr(config, "checkpoint_sha256", lambda _: "0" * 64)


@pytest.fixture
def fake(clean: Path, weights: None, monkeypatch: pytest.MonkeyPatch) -> FakeGenerate:
    """Replace generation in an empty directory."""
    made = FakeGenerate()
    module = types.ModuleType("ff_bench.generate")
    monkeypatch.setattr(module, "generate", made.generate, raising=False)
    monkeypatch.setitem(sys.modules, "ff_bench.generate", module)
    monkeypatch.setattr(ff_bench, "generate", module, raising=False)
    return made


@pytest.fixture
def bare(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this machine has no file of any model of text, whatever it has."""
    monkeypatch.setenv("FF_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("ff_bench.models.wan.files._in_hub", lambda source, fetch: None)
