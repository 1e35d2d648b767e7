"""Boxes around what moves, and the choice among overlapping boxes, as VEC and STATE make their object boxes.

"Cloze Test Helps: Effective Video Anomaly Detection via Learning to Complete Video Events", Yu et al., ACM MM 2020,
section 3.1, and its authors' code, which STATE took over. N boxes; H, W of a frame, C its channels, 8 bits.
Boxes are x1, y1, x2, y2 in pixels.
"""

from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float32, Int, Int32, Num, UInt8

Difference = Literal["wrap", "saturate"]
"""How two 8-bit differences are added: `wrap`, the authors' sum, modulo 256; `saturate` stops at 255."""

SLENDER = 10  # a motion box's longer side is less than this many times the shorter one


def blurred(frame: UInt8[np.ndarray, "H W *C"], kernel: int) -> UInt8[np.ndarray, "H W *C"]:
    """A frame after the Gaussian filter of `kernel` x `kernel` pixels (odd), against noise."""
    return cv2.GaussianBlur(frame, (kernel, kernel), 0)


def motion_map(
    before: UInt8[np.ndarray, "H W *C"],
    centre: UInt8[np.ndarray, "H W *C"],
    after: UInt8[np.ndarray, "H W *C"],
    threshold: int,
    difference: Difference,
) -> UInt8[np.ndarray, "H W"]:
    """255 where |before - centre| + |centre - after| is above `threshold` in any channel, else 0.

    At a video's ends the frame itself stands for the one that is missing.
    """
    first, second = cv2.absdiff(before, centre), cv2.absdiff(centre, after)
    # two differences of 128 wrap to 0, so that the fastest motion can look like none
    total = first + second if difference == "wrap" else cv2.add(first, second)
    moves = total > threshold
    return np.where(moves if moves.ndim == 2 else moves.any(-1), 255, 0).astype(np.uint8)


def motion_boxes(
    moves: UInt8[np.ndarray, "H W"], known: Num[np.ndarray, "K 4"], area: int, extend: int
) -> Int32[np.ndarray, "N 4"]:
    """A box around each connected region of a motion map, outside the boxes that are known.

    Args:
        moves: `motion_map`'s result.
        known: a detector's boxes; what moves inside them, or within `extend` pixels, does not count.
        area: pixels; only boxes with more, `(width + 1) * (height + 1)`, are kept.
        extend: pixels that a box grows at each side, not beyond the frame.
    """
    height, width = moves.shape
    moves = moves.copy()
    for x1, y1, x2, y2 in known.astype(np.int32):
        moves[max(y1 - extend, 0) : max(y2 + extend + 1, 0), max(x1 - extend, 0) : max(x2 + extend + 1, 0)] = 0
    contours, _ = cv2.findContours(moves, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    x, y, w, h = np.array([cv2.boundingRect(contour) for contour in contours], np.int32).reshape(-1, 4).T
    kept = ((w + 1) * (h + 1) > area) & (w < SLENDER * h) & (h < SLENDER * w)
    boxes = np.stack([x - extend, y - extend, x + w + extend, y + h + extend], 1)[kept]
    return boxes.clip(0, np.array([width, height, width, height], np.int32))


def areas(boxes: Float32[np.ndarray, "N 4"]) -> Float32[np.ndarray, "N"]:
    """Areas in pixels; a box's last row and column belong to it: `(x2 - x1 + 1) * (y2 - y1 + 1)`."""
    return (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)


def uncovered(boxes: Float32[np.ndarray, "N 4"], cover: float) -> Int[np.ndarray, "K"]:
    """Indices, by ascending area, of the boxes that no larger box covers to more than the fraction `cover`.

    Of two boxes of the same area the later one counts as the larger.
    """
    area = areas(boxes)
    order = np.argsort(area, kind="stable")
    boxes, area = boxes[order], area[order]
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common = (high - low + 1).clip(0).prod(-1)
    covered = np.triu(common > cover * area[:, None], 1).any(1)
    return order[~covered]
