"""One module a method: its section of params.yaml, the published values with their sources, its fusion.

These modules import no network, so reading params.yaml stays fast. Each has
    Recipe       the section: `fit`, `score` and `fuse`, each tracked by the stage of that name
    PUBLISHED    {"part.key": {data set or "default": (value, source)}}
    ladder       recipe.fuse -> {name: Fusion}: how the raw components become one score a frame. The first is the honest
                 protocol, the last the paper's; each between changes one thing, which its name says
    SPLIT        "weak_split" where the method is trained with weak supervision
    RESTS_ON     {choice of an extractor in params.yaml: the values that need no published weights}; not where frames
                 are enough
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Fusion:
    """score = sum over components of weight x normalised component.

    Attributes:
        weights: component -> signed weight; negative for a component that is high on normal frames (PSNR).
        normalise: `video_minmax` scales each component to 0..1 within each test video (looks at the whole
            video, past and future), `video_zscore` to mean 0 and standard deviation 1; `train_zscore` subtracts the
            mean and divides by the standard deviation that the component has on the training videos; `none` leaves it.
        frames: `scored` evaluates only the frames that the method scores; `all` gives the unscored frames
            at the start and the end of a video the nearest scored frame's value, so that every method is
            judged on the same frames; `objects` is for scores with a row an object: every frame gets the highest
            score of its objects, and one without any the lowest that any object has; `snippets` for scores with a
            row a snippet, which all its frames get, and `whole_snippets` judges 16 frames of the last one too, with
            the last frame's label repeated.
        rescale: whether the sum is scaled to 0..1 within each test video.
        checkpoint: `chosen`: the model's own scores; `last`: those after the last step of training; `best_on_test`: of
            all checkpoints that were validated, those with the highest AUC on the test labels.
        tried: weights that are tried on the test labels; those with the highest AUC are taken instead of `weights`.
    """

    weights: dict[str, float]
    normalise: Literal["video_minmax", "video_zscore", "train_zscore", "none"]
    frames: Literal["scored", "all", "objects", "snippets", "whole_snippets"]
    rescale: bool = False
    checkpoint: str = "chosen"  # once settled, a name in the table of scores
    tried: tuple[dict[str, float], ...] = ()
