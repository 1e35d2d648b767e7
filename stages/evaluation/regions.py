"""Where is it, and is it followed? RBDC and TBDC (Ramachandra and Jones, Street Scene, 2020, section 4).

Region-based: the rate of true regions that are found, against false positive regions a frame; the area under that curve
up to one false positive a frame. Track-based: the same with tracks, a track being one anomaly from when it appears
until it goes. A region is found by a detection whose intersection over union with it is BETA at least; a track, where
ALPHA at least of its regions are. A detection with less than BETA on every true region of its frame is a false
positive.

Regions are boxes, half open, in pixels: x1, y1, x2, y2. A true region is the box around connected parts of a frame's
mask; parts with at most 2 JOIN pixels between them are one, since the spokes of a wheel are no anomalies of their own.
From one frame to the next the true regions that overlap are linked one to one, such that the sum of their intersections
over unions is highest: where two merge, the better fit goes on and the other track ends; where one splits, a new track
starts; a frame without it ends a track, since nothing says that what comes then is the same. The published figures come
from boxes and tracks that people drew, and are not on one scale with these.

What is detected are the objects of a method that scores objects. A method that predicts or reconstructs frames has
error maps instead: a detection is the box around connected cells that are hotter than all but one in a thousand cells
of normal training frames, one cell a frame; its score is its hottest cell's.

The curve is joined by straight lines from no detection (0, 0) on, cut at one false positive a frame; a detector that
has shown all that it has before goes on level.

Shapes: H, W of the mask; R true regions, D detections, K tracks; N frames with error maps of side x side cells.
"""

from collections.abc import Iterable, Mapping, Sequence

import cv2
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float16, Int
from scipy.optimize import linear_sum_assignment

from stages.evaluation.fusion import fuse
from stages.io.maps import unpacked
from stages.recipes import Fusion

ALPHA, BETA = 0.1, 0.1
JOIN = 3  # pixels, by which the parts of a mask are widened to see which are one
MOST = 1.0  # false positives a frame, up to which the area goes
SIDES = ["x1", "y1", "x2", "y2"]


def true_regions(mask: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "R 4"]:
    """The box around each part of a mask, near parts together."""
    if not mask.any():
        return np.empty((0, 4))
    wide = cv2.dilate(np.pad(mask, JOIN).astype(np.uint8), np.ones((2 * JOIN + 1, 2 * JOIN + 1), np.uint8))
    _, _, stats, _ = cv2.connectedComponentsWithStats(wide, connectivity=8)
    boxes = stats[1:, :4].astype(float)  # the first is the background; x, y, width, height
    boxes[:, 2:] += boxes[:, :2] - 2 * JOIN  # x and y are right: as much was padded as widened
    return boxes


def truth_table(masks: Mapping[str, Iterable[Bool[np.ndarray, "H W"]]]) -> pd.DataFrame:
    """Video, frame, x1, y1, x2, y2 and track of each true region, from the masks of each video's frames in order."""
    parts = [np.empty((0, 6))]
    videos: list[str] = []
    for video, own in masks.items():
        boxes = [true_regions(mask) for mask in own]
        for frame, (sides, track) in enumerate(zip(boxes, tracks(boxes), strict=True)):
            parts.append(np.column_stack([np.full(len(sides), frame), sides, track]))
            videos += [video] * len(sides)
    table = pd.DataFrame(np.concatenate(parts), columns=["frame", *SIDES, "track"])
    return table.astype({"frame": int, "track": int}).assign(video=videos)


def tracks(frames: Sequence[Float[np.ndarray, "_ 4"]]) -> list[Int[np.ndarray, " _"]]:
    """The track's number of each true region of each frame of one video, from 0 on in order of appearance."""
    known, before, numbers = 0, np.empty((0, 4)), []
    for boxes in frames:
        own = np.full(len(boxes), -1)
        overlap = ious(before, boxes)
        for old, new in zip(*linear_sum_assignment(overlap, maximize=True), strict=True):
            if overlap[old, new] > 0:
                own[new] = numbers[-1][old]
        fresh = np.flatnonzero(own < 0)
        own[fresh] = known + np.arange(len(fresh))
        known += len(fresh)
        numbers.append(own)
        before = boxes
    return numbers


def ious(left: Float[np.ndarray, "N 4"], right: Float[np.ndarray, "M 4"]) -> Float[np.ndarray, "N M"]:
    """Intersection over union of each box with each; 0 where both are empty."""
    corners = np.minimum(left[:, None, 2:], right[None, :, 2:]) - np.maximum(left[:, None, :2], right[None, :, :2])
    shared = corners.clip(0).prod(axis=2)
    sizes = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1) for boxes in (left, right)]
    union = sizes[0][:, None] + sizes[1] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def detections(scores: pd.DataFrame, fusion: Fusion, videos: pd.DataFrame) -> pd.DataFrame | None:
    """What is detected in the test videos: columns video, frame, x1, y1, x2, y2, score.

    Args:
        scores: rows of video, split, frame; with a row an object the box's sides and the components, else error maps.
        fusion: how an object's components become a score.
        videos: height and width of each video, its name the index.

    Returns:
        None where the method says nothing about where, or has no training frames to tell what is hot.
    """
    test, train = (scores.loc[scores["split"] == split] for split in ("test", "train"))
    if fusion.frames == "objects":
        columns = [{name: rows[name].to_numpy() for name in fusion.weights} for rows in (test, train)]
        return test[["video", "frame", *SIDES]].assign(score=fuse(fusion, *columns))
    if "map" not in scores or train.empty:
        return None
    sizes = dict(zip(videos.index, zip(videos["height"], videos["width"], strict=True), strict=True))
    return hot_regions(test[["video", "frame"]], unpacked(test["map"]), hot(unpacked(train["map"])), sizes)


