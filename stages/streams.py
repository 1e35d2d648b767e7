"""What a method needs of each frame of a video that is still going on, made as the frames come, in bounded memory.

The stages' own generators make it, a frame at a time. No stage of the pipeline imports this.
"""

from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from jaxtyping import Float16, UInt8

from stages import boxes, flow, objects, segments
from stages.command import VigilError
from stages.io.frames import resized
from stages.params import Params, methods

T = TypeVar("T")
Frames = Iterator[UInt8[np.ndarray, "H W *C"]]
"""Of one size; blue first (H, W, 3), or grey (H, W)."""


def lag(method: str, settings: Params) -> int:
    """How many later frames have to come before a frame's score is known.

    STATE looks at `objects.context` frames on both sides, and at their flow, which needs one frame more. Those at a
    video's beginning that have fewer frames before them wait as long as the first one that has all.

    Raises VigilError for a method that cannot score a stream.
    """
    check(method)
    return settings.recipe("objects").context + 1 if method == "state" else 0


def inputs(method: str, frames: Frames, settings: Params, device: torch.device) -> Iterator[Any]:
    """What the method's `stream` is given of each frame; of most, the frame itself.

    Raises VigilError for a method that cannot score a stream, and where the recipes of what it needs do not allow it.
    """
    check(method)
    of_method = {"mama": of_mama, "state": of_state}
    return of_method[method](frames, settings, device) if method in of_method else frames


def check(method: str) -> None:
    """Raise VigilError for a method that looks at whole videos."""
    if method == "s3r":
        others = ", ".join(name for name in methods() if name != method)
        raise VigilError(
            "s3r cannot score frames as they come: its network compares each snippet with all others of the video, "
            f"past and future. Methods that can: {others}"
        )


def of_mama(frames: Frames, settings: Params, device: torch.device) -> Iterator[tuple]:
    """Each frame, the flow from the frame before to it (None of the first), and its labels: nothing of later frames.

    Raises VigilError where flow and labels are made from frames of different sizes.
    """
    recipe, of_labels = settings.recipe("flow").mama, settings.recipe("segments")
    flow.check_size("mama", recipe)
    if (recipe.height, recipe.width) != (of_labels.size, of_labels.size):
        raise VigilError(
            f"flow.mama has {recipe.height} x {recipe.width} pixels, segments.size is {of_labels.size}: set "
            "flow.mama.height and .width, and segments.size, to mama.generator.size"
        )
    frames, to_flow, to_labels = shared(frames, 3)
    batches = (resized(frame, of_labels.size)[None] for frame in to_labels)
    labels = segments.segmented(batches, of_labels.network, str(device))
    return zip(frames, chain([None], vectors(to_flow, recipe, device)), labels, strict=False)


def of_state(frames: Frames, settings: Params, device: torch.device) -> Iterator[np.ndarray]:
    """Each frame's objects, records of `stages.io.objects`, as soon as the window of frames around it and their flow.

    Raises VigilError where boxes are not found but imported.
    """
    of_boxes, recipe = settings.recipe("boxes"), settings.recipe("flow").state
    if of_boxes.source == "imported":
        raise VigilError(
            "boxes.source is imported: published boxes are those of published videos, of other frames there are none. "
            "Write boxes.source: motion, which needs no weights, or cascade_rcnn or faster_rcnn"
        )
    flow.check_size("state", recipe)
    detects = of_boxes.source in boxes.NETWORKS
    frames, to_flow, to_boxes = shared(frames, 3)
    moving = boxes.moving_frames(coloured(to_boxes) if detects else to_boxes, of_boxes.motion)
    found = boxes.found_boxes(boxes.batches(moving, 1), of_boxes, str(device) if detects else "")
    corners = (np.concatenate([one.boxes for one in by_origin.values()]) for by_origin in found)
    made = objects.objects_of(
        coloured(frames), vectors(to_flow, recipe, device), corners, recipe.reduce, settings.recipe("objects")
    )
    return (records for records, _ in made)


def vectors(frames: Frames, recipe: Any, device: torch.device) -> Iterator[Float16[np.ndarray, "h w 2"]]:
    """The flow of each frame as it is stored, as soon as the frame after it is there."""
    images = (cv2.resize(frame, (recipe.width, recipe.height)) for frame in coloured(frames))
    found = flow.flows(images, recipe.model_copy(update={"batch": 1}), str(device))
    return (flow.halved(one, f"{recipe.network} gives a flow of frame {i}") for i, one in enumerate(found))


def coloured(frames: Frames) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Frames blue first, grey ones with three equal channels, as `FrameStore` gives them."""
    return (cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) if frame.ndim == 2 else frame for frame in frames)


def shared(items: Iterator[T], count: int) -> list[Iterator[T]]:
    """Several iterators over the same items, of which only those are kept that not all have taken.

    `itertools.tee` keeps up to 57 more, which is much for frames.
    """
    waiting: list[deque[T]] = [deque() for _ in range(count)]

    def taken(own: deque[T]) -> Iterator[T]:
        while True:
            if not own:
                for item in islice(items, 1):
                    for each in waiting:
                        each.append(item)
            if not own:
                return
            yield own.popleft()

    return [taken(own) for own in waiting]
