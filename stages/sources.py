"""Frames that no stage has prepared: of a video file, a folder of images, a stream, a camera, a pipe.

H, W of the source, C its channels.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.error import ExitError, FFmpegError, InvalidDataError
from jaxtyping import UInt8

from stages.command import VigilError
from stages.datasets.common import IMAGES, listed
from stages.frames import upright, whole_frames
from stages.io.frames import ImageError, image_form

SILENT = 10.0  # seconds without a frame after which a stream or a camera counts as gone
Images = Iterator[tuple[float, UInt8[np.ndarray, "H W *C"]]]
"""Seconds since the first frame, NaN where unknown, and the frame, blue first or grey (H, W)."""


@dataclass(frozen=True)
class Source:
    """An open video.

    Attributes:
        name: short, for files; an address has no password in it.
        fps: frames a second, NaN where unknown.
        frames: how many there are, about; None where nobody knows.
        live: whether it comes at its own pace.
        images: its frames. Raises ImageError or FFmpegError where it is damaged or breaks off; of a live one damaged
            frames are left out.
    """

    name: str
    fps: float
    frames: int | None
    live: bool
    images: Images


@contextmanager
def opened(video: str, fps: float = np.nan) -> Iterator[Source]:
    """Open a video file, a folder of images, an address (rtsp://...), a camera (/dev/video0) or a pipe (-).

    `fps` is taken where the source does not say how many frames a second it has. Raises VigilError where it cannot be
    opened or has no frames.
    """
    path, shown = Path(video), without_password(video)
    if fps <= 0:
        raise VigilError(f"found {fps:g} frames a second, expected a number above 0")
    if path.is_dir():
        yield folder_of_images(path, fps)
        return
    camera, address = path.is_char_device(), "://" in video
    live = camera or address or video == "-" or path.is_fifo()
    try:
        container = av.open(
            sys.stdin.buffer if video == "-" else video,
            mode="r",
            format="v4l2" if camera else None,
            options={"rtsp_transport": "tcp"} if video.startswith("rtsp") else {},
            timeout=SILENT if camera or address else None,
        )
    except ExitError:
        raise VigilError(f"{shown} cannot be opened as a video: silent for {SILENT:g} s") from None
    except FFmpegError as error:
        raise VigilError(f"{shown} cannot be opened as a video: {error.strerror}") from None
    with container:
        if not container.streams.video:
            raise VigilError(f"{shown} has no video in it")
        stream = container.streams.video[0]
        rate = float(stream.average_rate or stream.guessed_rate or fps)
        seconds = (container.duration or 0) / av.time_base
        name = "stdin" if video == "-" else re.sub(r"[^\w.-]+", "_", shown.split("://")[1]) if address else path.stem
        images = since_first(live_frames(container) if live else whole_frames(container), rate)
        frames = stream.frames or (round(seconds * rate) if rate > 0 else 0)
        yield Source(name, rate, frames or None, live, images)


def without_password(address: str) -> str:
    """An address without user name and password."""
    return re.sub(r"//[^/@]*@", "//", address)


def since_first(frames: Iterator[tuple[float | None, UInt8[np.ndarray, "H W *C"]]], fps: float) -> Images:
    """Count presentation times from the first frame on; by `fps` where a frame has none."""
    first = None
    for number, (seconds, image) in enumerate(frames):
        first = seconds if first is None else first
        yield number / fps if seconds is None or first is None else seconds - first, image


def live_frames(container: InputContainer) -> Iterator[tuple[float | None, UInt8[np.ndarray, "H W *C"]]]:
    """Presentation time and pixels of each whole frame; a stream that one joins starts with damaged ones.

    Raises FFmpegError where it breaks off, ImageError where it falls silent.
    """
    try:
        for packet in container.demux(container.streams.video[0]):
            try:
                frames = packet.decode()
            except InvalidDataError:
                continue
            for frame in frames:
                if not frame.is_corrupt:
                    yield frame.time, upright(frame)
    except ExitError:
        raise ImageError(f"silent for {SILENT:g} s") from None


def folder_of_images(folder: Path, fps: float) -> Source:
    """The images in a folder, in natural order. Raises VigilError where there are none."""
    files = listed(folder, IMAGES)
    if not files:
        raise VigilError(f"{folder} has no images in it: expected {', '.join(sorted(IMAGES))}")

    def images() -> Images:
        size = None
        # as in a frame store: grey where all are
        grey = all(map(is_grey, files))
        for number, file in enumerate(files):
            try:
                encoded = file.read_bytes()
                *found, _ = image_form(encoded, whole=True)
            except (ImageError, OSError) as error:
                raise ImageError(f"{file.name}: {error}") from None
            size = size or found
            if found != size:
                raise ImageError(f"{file.name}: {found[1]}x{found[0]} pixels, the first has {size[1]}x{size[0]}")
            how = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
            image = cv2.imdecode(np.frombuffer(encoded, np.uint8), how)
            if image is None:
                raise ImageError(f"{file.name}: cannot be decoded")
            yield number / fps, image

    return Source(folder.resolve().name, fps, len(files), False, images())


def is_grey(file: Path) -> bool:
    """Whether an image has one channel; one that cannot be read has no say, it is named when its turn comes."""
    try:
        return image_form(file.read_bytes())[2]
    except (ImageError, OSError):
        return True
