"""How long VBench-Long takes: our pass over a video against VBench's own code, on the same files and weights.

    python scripts/bench_vbench.py make FOLDER                   # a 60 s video of 480x832 px, random weights
    python scripts/bench_vbench.py ours FOLDER --device cuda     # one pass, then signal by signal
    python scripts/bench_vbench.py reference FOLDER --device cuda --python .venv-vbench/bin/python
    python scripts/bench_vbench.py table FOLDER                  # both side by side, from what is in FOLDER
    python scripts/bench_vbench.py devices FOLDER                # every signal on the CPU and on the GPU

Seconds are wall time. `ours` counts decoding, the codec step and every network; loading is told apart.
`reference` runs one process a dimension, as VBench-Long must be run to survive a kill; its loading is inside,
as is cutting the video into clips, which every one of its processes does again unless it finds the clips of
another. With random weights the numbers mean nothing, the work is the same; how early the optical flow of a
clip is decided depends on the video: `--motion` says how many of its clips move.

The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

FPS, HEIGHT, WIDTH = 16, 480, 832
PROMPT = "a camera pans over a field of grey stones"
SCORER = Path(__file__).resolve().parents[1] / "ff_bench" / "metrics" / "reference"
DIMENSIONS = (
    "temporal_flickering", "subject_consistency", "background_consistency", "aesthetic_quality",
    "imaging_quality", "overall_consistency", "motion_smoothness", "dynamic_degree",
)  # fmt: skip


def film(seconds: int, *, motion: float) -> Iterator[np.ndarray]:
    """Yield a panning picture with grain, RGB, (480, 832, 3) uint8; a share of its clips moves fast."""
    generator = np.random.default_rng(0)
    coarse = generator.normal(size=(3, 60, 200))
    picture = np.kron(coarse, np.ones((1, 12, 12)))[:, : HEIGHT + 100, : WIDTH + 1000]
    picture = np.clip(128 + 45 * picture, 0, 255).transpose(1, 2, 0).astype(np.float32)
    place = 0.0
    for frame in range(seconds * FPS):
        clip = frame // (2 * FPS)
        place += 9.0 if (clip % 10) < 10 * motion else 0.5
        x = int(place) % 900
        view = picture[20 : 20 + HEIGHT, x : x + WIDTH]
        grain = generator.integers(-6, 7, view.shape, dtype=np.int8)
        yield np.clip(view + grain, 0, 255).astype(np.uint8)


def make(folder: Path, *, seconds: int, motion: float, has_weights: bool) -> None:
    """Write the video and, unless they are elsewhere, the weights."""
    from ff_bench import video
    from ff_bench.metrics.networks import synthesis_convolutions, synthesis_transformers

    folder.mkdir(parents=True, exist_ok=True)
    video.write_video(folder / "video.mp4", np.stack(list(film(seconds, motion=motion))), FPS)
    if has_weights:
        for synthesis in (synthesis_convolutions, synthesis_transformers):
            synthesis.write(folder / "weights", seed=0)


def ours(folder: Path, *, device: str, flow: str, codec: str, has_signals: bool) -> dict[str, Any]:
    """Time one pass that feeds every signal, then each signal alone on clips in memory."""
    import torch

    from ff_bench import video
    from ff_bench.footage import Streamed
    from ff_bench.metrics import passes, recoding
    from ff_bench.metrics.base import WHOLE, Video
    from ff_bench.metrics.shelf import Shelf
    from ff_bench.metrics.vbench_long import VBenchLong

    if codec == "threads":
        setattr(passes, "recoded", partial(_in_threads, recoding.recoded))  # noqa: B010
    count = sum(1 for _ in video.decode(folder / "video.mp4"))
    footage = Streamed(
        count, (HEIGHT, WIDTH), lambda: (frame[None] for frame in video.decode(folder / "video.mp4"))
    )
    metric = VBenchLong(flow=flow)
    names = [key.partition("/")[2] for key in metric.signals]
    begun = time.perf_counter()
    for name in names:
        passes.loaded(name, device)
    loading = time.perf_counter() - begun
    seconds = []
    for _ in range(3):
        shelf = Shelf(None, "", PROMPT)
        begun = time.perf_counter()
        passes.measure(footage, metric.signals, shelf, fps=FPS, device=device)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    known = shelf.get("compat/flow_decision")["known"] if flow == "decide" else np.ones(1, bool)
    shown = Video("bench", PROMPT, 0, FPS, 12, 0, footage, model="bench", shelf=shelf)
    values = {value.name: value.value for value in metric.compute(shown, None) if value.clip == WHOLE}
    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "frames": count, "loading": loading, "pass": sorted(seconds)[1], "passes": seconds,
        "obstacles": shelf.obstacles, "values": values, "codec": codec,
        "flow_pairs_measured": float(known.mean()),
        "signals": _alone(footage, names, device) if has_signals else {},
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if device.startswith("cuda") else 0,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip


def _in_threads(recoded: Any, whole: Any, rate: int, *, beside_gpu: bool) -> Any:
    del beside_gpu
    return recoded(whole, rate, beside_gpu=False)


def devices(folder: Path) -> dict[str, Any]:
    """Measure half a second of the video on CPU and GPU; return the largest difference a signal."""
    import torch

    from ff_bench import video
    from ff_bench.metrics import passes
    from ff_bench.metrics.vbench_long import VBenchLong

    first = [frame for frame, _ in zip(video.decode(folder / "video.mp4"), range(FPS // 2), strict=False)]
    frames = torch.from_numpy(np.stack(first)).permute(0, 3, 1, 2)
    found = {}
    for key in VBenchLong(flow="all").signals:
        name = key.partition("/")[2]
        arrays = []
        for device in ("cpu", "cuda"):
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                measured = passes.loaded(name, device).measure(frames.to(device), fps=FPS, prompt=PROMPT)
            arrays.append({label: values.cpu().double() for label, values in measured.items()})
        found[name] = max(float((arrays[0][label] - arrays[1][label]).abs().max()) for label in arrays[0])
    return found


def _alone(footage: Any, names: list[str], device: str) -> dict[str, float]:
    """Time each signal on the clips of the video, without decoding and codec."""
    import torch

    from ff_bench.errors import Unavailable
    from ff_bench.metrics import clips, passes

    tensors = [torch.from_numpy(clip).permute(0, 3, 1, 2) for clip in clips.cut(footage.blocks(), FPS)]
    found = {}
    for name in names:
        try:
            signal = passes.loaded(name, device)
        except Unavailable:
            continue
        with torch.inference_mode():
            begun = time.perf_counter()
            for clip in tensors:
                part = clip[:1] if signal.reads == "heads" else clip
                signal.measure(part.to(device), fps=FPS, prompt=PROMPT)
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            found[name] = time.perf_counter() - begun
    return found


def reference(folder: Path, *, device: str, python: str, dimensions: list[str]) -> dict[str, Any]:
    """Time VBench's own code, a process a dimension; what it cut for one dimension serves the next."""
    videos = folder / "staged"
    videos.mkdir(exist_ok=True)
    staged = videos / "v0000-0.mp4"
    if not staged.exists():
        staged.write_bytes((folder / "video.mp4").read_bytes())
    text = files("ff_bench.metrics").joinpath("vbench_long_mapping.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    mapping = {
        branch: [(float(r["clip2clip"]), float(r["mapped"])) for r in rows if r["branch"] == branch]
        for branch in ("subject", "background")
    }
    found: dict[str, Any] = {}
    for dimension in dimensions:
        tree = folder / f"tree-{dimension}"
        tree.mkdir(exist_ok=True)
        request = {
            "dimension": dimension, "device": device, "videos": str(videos.resolve()),
            "prompts": {"v0000-0": PROMPT}, "weights": str((folder / "weights").resolve()),
            "tree": str(tree.resolve()), "mapping": mapping, "threads": 0, "is_lossless": False,
            "checkouts": {}, "result": str((folder / f"reference-{dimension}.json").resolve()),
        }  # fmt: skip
        told = folder / f"request-{dimension}.json"
        told.write_text(json.dumps(request))
        begun = time.perf_counter()
        done = subprocess.run(
            [python, str(SCORER / "runner.py"), str(told)], capture_output=True, text=True, check=False
        )
        wall = time.perf_counter() - begun
        entry: dict[str, Any] = {"wall": wall}
        if done.returncode:
            entry["error"] = (done.stderr.strip().splitlines() or ["no output"])[-1]
        else:
            result = json.loads(Path(str(request["result"])).read_text())
            entry |= {name: result[name] for name in ("aggregate", "seconds", "peak_bytes", "substituted")}
        found[dimension] = entry
        print(dimension, entry, file=sys.stderr, flush=True)
    return found


