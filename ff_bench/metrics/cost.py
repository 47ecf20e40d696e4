"""What a video cost, from its trace and manifest: seconds by part, latency, bytes, distances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from ff_bench.metrics.base import Measure, Value, Video, undefined, whole

_PARTS = ("model", "policy", "decode")
_QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
_LARGEST = ("kv_bytes", "state_bytes", "transient_bytes", "context_tokens_max", "max_distance")


class Cost:
    """Seconds, frames per second and bytes, over the chunks after the prefix, which policies share."""

    name: ClassVar[str] = "cost"
    version: ClassVar[int] = 1
    needs_reference: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("trace",)
    signals: ClassVar[tuple[str, ...]] = ()
    extras: ClassVar[tuple[str, ...]] = ()
    weights: ClassVar[tuple[str, ...]] = ()
    standing: ClassVar[str] = ""
    measures: ClassVar[Mapping[str, Measure]] = {
        "cost.seconds": Measure("s", False, "Wall seconds of all chunks under the budget.", "seconds", 1),
        "cost.model_seconds": Measure("s", False, "Part of them inside the model.", "model s", 1),
        "cost.policy_seconds": Measure(
            "s", False, "Part of them inside observe and compress.", "policy s", 2
        ),
        "cost.decode_seconds": Measure("s", False, "Part of them inside the decoder.", "decode s", 2),
        "cost.policy_share": Measure("1", False, "Policy seconds over wall seconds.", "policy share", 3),
        "cost.fps": Measure("fps", True, "Decoded frames made per wall second.", "FPS", 1),
        "cost.chunk_p50": Measure("s", False, "Median seconds of a chunk.", "p50 s", 3),
        "cost.chunk_p95": Measure("s", False, "95th percentile of the seconds of a chunk.", "p95 s", 3),
        "cost.chunk_p99": Measure("s", False, "99th percentile of the seconds of a chunk.", "p99 s", 3),
        "cost.peak_bytes": Measure("bytes", False, "Peak memory of the process or device.", "peak", 0),
        "cost.kv_bytes": Measure(
            "bytes", False, "Most bytes of keys and values held under the budget.", "KV", 0
        ),
        "cost.state_bytes": Measure(
            "bytes", False, "Most bytes a policy held outside keys and values.", "state", 0
        ),
        "cost.transient_bytes": Measure(
            "bytes", False, "Most bytes a policy held within a chunk.", "transient", 0
        ),
        "cost.context_tokens": Measure(
            "tokens", None, "Mean context tokens per layer and head.", "tokens", 0
        ),
        "cost.context_tokens_max": Measure(
            "tokens", None, "Most context tokens of any head.", "most tokens", 0
        ),
        "cost.max_distance": Measure("frames", None, "Largest relative time distance used.", "distance", 0),
        "cost.beyond_window": Measure(
            "1", None, "Mean share of keys beyond the training window.", "beyond", 3
        ),
        "cost.prefix_seconds": Measure("s", None, "Video seconds before the budget applies.", "prefix s", 2),
    }

    def compute(self, video: Video, reference: Video | None) -> Iterator[Value]:
        """Yield the cost of the chunks after the prefix; see `measures`."""
        del reference
        yield whole("cost.prefix_seconds", video, video.prefix_frames / video.fps)
        peak = video.manifest.get("peak_bytes")
        yield whole("cost.peak_bytes", video, peak or None, "peak memory was not recorded")
        chunks = [chunk for chunk in video.trace if not chunk.get("prefix", False)]
        if not chunks:
            for name in sorted(self.measures.keys() - {"cost.prefix_seconds", "cost.peak_bytes"}):
                yield undefined(name, video, "the trace holds no chunk after the prefix")
            return
        yield from _seconds(video, chunks)
        yield from _sizes(video, chunks)


def _column(chunks: list[dict[str, Any]], name: str) -> np.ndarray | None:
    """Return one trace field over chunks, or None when a chunk lacks it."""
    values = [chunk.get(name) for chunk in chunks]
    return None if any(value is None for value in values) else np.array(values, np.float64)


def _seconds(video: Video, chunks: list[dict[str, Any]]) -> Iterator[Value]:
    seconds = _column(chunks, "seconds")
    missing = "the trace has no field 'seconds'"
    total = None if seconds is None else float(seconds.sum())
    yield whole("cost.seconds", video, total, missing)
    for part in _PARTS:
        spent = _column(chunks, f"{part}_seconds")
        yield whole(f"cost.{part}_seconds", video, _sum(spent), f"the trace has no field '{part}_seconds'")
    policy = _sum(_column(chunks, "policy_seconds"))
    share = policy / total if policy is not None and total else None
    yield whole("cost.policy_share", video, share, "the trace has no seconds of the policy or of the chunk")
    frames = len(chunks) * video.chunk_frames if video.made_frames is None else video.made_frames
    yield whole("cost.fps", video, frames / total if total else None, missing)
    for label, quantile in _QUANTILES.items():
        value = None if seconds is None else float(np.quantile(seconds, quantile))
        yield whole(f"cost.chunk_{label}", video, value, missing)


def _sizes(video: Video, chunks: list[dict[str, Any]]) -> Iterator[Value]:
    for name in _LARGEST:
        values = _column(chunks, name)
        value = None if values is None else float(values.max())
        yield whole(f"cost.{name}", video, value, f"the trace has no field '{name}'")
    for name in ("context_tokens", "beyond_window"):
        values = _column(chunks, name)
        value = None if values is None else float(values.mean())
        yield whole(f"cost.{name}", video, value, f"the trace has no field '{name}'")


def _sum(values: np.ndarray | None) -> float | None:
    return None if values is None else float(values.sum())
