"""The frame store: one file a video, encoded images, random access by frame index.

An Arrow IPC file with the columns `image` (encoded bytes: JPEG, PNG, TIFF, BMP) and `grey` (one channel), read
through a memory map. Beside it, per image size, a memory map of all pixels, made once and shared by all methods.

T frames, H, W of the source; S side of the square size that a method wants; C channels, 1 for a grey video else 3.
"""

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import cv2
import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from stages.io.files import replacing

ROWS = 64  # frames a record batch: what a writer holds in memory
SCHEMA = pa.schema([("image", pa.binary()), ("grey", pa.bool_())])
GREY_MODES = {"1", "L", "I", "I;16", "I;16B", "F"}  # Pillow's names
SCRATCH = Path("data/scratch")


class ImageError(ValueError):
    """An image that cannot be read, or does not fit the video that it is in."""


@dataclass(frozen=True)
class Stored:
    """What a written store holds: frames, height and width in pixels, whether all are grey, SHA-256 of the images."""

    frames: int
    height: int
    width: int
    grey: bool
    hash: str


def image_form(image: bytes, whole: bool = False) -> tuple[int, int, bool]:
    """Height, width and greyness of an encoded image, as OpenCV will decode it (EXIF orientation applied).

    `whole` decodes it too, which finds a truncated file. Raises ImageError.
    """
    try:
        with Image.open(io.BytesIO(image)) as opened:
            if whole:
                opened.load()
            width, height = opened.size
            turned = opened.getexif().get(0x0112, 1) >= 5  # the orientations that swap the axes
            return (width, height, opened.mode in GREY_MODES) if turned else (height, width, opened.mode in GREY_MODES)
    except UnidentifiedImageError:
        raise ImageError("not an image") from None
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for broken content
        raise ImageError(str(error)) from None


def write_store(path: str | Path, images: Iterable[bytes], *, fps: float, source: str) -> Stored:
    """Write encoded images of one video, in order, in bounded memory; byte-identical for the same input.

    Args:
        path: of the store; written under a temporary name, then renamed.
        images: encoded; all of one size.
        fps: frames a second; NaN where unknown.
        source: where the frames came from, for the file's metadata.

    Raises ImageError where there is no image, an image has no readable header, or its size differs from the first's.
    """
    images = iter(images)
    first = next(images, None)
    if first is None:
        raise ImageError("no frames")
    height, width, _ = image_form(first)
    digest, frames, all_grey = hashlib.sha256(), 0, True
    metadata = {"height": str(height), "width": str(width), "fps": repr(float(fps)), "source": source}
    with (
        replacing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, SCHEMA.with_metadata(metadata)) as writer,
    ):
        batch: list[bytes] = []
        greys: list[bool] = []
        for image in chain([first], images):
            *size, grey = image_form(image)
            if size != [height, width]:
                raise ImageError(f"frame {frames} is {size[1]}x{size[0]} pixels, the first is {width}x{height}")
            batch.append(image)
            greys.append(grey)
            digest.update(image)
            all_grey &= grey
            frames += 1
            if len(batch) == ROWS:
                writer.write_batch(pa.record_batch([pa.array(batch, pa.binary()), pa.array(greys)], schema=SCHEMA))
                batch, greys = [], []
        if batch:
            writer.write_batch(pa.record_batch([pa.array(batch, pa.binary()), pa.array(greys)], schema=SCHEMA))
    return Stored(frames, height, width, all_grey, digest.hexdigest())


class FrameStore:
    """The frames of one video. Safe to share between threads and to send to other processes (they reopen the file).

    Attributes:
        height, width: pixels.
        fps: frames a second, NaN where unknown.
        source: where the frames came from.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self._images, self._greys = table["image"], table["grey"]
        metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        self.height, self.width = int(metadata["height"]), int(metadata["width"])
        self.fps, self.source = float(metadata["fps"]), metadata["source"]

    def __reduce__(self):
        return FrameStore, (self.path,)

    def __len__(self) -> int:
        return len(self._images)

    @cached_property
    def grey(self) -> bool:
        """Whether every image has one channel."""
        return all(self._greys.to_pylist())

    def encoded(self, index: int) -> memoryview:
        """The stored bytes of a frame, without copying. Raises IndexError outside 0..T-1."""
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)} in {self.path}")
        return memoryview(self._images[index].as_buffer()).toreadonly()

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """A frame, blue first; a grey image has three equal channels, as from `cv2.imread`."""
        return self.read(index)

    def read(self, index: int, grey: bool = False) -> UInt8[np.ndarray, "H W *C"]:
        """A frame (H, W, 3), blue first; or, if `grey`, its luminance (H, W)."""
        data = np.frombuffer(self.encoded(index), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
        if image is None:
            raise ImageError(f"{self.path}: frame {index} cannot be decoded")
        return image


def pixels(store: str | Path, size: int, key: str, scratch: str | Path = SCRATCH) -> UInt8[np.ndarray, "T S S C"]:
    """All frames of a store, resized to size x size, as a read-only memory map; made if it is not there yet.

    Args:
        store: path of a frame store.
        size: pixels, height = width.
        key: names the content; the video table's `hash`.
        scratch: folder; the map lies in `pixels/<size>/<key>.npy` of it.
    """
    path = Path(scratch) / "pixels" / str(size) / f"{key}.npy"
    if not path.exists():
        frames = FrameStore(store)
        shape = (len(frames), size, size, 1 if frames.grey else 3)
        # written as a stream, since a full disk under a writable memory map kills the process
        with replacing(path) as temporary, open(temporary, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for index in range(len(frames)):
                file.write(resized(frames.read(index, frames.grey), size).data)
    return np.load(path, mmap_mode="r")


def resized(frame: UInt8[np.ndarray, "H W *C"], size: int) -> UInt8[np.ndarray, "S S C"]:
    """A frame in the size that a method wants, as MNAD does it: bilinear, on 8-bit pixels, `cv2.resize`'s default."""
    return cv2.resize(frame, (size, size)).reshape(size, size, -1)


def open_pixels(
    videos: pd.DataFrame, frames: str | Path, size: int, workers: int, scratch: str | Path = SCRATCH
) -> dict[str, UInt8[np.ndarray, "T S S C"]]:
    """`pixels` of every video of a video table; the missing ones are made in parallel.

    Args:
        videos: rows of the video table; `video` and `hash` are used.
        frames: folder of the frame stores, `<video>.arrow`.
        size: pixels, height = width.
        workers: processes; 0: one a core.
        scratch: folder of the memory maps.
    """
    # absolute: a worker process may have been started in another folder
    frames, scratch = Path(frames).absolute(), Path(scratch).absolute()
    stores = {video: (frames / f"{video}.arrow", key) for video, key in zip(videos.video, videos.hash, strict=True)}
    folder = scratch / "pixels" / str(size)
    absent = {key: store for store, key in stores.values() if not (folder / f"{key}.npy").exists()}
    tasks = (joblib.delayed(_make_pixels)(store, size, key, scratch) for key, store in absent.items())
    run = joblib.Parallel(
        n_jobs=min(workers or joblib.cpu_count(), max(len(absent), 1)), return_as="generator_unordered"
    )
    for _ in tqdm(run(tasks), f"pixels {size}x{size}", len(absent), unit="video", disable=None if absent else True):
        pass
    return {video: pixels(store, size, key, scratch) for video, (store, key) in stores.items()}


def _make_pixels(store: Path, size: int, key: str, scratch: str | Path) -> None:
    cv2.setNumThreads(1)  # the processes are the parallelism
    pixels(store, size, key, scratch)
