"""Bring a raw data set into one form.

reads  data/raw/<dataset>
writes data/frames/<video>.arrow, data/masks/<video>.npz, data/videos.parquet, data/labels.parquet

Image files are kept byte for byte; video files are decoded once, to PNG. Every frame is read and checked. After a
kill, finished videos are found again in data/scratch.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import cv2
import joblib
import numpy as np
import pandas as pd
from av.error import FFmpegError
from tqdm import tqdm

from stages.command import VigilError, command
from stages.datasets import RAW, check_totals, find_videos, layout
from stages.datasets.common import Labels, Truth, Video
from stages.io.files import remove, replacing
from stages.io.frames import ImageError, Stored, image_form, write_store
from stages.params import load

DATA = Path("data")
SHOWN = 20  # unreadable files that an error message names
PNG_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]


@command
def main() -> str:
    """Read the data set that params.yaml names; write frame stores, masks, and the tables of videos and labels."""
    params = load()
    dataset, partial = params.dataset, params.frames.partial
    root = RAW / dataset
    videos = find_videos(dataset, partial)
    tests = [video for video in videos if video.split == "test"]
    names = json.dumps([dataset, [video.name for video in videos]])
    scratch = DATA / "scratch" / f"frames-{hashlib.sha256(names.encode()).hexdigest()[:16]}"
    (scratch / "frames").mkdir(parents=True, exist_ok=True)
    (scratch / "masks").mkdir(exist_ok=True)

    masked = {name: flags for name, flags in per_video(write_mask, tests, params.workers, "masks", root, scratch)
              if flags is not None}  # fmt: skip
    known = {video.name: len(video.source) for video in tests if isinstance(video.source, tuple)}
    if len(known) == len(tests):  # wrong labels stop here, before the long part
        check_totals(dataset, known, layout(dataset).labels(root, known, masked), partial)
    check_space(videos, scratch)

    stored: dict[str, Stored] = {}
    fps: dict[str, float] = {}
    problems: list[str] = []
    for name, (result, rate, wrong) in per_video(write_frames, videos, params.workers, "frames", root, scratch):
        stored[name], fps[name] = result, rate
        problems += wrong
    if problems:
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise VigilError(
            f"{len(problems)} file(s) cannot be used; fetch them again, or remove their videos:\n  "
            + "\n  ".join(sorted(problems)[:SHOWN])
            + more
        )

    counts = {video.name: stored[video.name].frames for video in tests}
    check_mask_sizes(root, scratch, stored, masked)
    labels = layout(dataset).labels(root, counts, masked)
    check_totals(dataset, counts, labels, partial)

    for folder in ("frames", "masks"):
        remove(DATA / folder)
        os.replace(scratch / folder, DATA / folder)
    with replacing(DATA / "videos.parquet") as path:
        video_table(videos, stored, fps, root).to_parquet(path, index=False)
    with replacing(DATA / "labels.parquet") as path:
        label_table(labels).to_parquet(path, index=False)
    remove(scratch)
    total = sum(form.frames for form in stored.values())
    return (
        f"{root} ({len(videos)} videos) -> {DATA / 'frames'} ({total} frames, label sets: {', '.join(labels) or '-'})"
    )


def per_video(task: Any, videos: list[Video], workers: int, what: str, *args: Any) -> Iterator[tuple[str, Any]]:
    """Yield (video name, task(video, *args)) for all videos, in parallel, in natural order."""
    run = joblib.Parallel(n_jobs=min(workers or joblib.cpu_count(), max(len(videos), 1)), return_as="generator")
    results = run(joblib.delayed(task)(video, *args) for video in videos)
    yield from zip(
        [video.name for video in videos],
        tqdm(results, what, len(videos), unit="video", disable=None),
        strict=True,
    )


def write_mask(video: Video, root: Path, scratch: Path) -> np.ndarray | None:
    """Pack a video's pixel truth into its .npz file; return the frames that have any, or None without truth."""
    mask = layout(root.name).mask(root, video)
    if mask is None:
        return None
    with replacing(scratch / "masks" / f"{video.name}.npz") as path:
        np.savez_compressed(path, mask=np.packbits(mask, axis=-1), shape=np.array(mask.shape))
    return np.any(mask, axis=(1, 2))


