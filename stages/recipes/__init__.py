"""One module a method: its section of params.yaml, the published values with their sources, its fusion.

These modules import no network, so reading params.yaml stays fast. Each has
    Recipe       the section: `fit`, `score` and `fuse`, each tracked by the stage of that name
    PUBLISHED    {"part.key": {data set or "default": (value, source)}}
    fusion       (protocol, recipe.fuse) -> Fusion: how the raw components become one score a frame
"""

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
            judged on the same frames; `objects` is for scores with a row an object: every frame gets the highest
            score of its objects, and one without any the lowest that any object has.
    """

    weights: dict[str, float]
    normalise: Literal["video_minmax", "train_zscore", "none"]
    frames: Literal["scored", "all", "objects"]
