"""The pictures of the report: frames as JPEG, error maps as transparent PNG over them, boxes as numbers."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8

from stages.io.frames import FrameStore
from stages.io.maps import unpacked

WIDEST = 480  # pixels of a picture
QUALITY = 80  # of JPEG
KEYS = 6  # frames of a video that are shown under its curves, evenly over time
WARM = np.array([[255, 214, 102], [255, 160, 40], [240, 80, 30], [190, 20, 60]], float)
"""Red, green, blue of an error map from low to high; opacity rises with it."""


@dataclass(frozen=True)
class Picture:
    """A frame on the page: address from the page, and its size in pixels of the source."""

    source: str
    width: int
    height: int


class Album:
    """Pictures of frames in a folder, each frame written once, whoever shows it.

    Files are named by numbers, since a video's name may hold what no address should.
    """

    def __init__(self, folder: Path, frames: Path, videos: Iterable[str]):
        self.folder, self.frames = folder, frames
        self.numbers = {video: number for number, video in enumerate(videos)}
        self.known: dict[tuple[str, int], Picture | None] = {}

    def picture(self, video: str, frame: int) -> Picture | None:
        """The frame; None where the video has no frames, or not so many."""
        key = video, frame
        if key not in self.known:
            self.known[key] = self._write(video, frame)
        return self.known[key]

    def _write(self, video: str, frame: int) -> Picture | None:
        path = self.frames / f"{video}.arrow"
        if not path.exists():
            return None
        store = FrameStore(path)
        if frame >= len(store):
            return None
        image = store[frame]
        height, width = image.shape[:2]
        if width > WIDEST:
            image = cv2.resize(image, (WIDEST, round(height * WIDEST / width)), interpolation=cv2.INTER_AREA)
        self.folder.mkdir(exist_ok=True)
        name = f"{self.numbers[video]:03d}_{frame:06d}.jpg"
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        (self.folder / name).write_bytes(data.tobytes())
        return Picture(f"{self.folder.name}/{name}", width, height)


def key_frames(length: int, highest: int | None) -> list[int]:
    """Frames evenly over a video, in the middle of as many equal parts, and the highest among them; in order."""
    even = {int((part + 0.5) * length / KEYS) for part in range(KEYS)}
    return sorted(even | ({highest} if highest is not None else set()))


def map_range(column: Iterable[bytes | None]) -> tuple[float, float] | None:
    """Between which errors the maps of a method are coloured: half of all cells are lower, one in a thousand higher."""
    known = [one for one in column if isinstance(one, bytes)]
    if not known:
        return None
    low, high = np.quantile(unpacked(known).astype(np.float32), [0.5, 0.999])
    return float(low), float(high) if high > low else float(low) + 1e-6


def warm(height: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 4"]:
    """Red, green, blue and opacity of heights 0..1."""
    height = np.clip(height, 0, 1)
    stops = np.linspace(0, 1, len(WARM))
    colour = np.stack([np.interp(height, stops, channel) for channel in WARM.T], axis=-1)
    return np.concatenate([colour, 215 * height[..., None] ** 0.8], axis=-1).round().astype(np.uint8)


def overlay(one: bytes, low: float, high: float) -> str:
    """An error map as the address of a transparent PNG that holds itself, a pixel a cell."""
    cells = unpacked([one])[0].astype(np.float32)
    image = warm((cells - low) / (high - low))
    data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA))[1]
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()


def boxes(regions: pd.DataFrame, width: int, height: int) -> list[Mapping[str, float | int | bool]]:
    """What was detected in a frame, the highest last, hence on top: x, y, width, height, score, and rank from 0."""
    found = []
    ordered = regions.sort_values("score", ascending=False, kind="stable")
    for rank, (x1, y1, x2, y2, score) in enumerate(ordered[["x1", "y1", "x2", "y2", "score"]].to_numpy(float)):
        x1, x2 = np.clip([x1, x2], 0, width)
        y1, y2 = np.clip([y1, y2], 0, height)
        found.append(
            {
                "x": round(float(x1), 1),
                "y": round(float(y1), 1),
                "width": round(float(x2 - x1), 1),
                "height": round(float(y2 - y1), 1),
                "score": float(score),
                "rank": rank,
            }
        )
    return found[::-1]
