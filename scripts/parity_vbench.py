"""Compare VBench-Long's own code with `metrics=vbench_long` on the same videos, under seeded random weights.

    make scorer-env                                              # once: the environment of VBench's own code
    python scripts/parity_vbench.py --out build/parity           # eight dimensions, CPU, about half an hour
    python scripts/parity_vbench.py --dimensions temporal_flickering motion_smoothness --views compat
    python scripts/parity_vbench.py --record tests/ff_bench/metrics/data/vbench_reference.json

Random weights of the true layouts show that both compute the same numbers, never how good a video is. The
view `compat` has the codec step of VBench-Long; under `strict` VBench's own code gets clips that keep their
pixels, and what it finds within and between clips is compared before it is fused. What cannot run is a row
with its reason. The last line is JSON; the exit code is 1 where a difference is above its tolerance.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from ff_bench import metrics, weights
from ff_bench.errors import Unavailable
from ff_bench.metrics.base import Video
from ff_bench.metrics.networks import synthesis_convolutions, synthesis_transformers
from ff_bench.metrics.reference import results, samples, staging
from ff_bench.metrics.shelf import COMPAT, STRICT, Shelf

TOLERANCE = {
    "temporal_flickering": 1e-7, "subject_consistency": 1e-6, "background_consistency": 1e-6,
    "aesthetic_quality": 1e-6, "imaging_quality": 1e-5, "dynamic_degree": 0.0, "motion_smoothness": 1e-6,
    "overall_consistency": 1e-6,
}  # fmt: skip
"""Largest difference of a clip's number that is allowed; float32 networks round differently in batches."""
FLOW_TOLERANCE = 1e-4
"""Px, of the flow that dynamic_degree compares with its threshold."""
FLOW_SCALE = 0.7
"""What puts the threshold between the flow of still and of moving samples under these weights."""
PARTS = ("score", "inclip", "clip2clip", "mapped", "flow")
Numbers = dict[str, list[float]]
"""Part to one number per clip (of `flow`: per pair); `clip2clip` and `mapped` have one per video."""


@dataclass
class Row:
    """One dimension of one group in one view.

    Attributes:
        dimension: Of VBench.
        group: Of videos.
        view: `compat` or `strict`.
        tolerance: Of the scores.
        differences: Part to largest absolute difference; `score` of a consistency is the fusion.
        clips: How many were compared.
        spread: Largest less smallest score, which shows that there is something to compare.
        seconds: Of VBench's own code and of ours.
        substituted: Networks that other code stands in for in VBench's environment.
        reason: Why there is nothing to compare.
    """

    dimension: str
    group: str
    view: str
    tolerance: float
    differences: dict[str, float] = field(default_factory=dict)
    clips: int = 0
    spread: float = 0.0
    seconds: tuple[float, float] = (0.0, 0.0)
    substituted: list[str] = field(default_factory=list)
    reason: str = ""

    @property
    def is_equal(self) -> bool:
        """Whether every difference is within its tolerance."""
        limits = {part: FLOW_TOLERANCE if part == "flow" else self.tolerance for part in self.differences}
        return bool(limits) and all(self.differences[part] <= limit for part, limit in limits.items())


def numbers_of(clips: Sequence[results.Clip], dimension: str) -> Numbers:
    """Return the parts of one video as VBench's own code found them."""
    found: Numbers = {"score": [clip.score for clip in clips]}
    if dimension in results.CONSISTENCY:
        found["inclip"] = [clip.inclip for clip in clips if clip.inclip is not None]
        for part in ("clip2clip", "mapped"):
            found[part] = [value for clip in clips[:1] if (value := getattr(clip, part)) is not None]
    if dimension == "dynamic_degree":
        found["flow"] = [flow for clip in clips for flow in clip.flow]
    return found


