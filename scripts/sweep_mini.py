"""Many configurations of the embedded models at once: the package's own rollout and metrics, nothing stored.

A sweep of `ff-bench -m` keeps every video; a table of thousands needs only their rows. This makes the same
videos (same identity, noise and prefix) and the same rows, whole-video values only, with the frames in
memory. Full-cache videos come first, as others are compared with them.

    python scripts/sweep_mini.py JOBS... --out rows.parquet --workers 14 --gpus 2 --seconds 500
    python scripts/sweep_mini.py JOBS --out rows.parquet --workers 2 --gpus 0

JOBS are text files: one job a line, written as the overrides of `ff-bench`; `#` begins a comment. Jobs are
cut into batches, which are taken in their order; the table is written anew every minute and when `--seconds`
are over: what is unfinished then is dropped and named. A table that is there already is gone on with: batches
whose videos it has are left out. The last line of the output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.pool
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ff_bench import generate, metrics, prefixes, records, runs, score
from ff_bench.compose import compose
from ff_bench.config import RunConfig
from ff_bench.footage import Held
from ff_bench.metrics import Value, Video, geometry
from ff_bench.metrics.base import WHOLE
from ff_bench.metrics.shelf import Shelf
from ff_bench.rollout import rollout
from ff_bench.runs import VideoSpec

FAMILIES = ("world", "guards", "flicker", "drift", "fidelity", "cost")


WRITE_SECONDS = 60.0


@dataclass(frozen=True)
class Job:
    """Videos of one configuration that stand side by side: numbers among all of its videos."""

    words: tuple[str, ...]
    prefix_frames: int
    videos: tuple[int, ...]
    ids: tuple[str, ...]
    is_full: bool


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("jobs", type=Path, nargs="+", help="files of jobs")
    add("--out", type=Path, required=True, help="table of rows, .parquet")
    add("--workers", type=int, default=2, help="processes, on each GPU where there are GPUs")
    add("--gpus", type=int, default=0, help="GPUs; 0 runs on the CPU")
    add("--seconds", type=float, default=7 * 86400.0, help="stop after so many seconds")
    add("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    return parser.parse_args()


def main() -> None:
    """Read jobs, run them side by side, write their rows."""
    options = arguments()
    texts = [path.read_text(encoding="utf-8") for path in options.jobs]
    lines = [line.partition("#")[0].split() for text in texts for line in text.splitlines()]
    words = [tuple(line) for line in dict.fromkeys(map(tuple, lines)) if line]
    count = options.workers * max(1, options.gpus)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        setup = (context.Value("i", 0), options.gpus, scratch, tuple(options.families))
        with context.Pool(count, initializer=_begin, initargs=setup) as pool:
            sweep = _Sweep(pool, options.out, time.monotonic() + options.seconds)
            jobs = []
            for found, reason in pool.imap(_split, words, chunksize=4):
                jobs += [job for job in found if not sweep.has(job)]
                sweep.failures += [reason] if reason else []
            print(f"{len(words)} jobs, {len(jobs)} batches to make, {count} processes", flush=True)
            if "fidelity" not in options.families:
                sweep.run(jobs)
            else:  # the others are compared with the frames of full videos
                for is_full in (True, False):
                    sweep.run([job for job in jobs if job.is_full == is_full])
            pool.terminate()
    sweep.write()
    print(json.dumps(sweep.summary()))


class _Sweep:
    """Runs batches in a pool and holds their rows."""

    def __init__(self, pool: multiprocessing.pool.Pool, out: Path, deadline: float) -> None:
        self.pool, self.out, self.deadline = pool, out, deadline
        self.began = self.written = time.monotonic()
        self.before = records.read_table(out) if out.is_file() else records.frame([])
        self.rows: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self.left: list[str] = []

    def has(self, job: Job) -> bool:
        """Say whether the table had every video of a batch before."""
        return set(job.ids) <= set(self.before["video_id"])

    def run(self, jobs: Sequence[Job]) -> None:
        """Run batches until all are done or the time is over."""
        open_jobs = dict(enumerate(jobs))
        results = self.pool.imap_unordered(_run, list(open_jobs.items()))
        while open_jobs:
            try:
                number, made, reason = results.next(timeout=max(0.1, self.deadline - time.monotonic()))
            except multiprocessing.TimeoutError:
                break
            job = open_jobs.pop(number)
            self.rows += made
            self.failures += [f"{' '.join(job.words)}: {reason}"] if reason else []
            if time.monotonic() - self.written > WRITE_SECONDS:
                self.write()
        self.left += [f"{' '.join(job.words)} ({len(job.videos)} videos)" for job in open_jobs.values()]
        print(f"{len(self.rows)} rows after {time.monotonic() - self.began:.0f} s", flush=True)

    def write(self) -> None:
        """Write the table by a temporary name and rename."""
        made = records.frame(sorted(self.rows, key=lambda row: (row["video_id"], row["metric"])))
        tables = [table for table in (self.before, made) if len(table)]
        table = pd.concat(tables, ignore_index=True) if tables else made
        table = table.drop_duplicates(["video_id", "metric"], keep="last")
        texts = [name for name in table.columns if table[name].dtype == object]
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with runs.temporary(self.out) as part:
            table.astype({name: "string" for name in texts}).to_parquet(part, index=False, compression="zstd")
        self.written = time.monotonic()

    def summary(self) -> dict[str, object]:
        """Say what failed and what is left; return the numbers."""
        for kind, sentences in (("failed", self.failures), ("left out", self.left)):
            for sentence in dict.fromkeys(sentences):
                print(f"{kind}: {sentence}")
        return {
            "videos": len({row["video_id"] for row in self.rows}), "rows": len(self.rows),
            "failed": len(self.failures), "left": len(self.left),
            "seconds": round(time.monotonic() - self.began, 1), "table": str(self.out),
        }  # fmt: skip


# -- in a worker ------------------------------------------------------------------------------------------


@dataclass
class _Place:
    """Where this process works."""

    device: str = "cpu"
    scratch: Path = Path()
    families: tuple[str, ...] = FAMILIES


_HERE = _Place()


def _begin(place: Any, gpus: int, scratch: str, families: tuple[str, ...]) -> None:
    """Settle one process: one thread, its GPU, room for the geometry of every prompt."""
    with place.get_lock():
        number = place.value
        place.value += 1
    torch.set_num_threads(1)
    _HERE.device = f"cuda:{number % gpus}" if gpus else "cpu"
    _HERE.scratch, _HERE.families = Path(scratch), families
    for module, name in ((geometry, "_geometry"), (geometry, "_truth")):
        setattr(module, name, lru_cache(maxsize=64)(getattr(module, name).__wrapped__))


def _config(words: Sequence[str]) -> RunConfig:
    config = compose([*words, f"runs_dir={_HERE.scratch}", "tracker=none"]).config
    return replace(config, device=_HERE.device)


def _split(words: tuple[str, ...]) -> tuple[list[Job], str]:
    """Cut a job into batches whose videos have one prefix length; an error becomes a sentence."""
    try:
        return list(_batches(words)), ""
    except Exception as error:  # of a kind, perhaps, that does not travel between processes
        return [], f"{' '.join(words)}: {error}"


def _batches(words: tuple[str, ...]) -> Iterator[Job]:
    config = _config(words)
    groups: dict[int, list[int]] = {}
    every = runs.videos(config)
    for number, spec in enumerate(every):
        groups.setdefault(prefixes.length(config, spec.prompt), []).append(number)
    for frames, videos in groups.items():
        for start in range(0, len(videos), config.batch):
            part = tuple(videos[start : start + config.batch])
            ids = tuple(every[number].video_id for number in part)
            yield Job(words, frames, part, ids, config.policy.is_full)


def _run(numbered: tuple[int, Job]) -> tuple[int, list[dict[str, Any]], str]:
    """Make and score the videos of one batch; an error becomes a sentence."""
    number, job = numbered
    try:
        return number, list(_rows(job)), ""
    except Exception as error:
        return number, [], " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _rows(job: Job) -> Iterator[dict[str, Any]]:
    config = _config(job.words)
    if config.device != "cpu":
        torch.cuda.set_device(config.device)
    every = runs.videos(config)
    group = [every[number] for number in job.videos]
    model = generate.load_model(config.model, config.device, config.dtype)
    prefix = prefixes.latents(model, config, group, job.prefix_frames)
    take = generate.make_take(model, config, group, prefix)
    context = generate.make_context(model, config, take)
    pictures: list[torch.Tensor] = []
    traces: list[list[dict[str, Any]]] = [[] for _ in group]
    for chunk in rollout(model, context, take):
        assert chunk.pictures is not None, chunk
        pictures.append(chunk.pictures)
        for index, trace in enumerate(traces):
            trace.append(generate.trace_of(chunk, index, len(group)))
    frames = torch.cat(pictures, 1)[:, : config.length.frames].cpu().numpy()
    for spec, own, trace in zip(group, frames, traces, strict=True):
        yield from _scored(spec, own, trace, job.prefix_frames)


def _scored(
    spec: VideoSpec, frames: np.ndarray, trace: list[dict[str, Any]], prefix: int
) -> Iterator[dict[str, Any]]:
    """Score one video whose frames (T, H, W, 3) uint8 are in memory."""
    own = _video(spec, frames, trace, prefix)
    if spec.config.policy.label == "full":
        np.save(_HERE.scratch / f"{spec.video_id}.npy", frames)
    stored = _HERE.scratch / f"{spec.reference.video_id}.npy"
    reference = None
    if spec.config.policy.label != "full" and stored.is_file():
        reference = _video(spec.reference, np.load(stored), [], prefix)
    chosen = [metrics.load(name, spec.config.metrics.get(name)) for name in _HERE.families]
    metrics.prepare(own, chosen, device="cpu")
    if reference is not None:
        metrics.prepare(reference, [family for family in chosen if family.needs_reference], device="cpu")
    columns = _columns(spec, prefix)
    for family in chosen:
        for value in family.compute(own, reference if family.needs_reference else None):
            if value.clip == WHOLE and _is_told(value):
                yield score.row_of(columns, value, version=family.version, metric=family)


def _is_told(value: Value) -> bool:
    return value.status in ("ok", "failed")


def _video(spec: VideoSpec, frames: np.ndarray, trace: list[dict[str, Any]], prefix: int) -> Video:
    config, facts = spec.config, spec.config.facts
    given = facts.decoded_frames(prefix)
    return Video(
        id=spec.video_id, prompt=spec.prompt.text, seed=spec.seed, fps=facts.fps,
        chunk_frames=facts.chunk_frames * facts.temporal_stride,
        prefix_frames=min(given, len(frames)),
        made_frames=facts.decoded_frames(config.length.latent_frames) - given,
        boundaries=facts.boundaries(config.length.latent_frames, len(frames)),
        window_frames=facts.decoded_frames(facts.window_frames), footage=Held(frames), trace=trace,
        model=config.model.name, manifest={"identity": spec.identity},
        shelf=Shelf(None, "", spec.prompt.text),
    )  # fmt: skip


def _columns(spec: VideoSpec, prefix: int) -> dict[str, Any]:
    """Say what the rows of a video have in common."""
    here = records.environment(spec.config.device)
    found = {name: here[name] for name in ("device", "hardware", "host", "code_version")}
    return {
        **score.columns_of(spec), **found, "torch": here["versions"]["torch"], "prefix_frames": prefix,
        "scored_on": records.hardware("cpu"),
    }  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
