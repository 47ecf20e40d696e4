"""What a video file holds: its pictures, told from those that its container only promises."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from ff_bench import video_kinds

SLOWEST, FASTEST = 1, 1000
"""Frames per second: below, metrics have no frame in every second; above, the file's clock is broken."""
LATE = Fraction(3, 4)
"""Frames by which a video may end before the time that its container promises, which is rounded."""
LATE_SOUND = Fraction(1, 10)
"""Seconds more where the promise covers sound, whose last packets do not tell their length."""
UNEVEN = Fraction(1, 20)
"""Share of a frame's time by which a steady rate may be off at a frame, beside ticks of the file's clock."""
TS_PACKET, GIF_END = 188, b";"


class Broken(ValueError):
    """A file that cannot be scored; its text says why."""


@dataclass(frozen=True)
class Probe:
    """A file all of whose frames were decoded.

    Attributes:
        frames: Number of frames.
        fps: Frames per second; of a variable rate the average.
        is_variable: Whether the time between frames varies by more than the file's clock explains.
        height: Pixels.
        width: Pixels.
        container: Its names, as `mov,mp4,...`.
        codec: Such as `h264`.
        pixels: Format of the stored pictures, such as `yuv420p`.
        frames_sha256: Digest of the decoded RGB.
    """

    frames: int
    fps: Fraction
    is_variable: bool
    height: int
    width: int
    container: str
    codec: str
    pixels: str
    frames_sha256: str


@dataclass
class _Seen:
    """What a pass over a file has met.

    Attributes:
        times: Of the frames, in ticks of the stream; None where a frame has no time.
        latest: Time of the last frame that has one.
        packets: Packets of the video.
        own_end: Seconds at which the last packet of the video ends.
        end: Seconds at which the last packet of any stream ends.
    """

    times: list[int | None] = field(default_factory=list)
    latest: int | None = None
    packets: int = 0
    own_end: Fraction = Fraction(0)
    end: Fraction = Fraction(0)


def examine(path: Path) -> Probe:
    """Decode a file once from end to end: only that tells how many frames it has, and whether it is whole.

    Args:
        path: Of the file, absolute.

    Raises:
        Broken: Why it cannot be scored.
    """
    with _opened(path) as (container, stream):
        seen, digest = _Seen(), hashlib.sha256()
        for image in _decode(container, stream, seen):
            digest.update(np.ascontiguousarray(image).data)
        if not seen.times:
            raise Broken("it holds no frame")
        fps, is_variable = rate(seen.times, stream)
        _check_whole(container, stream, seen, fps)
        if not SLOWEST <= fps <= FASTEST:
            raise Broken(f"{float(fps):g} frames per second, allowed are {SLOWEST} to {FASTEST}")
        context = stream.codec_context
        return Probe(
            frames=len(seen.times), fps=fps, is_variable=is_variable, height=image.shape[0],
            width=image.shape[1], container=container.format.name, codec=str(context.codec.canonical_name),
            pixels=str(context.pix_fmt), frames_sha256=digest.hexdigest(),
        )  # fmt: skip


