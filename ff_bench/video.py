"""Read and write video files: lossless records, previews for browsers, a codec step; the hash of frames."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ff_bench import files, video_kinds

Take = Callable[[np.ndarray], None]
"""Takes the next frames of a video, RGB, (T, H, W, 3) uint8, T >= 1."""
_PREVIEW_SIDE = 256  # px: a smaller frame is enlarged to about this
_BT709 = 1  # the code of BT.709 for primaries, transfer and matrix alike


@dataclass(frozen=True)
class _Target:
    """Codec, pixel format and options of a file."""

    codec: str
    pixels: str
    options: Mapping[str, str]


# Every frame stands alone, four slices with checksums: the file depends on nothing but the frames.
_RECORD = _Target(
    "ffv1", "bgr0", {"level": "3", "coder": "1", "context": "0", "g": "1", "slices": "4", "slicecrc": "1"}
)
# x264's macroblock tree makes its output depend on the machine's load.
_PREVIEW = {"crf": "18", "preset": "veryfast", "x264-params": "mbtree=0"}


def write_record(path: str | os.PathLike[str], frames: np.ndarray, fps: float) -> Path:
    """Write frames losslessly (FFV1 in Matroska), under a temporary name first.

    Args:
        path: Target; by custom it ends in ``.mkv``.
        frames: RGB, (T, H, W, 3) uint8, T >= 1.
        fps: Frames per second.

    Returns:
        The target.

    Raises:
        ValueError: When frames are not a (T, H, W, 3) uint8 array with at least one frame.
    """
    with recording(path, fps) as take:
        take(frames)
    return Path(path)


@contextmanager
def recording(path: str | os.PathLike[str], fps: float) -> Iterator[Take]:
    """Write a record as its frames come; the file takes its name when all went well.

    Args:
        path: Target; by custom it ends in ``.mkv``.
        fps: Frames per second.

    Yields:
        What takes the next frames, one or more; it raises ValueError for anything else.
    """
    with _encoding(Path(path), fps, _RECORD) as encoder:
        yield encoder.take


def read_record(path: str | os.PathLike[str]) -> np.ndarray:
    """Read all frames of a video file as RGB, (T, H, W, 3) uint8.

    Exact for records written by `write_record`; other files are converted from their own colour space.

    Raises:
        ValueError: When the file has no frames.
    """
    frames = list(decode(path))
    if not frames:
        raise ValueError(f"record '{path}' holds no frames; expected at least one")
    return np.stack(frames)


def frames_sha256(frames: np.ndarray) -> str:
    """Return the SHA-256 (hex) of RGB (T, H, W, 3) uint8, its bytes in frame, row, column, channel order."""
    return hashlib.sha256(np.ascontiguousarray(frames).data).hexdigest()


def write_video(
    path: str | os.PathLike[str], frames: np.ndarray, fps: float, *, scale: int | None = None
) -> Path:
    """Write a preview that plays in browsers (H.264, yuv420p, BT.709, crf 18, faststart).

    Args:
        path: Target; by custom it ends in ``.mp4``.
        frames: RGB, (T, H, W, 3) uint8.
        fps: Frames per second.
        scale: Whole-number enlargement by nearest neighbour; None picks the one that brings the shorter
            side to about 256 px (1 for larger frames).

    Returns:
        The target.

    Raises:
        ValueError: When frames are not a (T, H, W, 3) uint8 array, or scale is below 1.
    """
    with previewing(path, fps, scale=scale) as take:
        take(frames)
    return Path(path)


@contextmanager
def previewing(path: str | os.PathLike[str], fps: float, *, scale: int | None = None) -> Iterator[Take]:
    """Write a preview as its frames come; the file takes its name when all went well.

    Args:
        path: Target; by custom it ends in ``.mp4``.
        fps: Frames per second.
        scale: As for `write_video`.

    Yields:
        What takes the next frames, one or more; it raises ValueError for anything else.
    """
    if scale is not None and scale < 1:
        raise ValueError(f"scale={scale} is not a whole number >= 1")
    # A key frame per second makes seeking quick.
    target = _Target("libx264", "yuv420p", {**_PREVIEW, "g": str(max(1, round(fps)))})
    with _encoding(Path(path), fps, target, scale=scale) as encoder:
        yield encoder.take


def _check(frames: np.ndarray, fps: float) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(
            f"frames are {frames.dtype} of shape {frames.shape}; expected uint8 of shape (T >= 1, H, W, 3)"
        )
    if not fps > 0:
        raise ValueError(f"fps={fps} is not positive")


def _enlarge(frame: np.ndarray, scale: int) -> np.ndarray:
    """Repeat each pixel `scale` times each way and pad to even sides, which yuv420p needs."""
    large = frame.repeat(scale, axis=0).repeat(scale, axis=1)
    odd = [(0, side % 2) for side in large.shape[:2]]
    return np.pad(large, [*odd, (0, 0)], mode="edge") if any(pad for _, pad in odd) else large


@contextmanager
def _encoding(path: Path, fps: float, target: _Target, *, scale: int | None = None) -> Iterator[_Encoder]:
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = {"fflags": "+bitexact", **({"movflags": "+faststart"} if path.suffix == ".mp4" else {})}
    with files.temporary(path) as part, av.open(str(part), "w", options=flags) as container:
        encoder = _Encoder(container, fps, target, scale)
        yield encoder
        encoder.end()


class _Encoder:
    """A file under way; its stream begins with the first frame."""

    def __init__(
        self, container: av.container.OutputContainer, fps: float, target: _Target, scale: int | None
    ) -> None:
        self._container, self._fps, self._target, self._scale = container, fps, target, scale
        self._stream: av.VideoStream | None = None
        self._converter = VideoReformatter()  # setting one up costs more than converting a small frame

    def take(self, frames: np.ndarray) -> None:
        """Encode further frames."""
        _check(frames, self._fps)
        for frame in frames:
            shown = frame
            if self._target is not _RECORD:
                shown = _enlarge(frame, self._scale or max(1, round(_PREVIEW_SIDE / min(frame.shape[:2]))))
            if self._stream is None:
                self._stream = _open_stream(self._container, shown, self._fps, self._target)
            converted = _convert(shown, self._target.pixels, self._converter)
            self._container.mux(self._stream.encode(converted))

    def end(self) -> None:
        """Write what the codec holds back."""
        assert self._stream is not None, "no frames"
        self._container.mux(self._stream.encode())


def _open_stream(
    container: av.container.OutputContainer, frame: np.ndarray, fps: float, target: _Target
) -> av.VideoStream:
    rate = Fraction(fps).limit_denominator(1001)
    stream = container.add_stream(target.codec, rate=rate, options=dict(target.options))
    assert isinstance(stream, av.VideoStream), target.codec
    stream.height, stream.width = frame.shape[:2]
    stream.pix_fmt = target.pixels
    context = stream.codec_context
    context.thread_count = 1
    if target.pixels == "yuv420p":
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = ColorRange.MPEG
    return stream


def _convert(frame: np.ndarray, pixels: str, converter: VideoReformatter) -> av.VideoFrame:
    source = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    if pixels != "yuv420p":
        return converter.reformat(source, format=pixels)
    converted = converter.reformat(
        source, format=pixels, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
    )
    # The frame's own tags win over the encoder's, so they are set here too.
    converted.colorspace, converted.color_range = _BT709, ColorRange.MPEG
    return converted


def decode(path: str | os.PathLike[str]) -> Iterator[np.ndarray]:
    """Yield the frames of a video file one by one as RGB, (H, W, 3) uint8.

    Raises:
        av.FFmpegError: Where the file cannot be read, or breaks off.
        IndexError: Where it holds no video.
    """
    converter = VideoReformatter()
    with av.open(os.fspath(path), options=video_kinds.VIDEOS) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            yield converter.reformat(frame, format="rgb24").to_ndarray()


class Recoder:
    """The codec step: frames go through H.264 as a video file would, as they come, so that few are held.

    libx264 at its defaults (CRF 23), yuv420p; one thread, as the number of threads changes what x264 writes.
    """

    def __init__(self, fps: int) -> None:
        """Begin a video.

        Args:
            fps: Frames per second that the encoder is told.
        """
        self.fps = fps
        self._encoder = av.CodecContext.create("libx264", "w")
        self._decoder = av.CodecContext.create("h264", "r")
        self._encoder.thread_count = self._decoder.thread_count = 1
        self._converter = VideoReformatter()
        self._count = 0

    def push(self, frame: np.ndarray) -> list[np.ndarray]:
        """Take a frame and return those that are done, in order; the encoder holds some back.

        Args:
            frame: RGB, (H, W, 3) uint8, even sides.

        Raises:
            ValueError: Where a side is odd, which 4:2:0 cannot hold.
        """
        if not self._count:
            self._begin(*frame.shape[:2])
        source = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        source.pts = self._count
        self._count += 1
        return self._through(self._encoder.encode(source))

    def end(self) -> list[np.ndarray]:
        """Return the frames that were held back."""
        if not self._count:
            return []
        rest = self._through(self._encoder.encode(None))
        return [*rest, *(self._rgb(frame) for frame in self._decoder.decode(None))]

    def _begin(self, height: int, width: int) -> None:
        if height % 2 or width % 2:
            raise ValueError(
                f"frames of {width}x{height} px cannot go through the codec step: sides must be even"
            )
        self._encoder.height, self._encoder.width, self._encoder.pix_fmt = height, width, "yuv420p"
        self._encoder.framerate, self._encoder.time_base = Fraction(self.fps), Fraction(1, self.fps)

    def _through(self, packets: Iterable[av.Packet[Any]]) -> list[np.ndarray]:
        return [self._rgb(frame) for packet in packets for frame in self._decoder.decode(packet)]

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        image: np.ndarray = self._converter.reformat(frame, format="rgb24").to_ndarray()
        return image


def recode(frames: Iterable[np.ndarray], fps: int) -> Iterator[np.ndarray]:
    """Send frames through `Recoder` and yield as many, RGB, (H, W, 3) uint8."""
    codec = Recoder(fps)
    for frame in frames:
        yield from codec.push(frame)
    yield from codec.end()
