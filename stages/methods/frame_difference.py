"""Frame difference: the floor. How much a frame differs from the one before it; nothing is trained.

Shapes: T frames, H = W = size.
"""

import cv2
import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8

from stages.run import Run


def score(run: Run, recipe) -> tuple[pd.DataFrame, float]:
    """Mean and peak difference of every frame but a video's first; a row a frame, and frames a second."""

    def score_video(pixels: np.ndarray, split: str, state: None) -> tuple[pd.DataFrame, None]:
        mean, peak = differences(pixels, recipe.score.blur)
        return pd.DataFrame({"frame": np.arange(1, len(pixels), dtype=np.int32), "mean": mean, "peak": peak}), None

    return run.score_videos(lambda videos: run.pixels(videos, recipe.score.size), score_video)


def differences(
    pixels: UInt8[np.ndarray, "T H W C"], blur: int
) -> tuple[Float[np.ndarray, " T-1"], Float[np.ndarray, " T-1"]]:
    """Grey difference of consecutive frames, pixels in [0, 1]: mean of its square, maximum of its box-blurred size."""
    means, peaks = [], []
    before = None
    for frame in pixels:
        grey = frame[..., 0] if frame.shape[-1] == 1 else cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        grey = grey.astype(np.float32) / 255
        if before is not None:
            difference = cv2.absdiff(grey, before)
            means.append(np.square(difference).mean(dtype=np.float64))
            peaks.append(cv2.blur(difference, (blur, blur)).max())
        before = grey
    return np.array(means), np.array(peaks, np.float64)