def ours(group: samples.Group, dimension: str, view: str, device: str) -> list[Numbers]:
    """Measure the videos of a group with this package.

    Raises:
        Unavailable: where something that the dimension needs is not here.
    """
    family = metrics.load("vbench_long", {"modes": [view], "dimensions": [dimension], "flow": "all"})
    found = []
    for number, sample in enumerate(group.samples):
        shelf = Shelf(None, "", sample.prompt)
        video = Video(
            id=f"{group.name}-{number}", prompt=sample.prompt, seed=0, fps=group.fps, chunk_frames=1,
            prefix_frames=0, footage=group.footage(number), shelf=shelf, model="files",
        )  # fmt: skip
        metrics.prepare(video, [family], device=device)
        found.append(_parts(video, family, dimension, view))
    return found


def _parts(video: Video, family: metrics.Metric, dimension: str, view: str) -> Numbers:
    """Sort the values of a family into parts; a score of `strict` is the one within clips."""
    prefix, found = f"vbench_long.{view}.{dimension}", Numbers()
    for value in family.compute(video, None):
        if not value.name.startswith(prefix):
            continue
        if value.status == "unavailable":
            raise Unavailable(value.reason)
        part = value.name.removeprefix(prefix).lstrip("_") or "score"
        if view == STRICT and part == "score" and dimension in results.CONSISTENCY:
            part = "inclip"
        is_single = part in ("clip2clip", "mapped")
        if value.value is not None and (value.clip < 0) == is_single:
            found.setdefault(part, []).append(value.value)
    if dimension == "dynamic_degree":
        found["flow"] = [float(flow) for flow in video.signal(f"{view}/flow")["motion"]]
    return found


def compare(row: Row, theirs: Sequence[Numbers], mine: Sequence[Numbers]) -> None:
    """Note the largest difference of every part that both have; a part of other length is infinitely far."""
    for part in PARTS:
        pairs = [
            (their.get(part, []), my[part]) for their, my in zip(theirs, mine, strict=True) if part in my
        ]
        if not any(their for their, _ in pairs):
            continue
        is_same = all(len(their) == len(my) for their, my in pairs)
        gaps = [abs(a - b) for their, my in pairs for a, b in zip(their, my, strict=is_same)]
        row.differences[part] = max(gaps) if is_same else float("inf")
    scores = [score for their in theirs for score in their["score"]]
    row.clips, row.spread = len(scores), float(np.ptp(scores))


def run(row: Row, group: samples.Group, setting: staging.Setting) -> list[Numbers]:
    """Run both on one group and fill the row; return what VBench's own code found, nothing where it fails."""
    theirs: list[Numbers] = []
    try:
        theirs = reference(row, group, setting)
        begun = time.perf_counter()
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # its networks go with the process
            mine = pool.submit(ours, group, row.dimension, row.view, setting.device).result()
        row.seconds = (row.seconds[0], time.perf_counter() - begun)
        compare(row, theirs, mine)
    except Exception as error:  # the other dimensions still run
        row.reason = " ".join(f"{type(error).__name__}: {error}".split())
    return theirs