def hot(maps: Float16[np.ndarray, "N side side"]) -> float:
    """Above what a cell is hot: what one cell a frame, on average, of normal training frames passes."""
    return float(np.quantile(maps.astype(np.float32), 1 - 1 / maps[0].size))


def hot_regions(
    frames: pd.DataFrame,
    maps: Float16[np.ndarray, "N side side"],
    bar: float,
    sizes: Mapping[str, tuple[int, int]],
) -> pd.DataFrame:
    """The boxes around connected hot cells: columns video, frame, x1, y1, x2, y2, score.

    Args:
        frames: video and frame of each map.
        maps: errors of each frame's cells.
        bar: above which a cell is hot.
        sizes: video -> height and width of its frames in pixels.
    """
    side, rows, parts = maps.shape[-1], [], [np.empty((0, 5))]
    for row in np.flatnonzero((maps > bar).any(axis=(1, 2))):
        cells = maps[row].astype(np.float32)
        count, of_cell, stats, _ = cv2.connectedComponentsWithStats((cells > bar).astype(np.uint8), connectivity=8)
        boxes = stats[1:, :4].astype(float)  # the first is the background; x, y, width, height
        boxes[:, 2:] += boxes[:, :2]
        height, width = sizes[frames["video"].iat[row]]
        hottest = np.zeros(count)
        np.maximum.at(hottest, of_cell.ravel(), cells.ravel())
        parts.append(np.column_stack([boxes * np.array([width, height, width, height]) / side, hottest[1:]]))
        rows += [row] * (count - 1)
    table = pd.DataFrame(np.concatenate(parts), columns=[*SIDES, "score"])
    return pd.concat([frames.iloc[rows][["video", "frame"]].reset_index(drop=True), table], axis=1)


def rbdc_tbdc(truth: pd.DataFrame, detections: pd.DataFrame, frames: int) -> tuple[float, float]:
    """RBDC and TBDC, both 0..1.

    Args:
        truth: video, frame, x1, y1, x2, y2 and track of each true region, one at least; a track's number is its
            video's own.
        detections: video, frame, x1, y1, x2, y2 and score.
        frames: how many were judged, those without any region too.
    """
    level, false = levels(truth, detections)
    by_track = [tracked(level[rows]) for rows in truth.groupby(["video", "track"]).indices.values()]
    return area(level, false, frames), area(np.array(by_track), false, frames)


def levels(truth: pd.DataFrame, detections: pd.DataFrame) -> tuple[Float[np.ndarray, " R"], Float[np.ndarray, " _"]]:
    """The score down to which each true region is found, -inf if never; and the scores of the false positives."""
    level, scores = np.full(len(truth), -np.inf), detections["score"].to_numpy(float)
    false = np.ones(len(detections), bool)
    true_boxes, boxes = truth[SIDES].to_numpy(float), detections[SIDES].to_numpy(float)
    detected = detections.groupby(["video", "frame"]).indices
    for place, rows in truth.groupby(["video", "frame"]).indices.items():
        if place not in detected:
            continue
        own = detected[place]
        hits = ious(true_boxes[rows], boxes[own]) >= BETA
        level[rows] = np.where(hits, scores[own], -np.inf).max(axis=1)
        false[own] = ~hits.any(axis=0)
    return level, scores[false]


def tracked(level: Float[np.ndarray, " R"]) -> float:
    """The score down to which a track is found: where ALPHA of its regions are."""
    needed = int(np.ceil(ALPHA * len(level) - 1e-9))  # 0.1 x 30 is a little more than 3
    return float(np.sort(level)[-needed])


def area(level: Float[np.ndarray, " _"], false: Float[np.ndarray, " _"], frames: int) -> float:
    """Area under the rate of what is found against false positives a frame, up to MOST; 1 is perfect.

    Args:
        level: the score down to which each region, or track, is found; -inf if never.
        false: the false positives' scores.
        frames: how many were judged.
    """
    bars = np.unique(np.concatenate([level[level > -np.inf], false]))[::-1]
    rate = np.append(0, _at_least(level, bars) / len(level))
    cost = np.append(0, _at_least(false, bars) / frames)
    inside = cost <= MOST
    rate = np.append(rate[inside], np.interp(MOST, cost, rate))
    cost = np.append(cost[inside], MOST)
    return float(np.trapezoid(rate, cost) / MOST)


def _at_least(values: Float[np.ndarray, " _"], bars: Float[np.ndarray, " B"]) -> Int[np.ndarray, " B"]:
    """How many values reach each bar."""
    return len(values) - np.searchsorted(np.sort(values), bars)
