"""Boxes around objects, for every frame of the training and test videos.

reads  data/frames, data/videos.parquet; data/raw/<dataset>/boxes with `source: imported`
writes data/boxes/<video>.parquet, data/boxes.json, metrics/previews/boxes.png

A row a box: video, frame, x1, y1, x2, y2 (pixels of the source), score (1 where there is none), class ("" where it is
not known) and origin. Sources:
    motion                      boxes around what moves; needs no weights
    cascade_rcnn, faster_rcnn   a detector's boxes, then motion boxes outside them: VEC's and STATE's rule
    imported                    VEC's published arrays, one object array a split with one (boxes, 4) array a frame
Videos that are for weak supervision only have no boxes: no method that uses boxes sees them. Read the files one by one:
of a whole folder, pandas leaves out files whose names begin with an underscore or a dot, as a user's may.
"""

import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Num, UInt8
from torch import nn

from stages import params
from stages.command import VigilError, command
from stages.datasets import RAW
from stages.device import device, device_name, devices, own_device
from stages.io.checkpoints import load_arrays
from stages.io.files import file_hash, replacing
from stages.io.frames import FrameStore
from stages.io.weights import WEIGHTS, load_weights, weights_file
from stages.motion import areas, blurred, motion_boxes, motion_map, uncovered
from stages.networks.detectors import Detections, cascade_rcnn, detect, faster_rcnn
from stages.preview import draw_preview, shown_frames
from stages.videos import DATA, FRAMES, one_class_videos, per_video, prefetched

FOLDER = DATA / "boxes"
SCHEMA = pa.schema(
    [
        ("video", pa.string()),
        ("frame", pa.int32()),
        *((side, pa.float32()) for side in ("x1", "y1", "x2", "y2")),
        ("score", pa.float32()),
        ("class", pa.string()),
        ("origin", pa.string()),
    ]
)
NETWORKS = {"cascade_rcnn": cascade_rcnn, "faster_rcnn": faster_rcnn}
COLOURS = {  # by origin; red first
    "detector": ("orange", (255, 160, 0)),
    "motion": ("blue", (0, 220, 255)),
    "imported": ("green", (120, 255, 60)),
}
NOTHING = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), [])


@command
def main() -> str:
    """Find, or import, the boxes of all training and test videos."""
    settings = params.load()
    recipe = settings.recipe("boxes")
    videos = one_class_videos()
    hashes = dict(zip(videos.video, videos.hash, strict=True))
    description: dict[str, Any] = {"source": recipe.source}
    args: dict[str, tuple]
    if recipe.source == "imported":
        files = published_files(RAW / settings.dataset / "boxes", videos)
        description["files"] = {path.name: file_hash(path) for path in files.values()}
        task, workers = import_boxes, 1
        args = {video: (boxes,) for video, boxes in published_boxes(files, videos).items()}
    else:
        description["motion"] = recipe.motion.model_dump()
        workers, names = settings.workers, ()
        if recipe.source in NETWORKS:
            description["weights"] = WEIGHTS[recipe.source].file
            description["weights_sha256"] = file_hash(weights_file(recipe.source))
            description["detector"] = recipe.detector.model_dump(exclude={"batch"})
            description["device"] = device(settings.device).type
            names = tuple(devices(settings.device))
            workers = len(names)
        task, args = find_boxes, {video: (FRAMES.absolute(), recipe, names) for video in hashes}
    counts = per_video(task, hashes, FOLDER, ".parquet", args, identity=description, workers=workers, desc="boxes")
    if recipe.source in NETWORKS:
        description["device"] = device_name(device(settings.device))
    total = {key: sum(count[key] for count in counts.values()) for key in ("frames", "empty", *COLOURS)}
    boxes = sum(total[origin] for origin in COLOURS)
    description |= {
        "videos": len(videos),
        "frames": total["frames"],
        "boxes": {origin: total[origin] for origin in COLOURS if total[origin]},
        "boxes_per_frame": round(boxes / total["frames"], 2),
        "frames_without_box": round(total["empty"] / total["frames"], 4),
    }
    with replacing(FOLDER.with_suffix(".json")) as path:
        path.write_text(json.dumps(description, indent=2) + "\n")
    preview(videos, recipe.source)
    return f"{len(videos)} videos, {total['frames']} frames -> {boxes} boxes in {FOLDER}"


