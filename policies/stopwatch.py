"""Time spent in a policy, without making the device wait inside the chunk loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Stopwatch:
    """Adds up the seconds of ``with watch.running():`` blocks; CUDA events are read only when asked."""

    def __init__(self, device: torch.device) -> None:
        """Start from zero."""
        self._is_cuda = device.type == "cuda"
        self._device = device
        self.reset()

    def reset(self) -> None:
        """Start again from zero."""
        self._seconds = 0.0
        self._events: list[tuple[Any, Any]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of the block."""
        if self._is_cuda:
            event: Any = torch.cuda.Event
            pair = (event(enable_timing=True), event(enable_timing=True))
            pair[0].record()
            yield
            pair[1].record()
            self._events.append(pair)
            return
        begin = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - begin

    @property
    def seconds(self) -> float:
        """Seconds counted so far; waits for the device."""
        if self._events:
            torch.cuda.synchronize(self._device)
            self._seconds += sum(first.elapsed_time(last) for first, last in self._events) / 1000
            self._events.clear()
        return self._seconds
