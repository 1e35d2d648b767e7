"""How a method's raw components become one anomaly score a frame. Scores: higher is more anomalous."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Fusion:
    """score = sum over components of weight x normalised component.

    Attributes:
        weights: component -> signed weight; negative for a component that is high on normal frames (PSNR).
        normalise: `video_minmax` scales each component to 0..1 within each test video (looks at the whole
            video, past and future); `train_zscore` subtracts the mean and divides by the standard deviation
            that the component has on the training videos; `none` leaves it.
        frames: `scored` evaluates only the frames that the method scores; `all` gives the unscored frames
            at the start and the end of a video the nearest scored frame's value, so that every method is
            judged on the same frames.
    """

    weights: dict[str, float]
    normalise: Literal["video_minmax", "train_zscore", "none"]
    frames: Literal["scored", "all"]