def reference(row: Row, group: samples.Group, setting: staging.Setting) -> list[Numbers]:
    """Run VBench's own code on the videos of a group and note what it says about itself in the row."""
    with staging.workplace() as folder:
        videos = [
            staging.stage(folder, group.footage(number), place=number, prompt=sample.prompt, fps=group.fps)
            for number, sample in enumerate(group.samples)
        ]
        told = staging.run(folder, row.dimension, videos, setting)
        clips = [results.read(told, row.dimension, video) for video in videos]
    row.substituted, row.seconds = list(told["substituted"]), (told["seconds"], 0.0)
    return [numbers_of(found, row.dimension) for found in clips]


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the table in Markdown."""
    yield f"| dimension | videos | view | {' | '.join(PARTS)} | tolerance | spread | |"
    yield f"|{'---|' * (len(PARTS) + 6)}"
    for row in rows:
        cells = [f"{row.differences[part]:.1e}" if part in row.differences else "" for part in PARTS]
        verdict = row.reason or ("equal" if row.is_equal else "DIFFERENT")
        limit = f"{row.tolerance:.0e}"
        if "flow" in row.differences:
            limit += f" (flow {FLOW_TOLERANCE:.0e} px)"
        about = [row.dimension, f"{row.group} ({row.clips} clips)", row.view]
        yield f"| {' | '.join([*about, *cells, limit, f'{row.spread:.2g}', verdict])} |"


def write_weights(folder: Path, dimensions: Sequence[str]) -> None:
    """Write the random weights that are not in the folder yet."""
    wanted = {name for dimension in dimensions for name in staging.needs(dimension)}
    for name in sorted(wanted):
        if (folder / weights.manifest()[name].file).is_file():
            continue
        if name in synthesis_transformers.WRITERS:
            synthesis_transformers.write(folder, seed=samples.SEED, names=[name])
        else:
            (file,) = synthesis_convolutions.write(folder, seed=samples.SEED, names=[name])
            if name == "raft_things":
                _scale_flow(file)


def _scale_flow(file: Path) -> None:
    state = torch.load(file, weights_only=True)
    for name in state:
        if "flow_head.conv2" in name:
            state[name] *= FLOW_SCALE
    torch.save(state, file)


def main() -> int:
    """Compare, print the table, then one JSON line."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        chosen = options.weights or Path(folder)
        os.environ[weights.FOLDER] = str(chosen)
        write_weights(chosen, options.dimensions)
        rows, recorded = _run_all(options)
    text = "\n".join(table(rows))
    content = {"rows": [{**asdict(row), "is_equal": row.is_equal} for row in rows]}
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "parity.md").write_text(text + "\n", encoding="utf-8")
        (options.out / "parity.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    if options.record:
        record(options.record, recorded)
    differing = [f"{row.dimension}/{row.view}" for row in rows if row.differences and not row.is_equal]
    absent = {f"{row.dimension}/{row.view}": row.reason for row in rows if row.reason}
    print(text)
    print(json.dumps({"rows": len(rows), "different": differing, "not_run": absent}))
    return 1 if differing else 0


def record(file: Path, numbers: Mapping[str, list[Numbers]]) -> None:
    """Write what VBench's own code found, for tests without it; other dimensions stay in the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(file.read_text(encoding="utf-8"))["numbers"] if file.is_file() else {}
    about = {"seed": samples.SEED, "versions": staging.versions(staging.find_environment())}
    content = {**about, "numbers": dict(sorted({**before, **numbers}.items()))}
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _run_all(options: argparse.Namespace) -> tuple[list[Row], Mapping[str, list[Numbers]]]:
    rows: list[Row] = []
    numbers: dict[str, list[Numbers]] = {}
    for dimension in options.dimensions:
        for group in samples.GROUPS:
            for view in options.views if dimension in group.dimensions else ():
                row = Row(dimension, group.name, view, TOLERANCE[dimension])
                setting = staging.Setting(device=options.device, is_lossless=view == STRICT)
                found = run(row, group, setting)
                rows.append(row)
                took = f"{row.seconds[0]:.0f} s, {row.seconds[1]:.0f} s"
                print(*list(table([row]))[2:], took, file=sys.stderr, flush=True)
                if found:
                    numbers[f"{dimension}/{group.name}/{view}"] = found
    return rows, numbers


def _options() -> argparse.Namespace:
    shape, every = argparse.RawDescriptionHelpFormatter, list(staging.DIMENSIONS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shape)
    parser.add_argument("--dimensions", nargs="+", choices=every, default=every)
    parser.add_argument("--views", nargs="+", choices=(COMPAT, STRICT), default=[COMPAT, STRICT])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", type=Path, help="keep the random weights here and use them again")
    parser.add_argument("--out", type=Path, help="write parity.md and parity.json here")
    parser.add_argument("--record", type=Path, help="write the numbers of VBench's own code to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
