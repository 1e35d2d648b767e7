"""What STATE sees of each object: data/frames, data/flow/state, data/boxes -> data/objects, data/objects.json.

An object is a box of one frame. It is cut out of that frame and of the `context` frames on each side, and out of their
flow, and every part is scaled to size x size; see `stages.io.objects`. Near a video's ends the frame is not the middle
one: the window stays inside the video. A video shorter than a window has its last frame repeated.
Also draws metrics/previews/objects.png.

N boxes of a frame, T = 2 * context + 1 frames of a window, S = size, H, W of the source, h, w of the stored flow.
"""

import json
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from jaxtyping import Float16, Float32, Num, UInt8

from stages import params
from stages.command import VigilError, command
from stages.io.files import file_hash, replacing
from stages.io.flow import FLOW, full_size, read_description, read_flow
from stages.io.frames import FrameStore
from stages.io.objects import OBJECTS, object_type, read_objects
from stages.preview import draw_preview, flow_colours
from stages.videos import DATA, FRAMES, one_class_videos, per_video

T = TypeVar("T")
BOXES = DATA / "boxes"
SIDES = ["x1", "y1", "x2", "y2"]
SHOWN = 6  # objects in the preview, of as many videos


@command
def main() -> str:
    """Cut the objects of all training and test videos."""
    settings = params.load()
    recipe = settings.recipe("objects")
    videos = one_class_videos()
    flow = read_description("state")
    del flow["videos"]
    object_bytes = object_type(recipe.context, recipe.size).itemsize
    depends, args, sizes = {}, {}, {}
    for video, frames, key in zip(videos.video, videos.frames.tolist(), videos.hash, strict=True):
        vectors, boxes = flow_file(video, frames), BOXES / f"{video}.parquet"
        if not boxes.is_file():
            raise VigilError(f"{boxes} not found: run `dvc repro stages/dvc.yaml:boxes` first")
        # flow is too large to be read for its hash; a file that is written again has another time
        depends[video] = [key, file_hash(boxes), vectors.stat().st_size, vectors.stat().st_mtime_ns]
        args[video] = (
            FRAMES.absolute() / f"{video}.arrow",
            vectors.absolute(),
            boxes.absolute(),
            flow["reduce"],
            recipe,
        )
        sizes[video] = pq.read_metadata(boxes).num_rows * object_bytes
    counts = per_video(
        cut_objects,
        depends,
        OBJECTS,
        ".npy",
        args,
        identity=[recipe.model_dump(), flow],
        workers=settings.workers,
        desc="objects",
        sizes=sizes,
    )
    total = {key: sum(count[key] for count in counts.values()) for key in ("frames", "objects", "empty", "still")}
    if not total["objects"]:
        raise VigilError(
            f"no object in {len(videos)} videos: of {total['empty'] + total['still']} boxes, {total['empty']} are "
            f"outside of their frame and {total['still']} do not move: see {BOXES}.json for where the boxes are from, "
            f"and `objects.motion` in params.yaml, which is {recipe.motion}"
        )
    description = {
        **recipe.model_dump(),
        "bytes_per_object": object_bytes,
        "flow": flow,
        **total,
        "videos": counts,
    }
    with replacing(OBJECTS.with_suffix(".json")) as path:
        path.write_text(json.dumps(description, indent=2) + "\n")
    preview([video for video, count in counts.items() if count["objects"]])
    gone = total["empty"] + total["still"]
    return f"{len(videos)} videos, {total['objects'] + gone} boxes -> {total['objects']} objects in {OBJECTS}" + (
        f" ({total['empty']} boxes outside of their frame, {total['still']} without motion)" if gone else ""
    )


def flow_file(video: str, frames: int) -> Path:
    """Where a video's flow lies. Raises VigilError where it is missing, or has another length than the video."""
    found = len(read_flow("state", video))
    if found != frames:
        raise VigilError(
            f"{FLOW / 'state' / video}.npy has the flow of {found} frames, the video has {frames}: run "
            "`dvc repro stages/dvc.yaml:flow-state` again"
        )
    return FLOW / "state" / f"{video}.npy"


def cut_objects(
    video: str, path: Path, store: Path, vectors: Path, table: Path, reduce: int, recipe: Any
) -> dict[str, int]:
    """Write one video's objects. A task of `per_video`. Each frame is decoded, and its flow scaled, once.

    Args:
        video: its name.
        path: of the file to write.
        store: the video's frames.
        vectors: the video's flow.
        table: the video's boxes.
        reduce: by how much `vectors` are smaller than what their unit is.
        recipe: the section `objects`, resolved.

    Returns the number of frames, of objects, and of boxes that are none: `empty`, without a pixel inside the frame,
    or `still`, without motion.
    Raises VigilError where a box is of a frame that the video does not have.
    """
    cv2.setNumThreads(1)  # the processes are the parallelism
    frames = FrameStore(store)
    boxes = pd.read_parquet(table, columns=["frame", *SIDES]).sort_values("frame", kind="stable")
    if len(boxes) and not 0 <= boxes.frame.iloc[0] <= boxes.frame.iloc[-1] < len(frames):
        raise VigilError(
            f"{video} has {len(frames)} frames and boxes of frames {boxes.frame.iloc[0]} to {boxes.frame.iloc[-1]}: "
            "run `dvc repro stages/dvc.yaml:boxes` again"
        )
    corners, first = boxes[SIDES].to_numpy(np.float32), np.searchsorted(boxes.frame, np.arange(len(frames) + 1))
    of_frames = (corners[start:stop] for start, stop in pairwise(first))
    images = (frames[index] for index in range(len(frames)))
    objects, inside = 0, 0
    with open(path, "wb") as file:
        write_header(file, object_type(recipe.context, recipe.size), 0)
        for moving, still in objects_of(images, np.load(vectors, mmap_mode="r"), of_frames, reduce, recipe):
            file.write(moving.data)
            inside += len(moving) + still
            objects += len(moving)
        write_header(file, object_type(recipe.context, recipe.size), objects)
    return {"frames": len(frames), "objects": objects, "empty": len(boxes) - inside, "still": inside - objects}