def find_boxes(video: str, path: Path, frames: Path, recipe: Any, names: tuple[str, ...]) -> dict[str, int]:
    """Write one video's detector and motion boxes. A task of `per_video`.

    Args:
        video: its name.
        path: of the file to write.
        frames: folder of the frame stores.
        recipe: the section `boxes`, resolved.
        names: the devices that detectors share; none for motion boxes alone.
    """
    cv2.setNumThreads(1)  # the processes are the parallelism
    store = FrameStore(frames / f"{video}.arrow")
    grey = store.grey and not names  # a detector wants three channels; for motion one gives the same
    moving = moving_frames((store.read(index, grey) for index in range(len(store))), recipe.motion)
    rows = found_boxes(prefetched(batches(moving, recipe.detector.batch)), recipe, own_device(names) if names else "")
    return write_boxes(video, path, list(rows))


Moving = tuple[UInt8[np.ndarray, "H W *C"], UInt8[np.ndarray, "H W"]]
"""A frame and its motion map."""


def moving_frames(images: Iterable[UInt8[np.ndarray, "H W *C"]], motion: Any) -> Iterator[Moving]:
    """Yield each frame with its motion map, as soon as the frame after it is there; every frame is blurred once.

    Args:
        images: the frames of a video.
        motion: the part `boxes.motion` of params.yaml.
    """
    before = after = None
    followed: Any = pairwise(chain(images, [None]))
    for frame, following in followed:
        centre = blurred(frame, motion.blur) if after is None else after
        before = centre if before is None else before
        after = centre if following is None else blurred(following, motion.blur)
        yield frame, motion_map(before, centre, after, motion.threshold, motion.difference)
        before = centre


def batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Take items by `size`; the last batch may be smaller."""
    return iter(lambda: list(islice(items, size)), [])


def found_boxes(moving: Iterable[list[Moving]], recipe: Any, where: str) -> Iterator[dict[str, Detections]]:
    """Yield the boxes of each frame, by origin.

    Args:
        moving: batches of frames, as the detector takes them.
        recipe: the section `boxes`, resolved.
        where: names the detector's device; "" for motion boxes alone.
    """
    for batch in moving:
        found = [NOTHING] * len(batch)
        if where:
            detector = network(recipe.source, where)
            found = [chosen(one, recipe.detector) for one in detect(detector, [frame for frame, _ in batch])]
        for (_, moves), detections in zip(batch, found, strict=True):
            boxes = motion_boxes(moves, detections.boxes, recipe.motion.area, recipe.motion.extend)
            yield {"detector": detections, "motion": unscored(boxes)}


@functools.cache
def network(source: str, where: str) -> nn.Module:
    """A detector with its published weights, on a device; once a process."""
    device(where)
    built = NETWORKS[source]()
    load_weights(built, source)
    return built.to(where)


def chosen(found: Detections, detector: Any) -> Detections:
    """The detections that `boxes.detector` of params.yaml keeps: sure, not small, not covered; by ascending area."""
    kept = np.flatnonzero((found.scores > detector.score) & (areas(found.boxes) >= detector.area))
    kept = kept[uncovered(found.boxes[kept], detector.cover)]
    return Detections(found.boxes[kept], found.scores[kept], [found.classes[index] for index in kept])


def unscored(boxes: Num[np.ndarray, "N 4"]) -> Detections:
    """Boxes of unknown class that nothing has scored."""
    return Detections(boxes.astype(np.float32), np.ones(len(boxes), np.float32), [""] * len(boxes))


def import_boxes(video: str, path: Path, boxes: Sequence[Float[np.ndarray, "_ 4"]]) -> dict[str, int]:
    """Write one video's published boxes, an array a frame. A task of `per_video`."""
    return write_boxes(video, path, [{"imported": unscored(frame)} for frame in boxes])


