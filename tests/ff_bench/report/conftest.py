"""A fixture of runs: made-up policies with known behaviour over true frames, scored by the real metrics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ff_bench import files, metrics, records, runs, video
from ff_bench.footage import Held
from ff_bench.metrics import Video
from ff_bench.models.mini import world
from ff_bench.models.mini.prompt import MiniPrompt

FPS, STRIDE, CHUNK = 16, 4, 3
CHECKPOINT = "0" * 64
KEEPS = {"full": 1.0, "h2o": 0.985, "random": 0.9, "future_forcing": 0.97, "sliding_window": 0.0}
PINNED = {"sliding_window": "sink"}


def frames_of(policy: str, prompt: MiniPrompt, seed: int, *, tokens: int | None, frames: int) -> np.ndarray:
    """Show the truth in the first lap, later a mixture with another world; `future_forcing` blurs as well."""
    truth = world.truth(prompt, seed, frames)[0].numpy().astype(np.float32)
    other = world.truth(prompt, seed + 1000, frames)[0].numpy()
    lap = prompt.prefix_frames() * STRIDE
    keep = 1 - (1 - KEEPS[policy]) * (1.0 if tokens is None else 1024 / tokens)
    late = np.clip((np.arange(frames) - lap) / frames, 0, 1)[:, None, None, None]
    share = np.where(np.arange(frames)[:, None, None, None] >= lap, (1 - keep) * (0.6 + 0.8 * late), 0).clip(
        0, 1
    )
    mixed = truth * (1 - share) + other * share
    if policy == "future_forcing":
        mixed[lap:] = 0.3 * mixed[lap:] + 0.7 * mixed[lap:].mean((1, 2), keepdims=True)
    generator = np.random.default_rng([seed, sum(policy.encode())])
    return np.clip(mixed + generator.normal(0, 2.5, mixed.shape), 0, 255).round().astype(np.uint8)


def trace_of(policy: str, tokens: int | None, chunks: int, prefix: int) -> list[dict]:
    """Make up a plausible trace."""
    trace = []
    for chunk in range(chunks):
        held = (chunk + 1) * 192 if tokens is None or chunk < prefix else min(tokens, (chunk + 1) * 192)
        age = np.arange(chunk, -1, -1)
        kept = {"sliding_window": (age < held / 192) * 1.0, "full": np.ones(chunk + 1)}.get(
            policy,
            np.minimum(1, held / 192 / (chunk + 1) * (1.4 if policy == "h2o" else 1) * np.exp(-age / 60)),
        )
        policy_seconds = {"full": 0.0, "sliding_window": 0.001, "random": 0.002}.get(policy, 0.04)
        model_seconds = 0.25 + held / 40000
        trace.append(
            {
                "chunk": chunk,
                "frame": chunk * CHUNK,
                "prefix": chunk < prefix,
                "model_seconds": model_seconds,
                "seconds": model_seconds + policy_seconds + 0.01,
                "policy_seconds": policy_seconds,
                "decode_seconds": 0.01,
                "context_tokens": held,
                "context_tokens_max": held,
                "kv_bytes": held * 12288,
                "state_bytes": held * 96,
                "transient_bytes": 0,
                "max_distance": held / 64,
                "beyond_window": 0.0,
                "kept": [round(float(x), 4) for x in kept],
            }
        )
    return trace


def write_video(root: Path, policy: str, text: str, seed: int, *, tokens: int | None, seconds: int) -> Path:
    """Write the folder of one finished video, without rows."""
    prompt = MiniPrompt.parse(text)
    frames = seconds * FPS
    latent = -(-frames // STRIDE // CHUNK) * CHUNK
    identity = {
        "model": {"name": "mini", "fields": {}, "checkpoint": CHECKPOINT},
        "policy": {"name": policy, "fields": {}},
        "protocol": {"prefix": "none" if policy == "full" else "first_lap", "noise": "own"},
        "budget_tokens": tokens,
        "latent_frames": latent,
        "frames": frames,
        "prompt": prompt.text,
        "seed": seed,
    }
    video_id = files.short_hash(identity)
    folder = root / "mini" / f"{policy}-equal" / f"b{tokens}" / f"{prompt.id}-s{seed}-{video_id}"
    shown = frames_of(policy, prompt, seed, tokens=tokens, frames=frames)
    video.write_record(folder / runs.RECORD, shown, FPS)
    video.write_video(folder / runs.VIDEO, shown, FPS, scale=2)
    prefix = 0 if policy == "full" else prompt.prefix_frames()
    records.append(folder / runs.TRACE, trace_of(policy, tokens, latent // CHUNK, prefix // CHUNK))
    sizes = {name: (folder / name).stat().st_size for name in (runs.RECORD, runs.VIDEO, runs.TRACE)}
    runs.write_manifest(
        folder,
        runs.Manifest(
            video_id=video_id,
            identity=identity,
            folder=str(folder),
            frames=frames,
            latent_frames=latent,
            prefix_frames=prefix,
            fps=FPS,
            frames_sha256=video.frames_sha256(shown),
            seconds=1.0,
            peak_bytes=500 * 2**20,
            files=sizes,
            environment={"device": "cpu"},
            code_version="1",
            created="2026-01-01T00:00:00Z",
        ),
    )
    return folder


def open_video(folder: Path) -> Video:
    """Read a folder as metrics see it."""
    manifest = json.loads((folder / runs.MANIFEST).read_text())
    identity = manifest["identity"]
    return Video(
        id=manifest["video_id"],
        prompt=identity["prompt"],
        seed=identity["seed"],
        fps=FPS,
        chunk_frames=CHUNK * STRIDE,
        prefix_frames=manifest["prefix_frames"] * STRIDE,
        footage=Held(video.read_record(folder / runs.RECORD)),
        trace=records.read(folder / runs.TRACE),
        manifest=manifest,
    )


def score(folder: Path, reference: Path | None) -> None:
    """Append the rows of every metric."""
    shown = open_video(folder)
    base = None if reference is None else open_video(reference)
    identity = shown.identity
    rows = []
    families = [metrics.load(name) for name in metrics.names()]
    metrics.prepare(shown, families)
    if base is not None:
        metrics.prepare(base, [metric for metric in families if metric.needs_reference])
    for metric in families:
        for value in metric.compute(shown, base):
            rows.append(
                {
                    "schema": records.SCHEMA,
                    "video_id": shown.id,
                    "model": "mini",
                    "checkpoint": CHECKPOINT,
                    "policy": identity["policy"]["name"],
                    "policy_fields": "{}",
                    "protocol": "equal",
                    "budget_tokens": identity["budget_tokens"],
                    "frames": shown.count,
                    "prompt_set": "orbit",
                    "prompt_id": MiniPrompt.parse(shown.prompt).id,
                    "prompt_text": shown.prompt,
                    "seed": shown.seed,
                    "metric": value.name,
                    "version": metric.version,
                    "clip": value.clip,
                    "t0": value.t0,
                    "t1": value.t1,
                    "value": value.value,
                    "unit": metric.measures[value.name].unit,
                    "status": value.status,
                    "reason": value.reason,
                    "fps": FPS,
                    "steps": 5,
                    "dtype": "float32",
                    "batch": 1,
                    "device": "cpu",
                    "prompt_list_sha256": "a" * 64,
                    "pinned": PINNED.get(identity["policy"]["name"], ""),
                    "protocol_fields": json.dumps(identity["protocol"]),
                    "code_version": "1",
                    "hardware": "a cpu",
                }
            )
    records.append(folder / runs.ROWS, rows)


def write_runs(
    root: Path,
    *,
    policies: tuple[str, ...],
    budgets: tuple[int, ...],
    texts: tuple[str, ...],
    seeds: tuple[int, ...],
    seconds: int,
) -> Path:
    """Write and score every policy under every budget, and the full cache once."""
    for text in texts:
        for seed in seeds:
            full = (
                write_video(root, "full", text, seed, tokens=None, seconds=seconds)
                if "full" in policies
                else None
            )
            for policy in policies:
                for tokens in budgets if policy != "full" else (None,):
                    folder = (
                        full
                        if policy == "full" and full
                        else write_video(root, policy, text, seed, tokens=tokens, seconds=seconds)
                    )
                    score(folder, full)
    return root


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three policies, one budget, two prompts, one seed, 13 s."""
    texts = (
        "orbit palette=1 speed=4 sprite=disc hue=teal path=3",
        "orbit palette=5 speed=-4 sprite=box hue=lime path=8",
    )
    root = tmp_path_factory.mktemp("runs")
    return write_runs(
        root, policies=("full", "h2o", "sliding_window"), budgets=(1024,), texts=texts, seeds=(0,), seconds=13
    )