def write_frames(video: Video, root: Path, scratch: Path) -> tuple[Stored | None, float, list[str]]:
    """Write a video's frame store, unless it is there and its source has not changed since.

    Returns what is stored, frames a second, and a line for each file that cannot be used.
    """
    cv2.setNumThreads(1)  # the processes are the parallelism
    path = scratch / "frames" / f"{video.name}.arrow"
    done = scratch / "done" / f"{video.name}.json"
    files = [video.source] if isinstance(video.source, Path) else video.source
    state = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    if path.exists() and done.exists():
        record = json.loads(done.read_text())
        if record["state"] == state:
            return Stored(**record["stored"]), record["fps"], []
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
        return None, fps, problems or [f"{video.folder}: {error}"]
    with replacing(done) as temporary:
        temporary.write_text(json.dumps({"state": state, "stored": asdict(stored), "fps": fps}))
    return stored, fps, []


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
        stream = container.streams.video[0]
        declared, exact = stream.frames, stream.frames > 0
        if not exact and container.duration and stream.average_rate:
            declared = int(container.duration / av.time_base * stream.average_rate * 0.99) - 1
        count = 0
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise ImageError(f"damaged after frame {count}")
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise ImageError(f"frame {count} is damaged")
                pixels = frame.to_ndarray(format="gray" if frame.format.name == "gray" else "bgr24")
                pixels = np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))
                yield cv2.imencode(".png", pixels, PNG_FAST)[1].tobytes()
                count += 1
    if count < declared:
        raise ImageError(
            f"ends after {count} frames, {'declares' if exact else 'its length means at least'} {declared}; if it is "
            f"whole, make it consistent: ffmpeg -i {path.name} -c:v ffv1 {path.stem}.mkv"
        )


def check_space(videos: list[Video], scratch: Path) -> None:
    """Raise VigilError where the frames will not fit on the disk: image files exactly, video files roughly."""
    need = 0
    for video in videos:
        if (scratch / "frames" / f"{video.name}.arrow").exists():
            continue
        if isinstance(video.source, Path):
            need += estimated_size(video.source)
        else:
            need += sum(file.stat().st_size for file in video.source)
    free = shutil.disk_usage(scratch).free
    if need > free:
        raise VigilError(
            f"the frames need about {need / 1e9:.1f} GB, {DATA} has {free / 1e9:.1f} GB free: make room, or let "
            f"{DATA} be a symbolic link to a larger disk"
        )


def estimated_size(path: Path) -> int:
    """Bytes that a video file's frames take as PNG: about 1.3 a pixel; 0 for a file that cannot be opened."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            seconds = (container.duration or 0) / av.time_base
            frames = stream.frames or seconds * float(stream.average_rate or 0)
            return int(frames * stream.width * stream.height * 1.3)
    except (FFmpegError, IndexError):  # named with the other bad files when it is read
        return 0


def check_mask_sizes(root: Path, scratch: Path, stored: dict[str, Stored], masked: Truth) -> None:
    """Raise VigilError for a video whose masks do not have its frames' number, height and width."""
    for name in masked:
        with np.load(scratch / "masks" / f"{name}.npz") as file:
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
    """The labels: one row a frame of each labelled video, for each label set; empty without labels."""
    columns = {"label_set": "str", "video": "str", "frame": "int32", "abnormal": "bool"}
    parts = [
        pd.DataFrame({"label_set": label_set, "video": video, "frame": np.arange(len(flags)), "abnormal": flags})
        for label_set, videos in labels.items()
        for video, flags in videos.items()
    ]
    return (pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(columns))).astype(columns)


if __name__ == "__main__":
    main()
