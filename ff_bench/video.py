"""Read and write video files: lossless records, previews for browsers, a codec step; the hash of frames."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ff_bench import files

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
    _check(frames, fps)
    return _encode(Path(path), frames, fps, _RECORD)


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
    """Return the SHA-256 (hex) of the RGB bytes in frame, row, column, channel order.

    Args:
        frames: RGB, (T, H, W, 3) uint8.
    """
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
    _check(frames, fps)
    if scale is None:
        scale = max(1, round(_PREVIEW_SIDE / min(frames.shape[1:3])))
    if scale < 1:
        raise ValueError(f"scale={scale} is not a whole number >= 1")
    # A key frame per second makes seeking quick.
    target = _Target("libx264", "yuv420p", {**_PREVIEW, "g": str(max(1, round(fps)))})
    return _encode(Path(path), (_enlarge(frame, scale) for frame in frames), fps, target)


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


def _encode(path: Path, frames: Iterable[np.ndarray], fps: float, target: _Target) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = (
        {"fflags": "+bitexact", "movflags": "+faststart"}
        if path.suffix == ".mp4"
        else {"fflags": "+bitexact"}
    )
    converter = (
        VideoReformatter()
    )  # one for all frames: setting one up costs more than converting a small frame
    with files.temporary(path) as part, av.open(str(part), "w", options=flags) as container:
        stream = None
        for frame in frames:
            if stream is None:
                stream = _open_stream(container, frame, fps, target)
            container.mux(stream.encode(_convert(frame, target.pixels, converter)))
        assert stream is not None, "no frames"
        container.mux(stream.encode())
    return path


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
    with av.open(os.fspath(path)) as container:
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
