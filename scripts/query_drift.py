"""How much do queries move over the chunks of a video, before and after their rotation?

A short form of `ff-bench stationarity` with few lags and one prompt as text, for scripts/paper_mini.py. Mean
over layers, heads and pairs of chunks:

- ``w1``: Wasserstein-1 distance between the values of one channel in two chunks, over the channel's standard
  deviation; ``w1 time`` takes the channels that carry time alone;
- ``frechet``: squared Frechet distance of the Gaussians of two chunks over the mean squared norm of a query.

    python scripts/query_drift.py --length 240 --prompt "orbit palette=3 speed=-3 path=900"

The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import pandas as pd
import torch

from ff_bench import generate, runs
from ff_bench.analysis import asking, drift_text, stationarity
from ff_bench.analysis.stationarity import AFTER, BEFORE, FRECHET, LAG, W1


def drift(rows: pd.DataFrame, rotation: str) -> dict[str, float]:
    """Return the name of a quantity -> its value on one side of the rotation."""
    shown = {"w1": (W1, ""), "w1 time": (W1, "time"), "frechet": (FRECHET, "")}
    found: dict[str, float] = {}
    for name, (quantity, axis) in shown.items():
        for lag, value in drift_text.curve(rows, quantity, LAG, axis=axis)[rotation].items():
            found[f"{name} lag {float(str(lag)):g}"] = round(float(value), 4)
    return found


def main() -> None:
    """Generate with the full cache, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompt", default="orbit palette=3 speed=-3 sprite=disc hue=teal path=900")
    parser.add_argument("--length", type=int, default=144, help="latent frames")
    parser.add_argument("--lags", nargs="+", type=int, default=[1, 5, 11], help="distances between chunks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    words = [f"length={options.length}f", "protocol.prefix=none", "device=cpu"]
    config = asking.full_cache(words)
    (spec,) = runs.videos(config)
    told = replace(spec, prompt=replace(spec.prompt, text=options.prompt))
    model = generate.load_model(config.model, config.device, config.dtype)
    sampling = stationarity.Sampling("chunk", model.shape.chunk_tokens, tuple(sorted(options.lags)))
    rows = pd.DataFrame(stationarity.measure(model, told, sampling))
    results = {f"{rotation} rotation": drift(rows, rotation) for rotation in (BEFORE, AFTER)}
    for name, values in results.items():
        print(f"{name:16s}", "  ".join(f"{key} {value:.4f}" for key, value in values.items()))
    print(json.dumps({"prompt": options.prompt, "latent_frames": options.length, "drift": results}))


if __name__ == "__main__":
    main()