def objects_of(
    images: Iterable[UInt8[np.ndarray, "H W 3"]],
    vectors: Iterable[Float16[np.ndarray, "h w 2"]],
    boxes: Iterable[Float32[np.ndarray, "_ 4"]],
    reduce: int,
    recipe: Any,
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield each frame's objects, and how many boxes with a pixel inside the frame do not move.

    A frame's objects are there as soon as the last frame of its window, and that one's flow.

    Args:
        images: the frames of a video.
        vectors: their flow.
        boxes: x1, y1, x2, y2 of each frame.
        reduce: by how much `vectors` are smaller than what their unit is.
        recipe: the section `objects`, resolved.
    """
    kind = object_type(recipe.context, recipe.size)
    around = windows(prepared(images, vectors, reduce), recipe.context)
    for index, (corners, window) in enumerate(zip(boxes, around, strict=True)):
        found = cut(window, corners, kind)
        found["frame"] = index
        moving = found[energy(found["flow"]) > recipe.motion]
        yield moving, len(found) - len(moving)


def prepared(
    images: Iterable[UInt8[np.ndarray, "H W 3"]], vectors: Iterable[Float16[np.ndarray, "h w 2"]], reduce: int
) -> Iterator[tuple[UInt8[np.ndarray, "H W 3"], Float32[np.ndarray, "H W 2"]]]:
    """Yield each frame, and its flow scaled to the frame's size; its vectors keep their length, as STATE's do."""
    for image, stored in zip(images, vectors, strict=True):
        flow = full_size(stored[None], reduce)[0].permute(1, 2, 0).numpy()
        yield image, cv2.resize(flow, image.shape[1::-1])


def windows(items: Iterable[T], context: int) -> Iterator[list[T]]:
    """Yield, for each item, the 2 * context + 1 items around it, as soon as the last of them is there.

    The window of an item near an end is that of the nearest item with `context` items on both sides (STATE's "elastic"
    border). Where there are fewer items than a window has, the last one is repeated.
    """
    length, taken = 2 * context + 1, 0
    window: deque[T] = deque(maxlen=length)
    for taken, item in enumerate(items, 1):
        window.append(item)
        if taken >= length:
            yield from repeat([*window], context + 1 if taken == length else 1)
    if window:
        yield from repeat([*window, *[window[-1]] * (length - taken)], context if taken >= length else taken)


def cut(
    window: Sequence[tuple[UInt8[np.ndarray, "H W 3"], Float32[np.ndarray, "H W 2"]]],
    boxes: Float32[np.ndarray, "N 4"],
    kind: np.dtype,
) -> np.ndarray:
    """Records of the boxes that have a pixel inside the frame, without their `frame`.

    Pixels ceil(x1) to ceil(x2) - 1 belong to a box, rows alike; scaled bilinearly, raw in 8 bits.
    """
    height, width = window[0][0].shape[:2]
    pixels = np.ceil(boxes).clip(0, [width, height, width, height]).astype(int)
    full = (pixels[:, 2] > pixels[:, 0]) & (pixels[:, 3] > pixels[:, 1])
    found = np.zeros(full.sum(), kind)
    found["box"] = boxes[full]
    size = found["raw"].shape[2:4]
    for raw, flow, (x1, y1, x2, y2) in zip(found["raw"], found["flow"], pixels[full], strict=True):
        for t, (image, vectors) in enumerate(window):
            raw[t] = cv2.resize(image[y1:y2, x1:x2], size)
            flow[t] = cv2.resize(vectors[y1:y2, x1:x2], size)
    return found


def energy(flow: Float16[np.ndarray, "N T S S 2"]) -> Float32[np.ndarray, "N"]:
    """The squared length of each object's flow, mean of all its pixels in all frames."""
    flow = flow.astype(np.float32)
    return np.einsum("ntyxc,ntyxc->n", flow, flow) / math.prod(flow.shape[1:4])


def write_header(file: Any, kind: np.dtype, count: int) -> None:
    """Write a .npy file's header at its beginning; numpy leaves the room for any count."""
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (count,)}
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, header)


def preview(videos: list[str]) -> None:
    """Draw an object from the middle of some videos: its part of all frames, and of their flow in colours."""
    chosen = [videos[i] for i in np.unique(np.linspace(0, len(videos) - 1, SHOWN).round().astype(int))]
    rows = []
    for video in chosen:
        objects = read_objects(video)
        shown = objects[len(objects) // 2]
        flow = side_by_side(shown["flow"].astype(np.float32))
        scale = max(float(np.linalg.norm(flow, axis=-1).max()), 1e-3)
        x1, y1, x2, y2 = shown["box"]
        text = (
            f"{video}, frame {shown['frame']}, box {x1:.0f} {y1:.0f} {x2:.0f} {y2:.0f}; full colour: {scale:.1f} pixels"
        )
        panels = [
            side_by_side(shown["raw"])[..., ::-1].copy(),
            flow_colours(torch.from_numpy(flow).permute(2, 0, 1), scale),
        ]
        rows.append((text, panels))
    draw_preview("objects", "objects: their part of the frames around, and of the flow, direction as colour", rows)


def side_by_side(parts: Num[np.ndarray, "T S S C"]) -> Num[np.ndarray, "S T*S C"]:
    """The parts of an object's frames, from left to right."""
    return np.concatenate([*parts], 1)


if __name__ == "__main__":
    main()