def table(folder: Path) -> str:
    """Put both side by side as Markdown."""
    mine = json.loads((folder / "ours.json").read_text())
    theirs = json.loads((folder / "reference.json").read_text())
    lines = [
        "| dimension | VBench s | of it computing s | peak GiB | VBench's number | ours |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    total = 0.0
    for name, entry in theirs.items():
        total += entry["wall"]
        own = mine["values"].get(f"vbench_long.compat.{name}")
        rest = entry.get("error") or (
            f"{entry['seconds']:.1f} | {entry['peak_bytes'] / 2**30:.1f} | {float(entry['aggregate']):.4f} | "
            f"{'-' if own is None else f'{own:.4f}'}"
        )
        lines.append(f"| {name} | {entry['wall']:.1f} | {rest} |")
    ran = {name: entry for name, entry in theirs.items() if "error" not in entry}
    computing = sum(entry["seconds"] for entry in ran.values())
    whole = mine["loading"] + mine["pass"]
    share = 100 * mine["flow_pairs_measured"]
    lines += [
        f"| sum | {total:.1f} | {computing:.1f} | | | |",
        "",
        f"ours: {mine['pass']:.1f} s for all ({whole:.1f} s with loading) on {mine['device']}, "
        f"{computing / mine['pass']:.1f} times faster ({total / whole:.1f} with loading); "
        f"{len(ran)} of {len(theirs)} dimensions ran; "
        f"{share:.0f} % of the pairs of the optical flow were measured",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["make", "ours", "reference", "table", "devices"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--motion", type=float, default=0.5, help="share of clips that move fast")
    parser.add_argument("--flow", default="decide", choices=["decide", "all"])
    parser.add_argument("--codec", default="processes", choices=["processes", "threads"])
    parser.add_argument("--no-signals", action="store_true", help="do not time each signal alone")
    parser.add_argument("--weights", type=Path, help="folder of weights; FOLDER/weights unless told")
    parser.add_argument("--dimensions", nargs="*", default=list(DIMENSIONS))
    options = parser.parse_args()
    folder: Path = options.folder
    os.environ["FF_BENCH_WEIGHTS"] = str((options.weights or folder / "weights").resolve())
    if options.part == "make":
        make(folder, seconds=options.seconds, motion=options.motion, has_weights=options.weights is None)
        return
    if options.part == "table":
        print(table(folder))
        return
    if options.part == "ours":
        found = ours(
            folder, device=options.device, flow=options.flow, codec=options.codec,
            has_signals=not options.no_signals,
        )  # fmt: skip
    elif options.part == "devices":
        found = devices(folder)
    else:
        found = reference(folder, device=options.device, python=options.python, dimensions=options.dimensions)
    (folder / f"{options.part}.json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