def decode(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a file one by one, RGB, (H, W, 3) uint8.

    Raises:
        Broken: Where the file cannot be read.
    """
    with _opened(path) as (container, stream):
        yield from _decode(container, stream, _Seen())


@contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    if not str(path).isprintable() and "\ufffd" in os.fsencode(path).decode(errors="replace"):
        raise Broken("its path is not UTF-8: rename it")
    if not path.is_file():
        raise Broken("it is no plain file" if path.exists() else "there is no such file")
    if not path.stat().st_size:
        raise Broken("the file is empty")
    try:
        fault = video_kinds.header_fault(path)
    except OSError as error:
        fault = f"it cannot be read ({_words(error)})"
    if fault:
        raise Broken(fault)
    try:
        container = av.open(str(path), options=video_kinds.VIDEOS)
    except av.ArgumentError:
        raise Broken(
            "it is no container of videos such as .mp4, but a list, a picture or a bare stream"
        ) from None
    except (av.FFmpegError, ValueError) as error:
        cut = ", perhaps since it breaks off before its index" if _is_mp4(path) else ""
        raise Broken(f"it cannot be read as a video ({_words(error)}){cut}") from None
    with container:
        pictures = av.stream.Disposition.attached_pic
        streams = [stream for stream in container.streams.video if not stream.disposition & pictures]
        if not streams:
            raise Broken(f"it holds no video ({_kinds(container)})")
        if streams[0].codec_context is None:
            raise Broken("no decoder for its video is here")
        _check_size(streams[0].width, streams[0].height)
        streams[0].thread_type = "AUTO"
        yield container, streams[0]


def _check_size(width: int, height: int) -> tuple[int, int]:
    """Return height and width, which a machine must be able to hold."""
    if width * height > video_kinds.LARGEST_PIXELS:
        raise Broken(
            f"its frames have {width} x {height} pixels, allowed are {video_kinds.LARGEST_PIXELS} at most"
        )
    return height, width


def _decode(
    container: av.container.InputContainer, stream: av.VideoStream, seen: _Seen
) -> Iterator[np.ndarray]:
    """Yield frames; anything amiss with one is an error, since a decoder would rather hide it."""
    converter, size = VideoReformatter(), (0, 0)
    try:
        for packet in container.demux():
            _note(packet, stream, seen)
            for frame in stream.decode(packet) if packet.stream.index == stream.index else ():
                size = size if seen.times else _check_size(frame.width, frame.height)
                if (frame.height, frame.width) != size:
                    raise Broken(f"the size changes after {len(seen.times)} frames")
                if frame.is_corrupt:
                    raise Broken(f"it is damaged after {len(seen.times)} frames")
                if frame.pts is not None and seen.latest is not None and frame.pts < seen.latest:
                    raise Broken(f"its clock goes back after {len(seen.times)} frames")
                seen.latest = seen.latest if frame.pts is None else frame.pts
                seen.times.append(frame.pts)
                yield converter.reformat(frame, format="rgb24").to_ndarray()
    except av.FFmpegError as error:
        raise Broken(f"it breaks off after {len(seen.times)} frames ({_words(error)})") from None


def _note(packet: Any, stream: av.VideoStream, seen: _Seen) -> None:
    """Count a packet and note when it ends; a picture that does not say lasts as long as the average."""
    if not packet.size:
        return
    if packet.is_corrupt:
        raise Broken(f"it breaks off or is damaged after {len(seen.times)} frames")
    is_own, time = packet.stream.index == stream.index, packet.pts if packet.pts is not None else packet.dts
    seen.packets += is_own
    if time is None or not packet.time_base:
        return
    length = (packet.duration or 0) * packet.time_base
    if is_own and not length and stream.average_rate:
        length = 1 / Fraction(stream.average_rate)
    end = time * packet.time_base + length
    seen.own_end = max(seen.own_end, end) if is_own else seen.own_end
    seen.end = max(seen.end, end)


def _check_whole(
    container: av.container.InputContainer, stream: av.VideoStream, seen: _Seen, fps: Fraction
) -> None:
    """Compare with what the container promises; none of its numbers is right in every whole file.

    A cut made without encoding again leaves packets that are not shown; some clocks do not begin at 0, but
    count from there. A transport stream that ends between two of its pieces cannot be told from a whole one.
    """
    promised, end = _promised(container, stream), seen.own_end
    late = LATE / fps
    if promised is None:
        promised, end = Fraction(container.duration or 0, av.time_base), seen.end
        late += LATE_SOUND if len(container.streams) > 1 else 0
    start = min(Fraction(container.start_time or 0, av.time_base), Fraction(0))
    is_late = promised > 0 and end - start < promised - late
    is_less = 0 < seen.packets < stream.frames
    told = ""
    if is_less and (is_late or not promised):
        told = f" of {stream.frames}"
    elif is_late and not stream.frames:
        told = f" ({float(end):.2f} of {float(promised):.2f} s)"
    elif _lacks_end(container):
        told = " (the mark of its end is missing)"
    if told:
        raise Broken(f"it breaks off after {len(seen.times)} frames{told}")


def _promised(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction | None:
    """Return the seconds that a container promises for the video alone, None where it does not say."""
    clock = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if clock:  # of Matroska, whose streams have no duration of their own
        return 3600 * int(clock[1]) + 60 * int(clock[2]) + Fraction(clock[3])
    if stream.duration and stream.time_base:
        return stream.duration * stream.time_base
    return None


def _lacks_end(container: av.container.InputContainer) -> bool:
    """Say whether a file of a kind that promises no time ends otherwise than such files do."""
    kind = container.format.name
    if kind == "asf":
        return not container.duration
    if kind == "mpegts":
        return bool(container.size % TS_PACKET)
    with Path(container.name).open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return kind == "gif" and stream.read(1) != GIF_END


def rate(times: list[int | None], stream: av.VideoStream) -> tuple[Fraction, bool]:
    """Return frames per second and whether the rate varies.

    Files round times to their clock, so a steady rate is known by the container's own number where that fits.

    Args:
        times: Of all frames, in ticks of the stream.
        stream: Whose rates are what the container says.
    """
    told = [Fraction(found) for found in (stream.average_rate, stream.guessed_rate) if found]
    known = sorted(time for time in times if time is not None)
    if len(known) < len(times) or len(known) < 2 or known[0] == known[-1] or not stream.time_base:
        if not told:
            raise Broken("its frame rate is not known")
        return told[0], False
    tick, span = stream.time_base, (known[-1] - known[0]) * stream.time_base
    measured = (len(known) - 1) / span
    blur = 2 * tick / span
    near = [found for found in (*told, *_usual(measured)) if abs(found / measured - 1) <= blur]
    gaps = [(after - before) * tick for before, after in pairwise(known)]
    slack = Fraction(3, 2) * tick + UNEVEN / measured
    if max(abs(gap - 1 / measured) for gap in gaps) > slack:
        return measured, True
    return (near[0] if near else measured), False


def _usual(fps: Fraction) -> tuple[Fraction, ...]:
    """Return the rates next to a measured one that cameras and films have."""
    return Fraction(round(fps)), Fraction(1000 * round(fps * Fraction(1001, 1000)), 1001)


def _is_mp4(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(8)[4:] == b"ftyp"


def _kinds(container: av.container.InputContainer) -> str:
    kinds = sorted({stream.type for stream in container.streams})
    return f"only {', '.join(kinds)}" if kinds else "no stream at all"


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", "") or error).strip()
