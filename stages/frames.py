"""Bring a raw data set into one form.

reads  data/raw/<dataset>
writes data/frames/<video>.arrow, data/masks/<video>.npz, data/videos.parquet, data/labels.parquet

Image files are kept byte for byte; video files are decoded once, to PNG. Every frame is read and checked. Videos that
an earlier run finished, and that have not changed since, are not read again. A video of which there are features alone
has a row in the table, of height and width 0, and no frame store.
"""

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pandas as pd
from av.container import InputContainer
from av.error import FFmpegError
from jaxtyping import UInt8

from stages.command import VigilError, command
from stages.datasets import RAW, find_labels, find_videos, layout
from stages.datasets.common import Labels, Truth, Video
from stages.datasets.weak import feature_frames
from stages.io.files import file_hash, replacing
from stages.io.frames import ImageError, Stored, image_form, write_store
from stages.io.masks import MASKS
from stages.params import load
from stages.videos import DATA, FRAMES, VIDEOS, per_video

PNG_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]


@command
def main() -> str:
    """Read the data set that params.yaml names; write frame stores, masks, and the tables of videos and labels."""
    params = load()
    dataset, partial = params.dataset, params.frames.partial
    root = RAW / dataset
    videos = find_videos(dataset, partial)
    seen = [video for video in videos if video.has_frames]
    unseen = [video for video in videos if not video.has_frames]
    tests = [video for video in seen if video.split == "test"]
    labelled = [video.name for video in videos if "test" in (video.split, video.weak_split)]

    truth = per_video(
        write_mask,
        {video.name: None for video in tests},
        MASKS,
        ".npz",
        {video.name: (video, root) for video in tests},
        identity=other_files(root, videos),
        workers=params.workers,
        desc="masks",
    )
    masked = {name: np.array(found["abnormal"], bool) for name, found in truth.items() if found}
    snippets = feature_frames(unseen)
    known = snippets | {video.name: len(video.source) for video in seen if isinstance(video.source, tuple)}
    if all(video.name in known for video in tests):  # wrong labels stop here, before the long part
        find_labels(dataset, videos, {name: known[name] for name in labelled if name in known}, masked, partial)

    records = per_video(
        write_frames,
        {video.name: states(files_of(video)) for video in seen},
        FRAMES,
        ".arrow",
        {video.name: (video, root) for video in seen},
        identity=dataset,
        workers=params.workers,
        desc="frames",
        sizes={video.name: estimated_size(video) for video in seen},
    )
    stored = {name: Stored(**record["stored"]) for name, record in records.items()}
    fps = {name: record["fps"] for name, record in records.items()}
    for video in unseen:
        stored[video.name] = Stored(snippets[video.name], 0, 0, grey=False, hash=file_hash(video.folder))
        fps[video.name] = np.nan

    check_mask_sizes(root, stored, masked)
    labels = find_labels(dataset, videos, {name: stored[name].frames for name in labelled}, masked, partial)

    with replacing(VIDEOS) as path:
        video_table(videos, stored, fps, root).to_parquet(path, index=False)
    with replacing(DATA / "labels.parquet") as path:
        label_table(labels).to_parquet(path, index=False)
    total = sum(form.frames for form in stored.values())
    what = f"{VIDEOS} (features alone, of {total} frames" if unseen else f"{FRAMES} ({total} frames"
    return f"{root} ({len(videos)} videos) -> {what}, label sets: {', '.join(labels) or '-'})"


def files_of(video: Video) -> tuple[Path, ...]:
    """The file, or the files, that a video's frames are in."""
    return (video.source,) if isinstance(video.source, Path) else video.source


def states(files: tuple[Path, ...] | list[Path]) -> list[list]:
    """Path, size and time of last change of each file: equal as long as nobody touches them."""
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def other_files(root: Path, videos: list[Video]) -> list[list]:
    """The states of all files of a raw data set that hold no frames: its truth is somewhere among them."""
    frames = {file for video in videos for file in files_of(video)}
    found = (Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names)
    return states(sorted(file for file in found if file not in frames))


def write_mask(name: str, path: Path, video: Video, root: Path) -> dict[str, Any] | None:
    """Pack a video's pixel truth into an .npz file; return which frames have any, or None without truth."""
    mask = layout(root.name).mask(root, video)
    if mask is None:
        return None
    np.savez_compressed(path, mask=np.packbits(mask, axis=-1), shape=np.array(mask.shape))
    return {"abnormal": np.any(mask, axis=(1, 2)).tolist()}


def write_frames(name: str, path: Path, video: Video, root: Path) -> dict[str, Any]:
    """Write a video's frame store; return what is stored and its frames a second.

    Raises VigilError with a line for each file that cannot be used.
    """
    cv2.setNumThreads(1)  # the processes are the parallelism
    problems: list[str] = []
    fps = np.nan
    try:
        if isinstance(video.source, Path):
            fps = frame_rate(video.source)
            images = decoded(video.source)
        else:
            images = checked(video.source, problems)
        stored = write_store(path, images, fps=fps, source=str(video.folder.relative_to(root)))
    except (ImageError, FFmpegError) as error:
        raise VigilError("\n".join(problems) or f"{video.folder}: {error}") from None
    return {"stored": asdict(stored), "fps": fps}