def write_boxes(video: str, path: Path, rows: list[dict[str, Detections]]) -> dict[str, int]:
    """Write the boxes of a video's frames, by origin; return how many frames and boxes there are."""
    parts = [(frame, origin, found) for frame, row in enumerate(rows) for origin, found in row.items()]
    sizes = [len(found.boxes) for *_, found in parts]
    boxes = np.concatenate([found.boxes for *_, found in parts])
    columns = [
        [video] * len(boxes),
        np.repeat([frame for frame, *_ in parts], sizes),
        *boxes.T,
        np.concatenate([found.scores for *_, found in parts]),
        [name for *_, found in parts for name in found.classes],
        np.repeat([origin for _, origin, _ in parts], sizes),
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    pq.write_table(pa.table(arrays, schema=SCHEMA), path)
    empty = sum(all(not len(found.boxes) for found in row.values()) for row in rows)
    by_origin = {
        name: sum(size for size, part in zip(sizes, parts, strict=True) if part[1] == name) for name in COLOURS
    }
    return {"frames": len(rows), "empty": empty, **by_origin}


def published_files(folder: Path, videos: pd.DataFrame) -> dict[str, Path]:
    """VEC's file of each split that has videos. Raises VigilError where one is missing."""
    found = {}
    for split in videos.split.unique():
        names = [f"bboxes_{split}.npy", f"bboxes_{split}_obj_det_with_motion.npy"]
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None:
            raise VigilError(
                f"{folder}: {names[0]} not found. `boxes.source: imported` needs the arrays that VEC's authors "
                f"publish for the training and the test videos (raw_datasets/<data set>/{names[1]} of their "
                f"repository VEC_VAD); put them there under either name, or write `boxes.source: motion`"
            )
        found[split] = path
    return found


def published_boxes(files: dict[str, Path], videos: pd.DataFrame) -> dict[str, list[Float[np.ndarray, "_ 4"]]]:
    """VEC's boxes of each video, an array a frame.

    A file has one entry a frame, the split's videos one after the other in natural order.
    Raises VigilError where a file is damaged, unsafe, or was made for other videos.
    """
    found = {}
    for split, path in files.items():
        rows, arrays = videos.query("split == @split"), load_arrays(path)
        total = int(rows.frames.sum())
        if not isinstance(arrays, np.ndarray) or len(arrays) != total:
            number = f"{len(arrays)} frames" if isinstance(arrays, np.ndarray) else "no array"
            raise VigilError(
                f"{path} holds {number}, the {len(rows)} {split} videos have {total} frames: expected one entry a "
                "frame, all videos one after the other in natural order; it belongs to another data set or version, "
                "or videos are missing"
            )
        start = 0
        for video, frames, height, width in zip(rows.video, rows.frames, rows.height, rows.width, strict=True):
            found[video] = [
                checked(arrays[start + frame], f"{path}: frame {frame} of {video}", height, width)
                for frame in range(frames)
            ]
            start += frames
    return found


def checked(boxes: Any, where: str, height: int, width: int) -> Float[np.ndarray, "_ 4"]:
    """One frame's published boxes (N, 4). Raises VigilError where they are no boxes of such a frame."""
    boxes = np.asarray(boxes)
    if boxes.size == 0:
        return np.empty((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind != "f":
        raise VigilError(f"{where} has an array of {boxes.dtype} of shape {boxes.shape}, expected numbers (boxes, 4)")
    x1, y1, x2, y2 = boxes.T
    inside = (x1 >= 0) & (y1 >= 0) & (x2 <= width) & (y2 <= height) & (x2 > x1) & (y2 > y1)
    if not inside.all():
        raise VigilError(f"{where}: {boxes[~inside][0].tolist()} is no box x1, y1, x2, y2 in {width}x{height} pixels")
    return boxes


def preview(videos: pd.DataFrame, source: str) -> None:
    """Draw a few frames, and their boxes beside them, a colour an origin."""
    rows, origins = [], set()
    for video, frame, image in shown_frames(videos):
        boxes = pd.read_parquet(FOLDER / f"{video}.parquet").query("frame == @frame")
        scale = max(round(720 / image.shape[1]), 1)  # lines are a pixel of the picture wide, not of the frame
        image = cv2.resize(image, None, fx=scale, fy=scale)
        rows.append((f"{video}, frame {frame}: {len(boxes)} boxes", [image, drawn(image, boxes, scale)]))
        origins |= {*boxes.origin}
    colours = ", ".join(f"{origin} {name}" for origin, (name, _) in COLOURS.items() if origin in origins)
    draw_preview("boxes", f"boxes.source: {source} ({colours or 'none found'})", rows)


def drawn(image: UInt8[np.ndarray, "H W 3"], boxes: pd.DataFrame, scale: int) -> UInt8[np.ndarray, "H W 3"]:
    """A copy of a picture (red first) that shows a frame `scale` times enlarged, with the frame's boxes."""
    image = image.copy()
    corners = (boxes[["x1", "y1", "x2", "y2"]].to_numpy() * scale).round().astype(int).tolist()
    for (x1, y1, x2, y2), origin in zip(corners, boxes.origin, strict=True):
        cv2.rectangle(image, (x1, y1), (x2, y2), COLOURS[origin][1], 2)
    return image


if __name__ == "__main__":
    main()
