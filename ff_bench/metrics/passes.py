"""One pass over a video: its frames are decoded once and feed every signal that was asked for."""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ff_bench import video
from ff_bench.errors import Unavailable
from ff_bench.footage import BLOCK, Footage
from ff_bench.metrics import clips
from ff_bench.metrics.recoding import recoded
from ff_bench.metrics.shelf import COMPAT, PLAIN, STRICT, Shelf
from ff_bench.metrics.signals import HEADS, Signal, kind

LOGGER = logging.getLogger(__name__)
Item = TypeVar("Item")
AHEAD = 2
"""Blocks that are decoded before they are asked for."""


@dataclass
class Feed:
    """One signal in one view: what it was fed with becomes one array per name.

    Attributes:
        key: `view/signal`.
        signal: What measures.
        parts: What came of each clip or block.
        obstacle: Why it stopped; empty while all goes well.
    """

    key: str
    signal: Signal
    parts: list[dict[str, Tensor]] = field(default_factory=list)
    obstacle: str = ""

    def take(self, frames: Tensor, *, fps: float, prompt: str, lead: int = 0) -> None:
        """Measure a clip or block; a signal that cannot stops, the others go on."""
        if self.obstacle:
            return
        try:
            with torch.inference_mode():
                self.parts.append(self.signal.measure(frames, fps=fps, prompt=prompt, lead=lead))
        except Unavailable as error:
            self.obstacle = str(error)

    def arrays(self) -> dict[str, np.ndarray]:
        """Join what was measured; `counts` say how many numbers each clip or block gave."""
        names = self.parts[0] if self.parts else {}
        joined = {name: torch.cat([part[name].cpu() for part in self.parts]).numpy() for name in names}
        counts = {f"{name}_counts": np.array([len(part[name]) for part in self.parts]) for name in names}
        return {**joined, **counts}


def measure(footage: Footage, wanted: Sequence[str], shelf: Shelf, *, fps: float, device: str) -> None:
    """Measure signals of a video in one pass and put them on its shelf.

    What cannot be measured here (a weight file or library is missing, frames are too small) is noted as an
    obstacle; everything else is finished.

    Args:
        footage: The frames.
        wanted: Keys `view/signal`.
        shelf: Where they go.
        fps: Frames per second.
        device: Torch device.

    Raises:
        ValueError: Where the frames are not what they should be; then nothing is kept.
    """
    feeds = _feeds(wanted, shelf, device, refused=_refused(footage, fps))
    if not feeds:
        return
    _Pass(footage, feeds, fps=fps, prompt=shelf.prompt, device=torch.device(device)).run()
    for feed in feeds:
        if feed.obstacle:
            shelf.obstacles[feed.key] = feed.obstacle
        else:
            shelf.put(feed.key, feed.arrays(), device=device)


def _feeds(wanted: Sequence[str], shelf: Shelf, device: str, *, refused: Mapping[str, str]) -> list[Feed]:
    """Load the signals; what cannot be loaded, or whose view cannot be had, is an obstacle."""
    feeds = []
    for name in wanted:
        view, _, signal = name.partition("/")
        if view in refused:
            shelf.obstacles[name] = refused[view]
            continue
        try:
            feeds.append(Feed(name, loaded(signal, device)))
        except Unavailable as error:
            shelf.obstacles[name] = str(error)
    return feeds


def _refused(footage: Footage, fps: float) -> dict[str, str]:
    """Say which views of a video there are not."""
    if int(fps) < 1:
        reason = f"fps={fps:g} is below 1: there are no clips of 2 s"
        return {STRICT: reason, COMPAT: reason}
    height, width = footage.size
    if height % 2 or width % 2:
        return {COMPAT: f"frames of {width}x{height} px cannot go through the codec step: sides must be even"}
    return {}


@lru_cache(maxsize=32)
def loaded(name: str, device: str) -> Signal:
    """Load a signal once per process and device.

    Raises:
        Unavailable: Where something that it needs is not here.
    """
    return kind(name)(torch.device(device))