def checked(files: tuple[Path, ...], problems: list[str]) -> Iterator[bytes]:
    """Yield the bytes of image files, each decoded once to see that it is whole and of the first one's size.

    Goes on to the last file and adds a line to `problems` for each bad one; then raises ImageError if there was any.
    """
    size = None
    for file in files:
        try:
            image = file.read_bytes()
            *found, _ = image_form(image, whole=True)
        except (ImageError, OSError) as error:
            problems.append(f"{file}: {error}")
            continue
        size = size or found
        if found != size:
            problems.append(f"{file}: {found[1]}x{found[0]} pixels, the video's first frame has {size[1]}x{size[0]}")
            continue
        yield image
    if problems:
        raise ImageError(f"{len(problems)} bad files")


def frame_rate(path: Path) -> float:
    """Frames a second of a video file; NaN where it declares none. Raises FFmpegError or ImageError."""
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ImageError("no video in it")
        return float(container.streams.video[0].average_rate or np.nan)


def decoded(path: Path) -> Iterator[bytes]:
    """Yield a video file's frames as PNG, upright, grey where the file is grey.

    Raises FFmpegError or ImageError where a frame is damaged or the file ends before its declared end.
    """
    with av.open(str(path)) as container:
        for _, pixels in whole_frames(container):
            yield cv2.imencode(".png", pixels, PNG_FAST)[1].tobytes()


def whole_frames(container: InputContainer) -> Iterator[tuple[float | None, UInt8[np.ndarray, "H W *C"]]]:
    """Yield presentation time in seconds, None where there is none, and pixels of each frame of an open video file.

    Upright, blue first, (H, W) where the file is grey. Raises FFmpegError or ImageError where a frame is damaged or the
    file ends before its declared end.
    """
    stream = container.streams.video[0]
    declared, exact = stream.frames, stream.frames > 0
    if not exact and container.duration and stream.average_rate:
        # Matroska's duration counts from 0, also where the first frame comes later
        seconds = (container.duration - max(container.start_time or 0, 0)) / av.time_base
        declared = int(seconds * stream.average_rate * 0.99) - 1
    count = 0
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise ImageError(f"damaged after frame {count}")
        for frame in packet.decode():
            if frame.is_corrupt:
                raise ImageError(f"frame {count} is damaged")
            yield frame.time, upright(frame)
            count += 1
    if count < declared:
        path = Path(container.name)
        raise ImageError(
            f"ends after {count} frames, {'declares' if exact else 'its length means at least'} {declared}; if it is "
            f"whole, make it consistent: ffmpeg -i {path.name} -c:v ffv1 {path.stem}.mkv"
        )


def upright(frame: av.VideoFrame) -> UInt8[np.ndarray, "H W *C"]:
    """A decoded frame's pixels, blue first, (H, W) where it is grey, turned as the video says."""
    pixels = frame.to_ndarray(format="gray" if frame.format.name == "gray" else "bgr24")
    return np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))


def estimated_size(video: Video) -> int:
    """Bytes that a video's frames take: those of its image files; of a video file's, as PNG, about 1.3 a pixel."""
    if not isinstance(video.source, Path):
        return sum(file.stat().st_size for file in video.source)
    try:
        with av.open(str(video.source)) as container:
            stream = container.streams.video[0]
            seconds = (container.duration or 0) / av.time_base
            frames = stream.frames or seconds * float(stream.average_rate or 0)
            return int(frames * stream.width * stream.height * 1.3)
    except (FFmpegError, IndexError):  # named with the other bad files when it is read
        return 0


def check_mask_sizes(root: Path, stored: dict[str, Stored], masked: Truth) -> None:
    """Raise VigilError for a video whose masks do not have its frames' number, height and width."""
    for name in masked:
        with np.load(MASKS / f"{name}.npz") as file:
            found = tuple(int(side) for side in file["shape"])
        form = stored[name]
        if found != (form.frames, form.height, form.width):
            raise VigilError(
                f"{root}: masks of {name} are {found} (frames, height, width), "
                f"its frames {(form.frames, form.height, form.width)}"
            )


def video_table(videos: list[Video], stored: dict[str, Stored], fps: dict[str, float], root: Path) -> pd.DataFrame:
    """The video table: one row a video."""
    forms = [stored[video.name] for video in videos]
    return pd.DataFrame(
        {
            "video": [video.name for video in videos],
            "split": [video.split for video in videos],
            "frames": np.array([form.frames for form in forms], np.int32),
            "height": np.array([form.height for form in forms], np.int32),
            "width": np.array([form.width for form in forms], np.int32),
            "fps": np.array([fps[video.name] for video in videos], np.float32),
            "source": [str(video.folder.relative_to(root)) for video in videos],
            "hash": [form.hash for form in forms],
            "grey": [form.grey for form in forms],
            "weak_split": [video.weak_split for video in videos],
            "weak_abnormal": pd.array([video.weak_abnormal for video in videos], "boolean"),
        }
    )


def label_table(labels: Labels) -> pd.DataFrame:
    """The labels: one row a frame of each test video of either protocol, for each label set; empty without labels."""
    columns = {"label_set": "str", "video": "str", "frame": "int32", "abnormal": "bool"}
    parts = [
        pd.DataFrame({"label_set": label_set, "video": video, "frame": np.arange(len(flags)), "abnormal": flags})
        for label_set, videos in labels.items()
        for video, flags in videos.items()
    ]
    return (pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(columns))).astype(columns)


if __name__ == "__main__":
    main()