class _Pass:
    """The frames of one video on their way to the feeds."""

    def __init__(
        self, footage: Footage, feeds: Sequence[Feed], *, fps: float, prompt: str, device: torch.device
    ) -> None:
        self.footage, self.fps, self.prompt, self.device = footage, fps, prompt, device
        self.plain = [feed for feed in feeds if feed.key.startswith(f"{PLAIN}/")]
        self.views = {
            view: [feed for feed in feeds if feed.key.startswith(f"{view}/")] for view in (STRICT, COMPAT)
        }
        self.heads = {view: _Heads(feeds, view, fps=fps) for view, feeds in self.views.items()}

    def run(self) -> None:
        """Read the video once."""
        blocks = _ahead(self.footage.blocks(), AHEAD)
        stream = self._plain(blocks) if self.plain else blocks
        if not any(self.views.values()):
            deque(stream, maxlen=0)
            return
        whole = clips.cut(stream, self.fps)
        if not self.views[COMPAT]:
            for clip in whole:
                self._clip(STRICT, clip)
        else:
            for clip, through in recoded(whole, int(self.fps), beside_gpu=self.device.type == "cuda"):
                self._clip(STRICT, clip)
                self._clip(COMPAT, through)
        for view, heads in self.heads.items():
            self._feed_heads(view, heads.end())

    def _plain(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Feed what reads the whole video, and hand the blocks on."""
        before: np.ndarray | None = None
        for block in blocks:
            lead = 0 if before is None else 1
            frames = self._upload(block if before is None else np.concatenate([before, block]))
            for feed in self.plain:
                feed.take(frames, fps=self.fps, prompt=self.prompt, lead=lead)
            before = block[-1:]
            yield block

    def _clip(self, view: str, clip: np.ndarray) -> None:
        self._feed_heads(view, self.heads[view].push(clip[0]))
        feeds = [feed for feed in self.views[view] if feed.signal.reads != HEADS]
        if feeds:
            self._feed(view, feeds, clip)

    def _feed_heads(self, view: str, blocks: Iterable[np.ndarray]) -> None:
        for block in blocks:
            self._feed(view, self.heads[view].feeds, block)

    def _feed(self, view: str, feeds: Iterable[Feed], images: np.ndarray) -> None:
        """Measure; convolutions on CUDA round to TF32 in `compat`, as VBench's do, and never in `strict`."""
        frames = self._upload(images)
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=False, allow_tf32=view == COMPAT
        ):
            for feed in feeds:
                feed.take(frames, fps=float(int(self.fps)), prompt=self.prompt)

    def _upload(self, frames: np.ndarray) -> Tensor:
        return torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2)


class _Heads:
    """The first frames of all clips on their way to what reads them; in `compat` through the codec."""

    def __init__(self, feeds: Sequence[Feed], view: str, *, fps: float) -> None:
        self.feeds = [feed for feed in feeds if feed.signal.reads == HEADS]
        self.codec = video.Recoder(int(fps)) if view == COMPAT and self.feeds else None
        self.waiting: list[np.ndarray] = []
        self.count = 0

    def push(self, head: np.ndarray) -> list[np.ndarray]:
        """Take the first frame of a clip; return blocks that are full."""
        if not self.feeds:
            return []
        self.count += 1
        self.waiting += [head.copy()] if self.codec is None else self.codec.push(head)
        if len(self.waiting) < BLOCK:
            return []
        block, self.waiting = np.stack(self.waiting[:BLOCK]), self.waiting[BLOCK:]
        return [block]

    def end(self) -> list[np.ndarray]:
        """Return the rest; a single clip has no other to compare with, and nothing is measured."""
        if self.count == 1:
            return []
        rest = [*self.waiting, *(self.codec.end() if self.codec else [])]
        return [np.stack(rest[start : start + BLOCK]) for start in range(0, len(rest), BLOCK)]


def _ahead(items: Iterable[Item], count: int) -> Iterator[Item]:
    """Make items in a thread of their own, at most `count` before they are asked for."""
    line: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(count)
    stop = threading.Event()

    def work() -> None:
        try:
            for item in items:
                if not _offer(line, (True, item), stop):
                    return
            _offer(line, (False, None), stop)
        except BaseException as error:
            _offer(line, (False, error), stop)

    thread = threading.Thread(target=work, name="decode", daemon=True)
    thread.start()
    try:
        while True:
            is_item, found = line.get()
            if is_item:
                yield found  # type: ignore[misc]
            elif isinstance(found, BaseException):
                raise found
            else:
                return
    finally:
        stop.set()


def _offer(line: queue.Queue[Item], item: Item, stop: threading.Event) -> bool:
    """Put an item in line unless its taker has left."""
    while not stop.is_set():
        try:
            line.put(item, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False
