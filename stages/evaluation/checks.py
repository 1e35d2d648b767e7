"""Do scores, labels and videos speak of the same frames? Every check here raises VigilError and changes nothing."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from jaxtyping import Bool

from stages.command import VigilError
from stages.evaluation.fusion import SNIPPET, Fusion
from stages.evaluation.tables import rows_by

SHOWN = 5
"""Problems that a message lists before it only counts the rest."""

MEND_SCORES = "score again (dvc repro)"
MEND_LABELS = "check the data set's label files"


def check_scores(scores: pd.DataFrame, fusion: Fusion, lengths: Mapping[str, int]) -> None:
    """Refuse scores unless every test video has them, frame after frame, within its length, finite where used.

    Where a row is an object, frames and videos may have none, and a frame several; where it is a snippet, every
    sixteenth frame has one, to the video's end.

    Args:
        scores: rows of video, split ("train" or "test"), frame and one column a component.
        fusion: which components are used, and whether training rows are needed.
        lengths: test video -> frames.
    """
    absent = [component for component in fusion.weights if component not in scores]
    if absent:
        found = [column for column in scores if column not in ("video", "split", "frame", "checkpoint")]
        raise VigilError(f"the scores have no component {', '.join(absent)}, only {', '.join(found)}: {MEND_SCORES}")

    test = scores.loc[scores["split"] == "test"]
    objects = fusion.frames == "objects"
    known = [video for video in lengths if video in set(test["video"])] if objects else lengths
    _same_videos("the scores", test["video"], "the video table", known, MEND_SCORES)
    if test.empty:
        raise VigilError("no test video has an object, so nothing can be judged: look at metrics/previews/boxes.png")
    snippets = fusion.frames.endswith("snippets")
    step, order = (SNIPPET, f"every {SNIPPET}th of the") if snippets else (1, "ascending" if objects else "consecutive")
    problems = []
    for video, rows in rows_by(test, "video").items():
        frame = rows["frame"].to_numpy()
        jumps = np.flatnonzero(np.diff(frame) < 0 if objects else np.diff(frame) != step)
        if len(jumps):
            problems.append(
                f"video {video}: frame {frame[jumps[0]]} is followed by {frame[jumps[0] + 1]}, expected {order} frames"
            )
        elif snippets and not (frame[0] == 0 and 0 < lengths[video] - frame[-1] < 2 * SNIPPET):
            problems.append(
                f"video {video}: snippets from frame {frame[0]} to {frame[-1]}, expected them from 0 to the last of "
                f"{lengths[video]} frames"
            )
        elif frame[0] < 0 or frame[-1] >= lengths[video]:
            problems.append(
                f"video {video}: scored frames {frame[0]} to {frame[-1]}, expected 0 to {lengths[video] - 1} at most"
            )
    _refuse("the scores do not fit the videos", problems, MEND_SCORES)

    used = test
    if fusion.normalise == "train_zscore":
        used = scores
        if "train" not in set(scores["split"]):
            raise VigilError(
                "the scores have no training frames, which the normalisation by training scores needs: "
                f"{MEND_SCORES} with at least one training video"
            )
    problems = []
    for component in fusion.weights:
        bad = used.loc[~np.isfinite(used[component])]
        if len(bad):
            first = bad.iloc[0]
            problems.append(
                f"{component} is {first[component]} at video {first['video']}, frame {first['frame']} "
                f"({len(bad)} such of {len(used)} frames)"
            )
    _refuse(
        "the scores must be finite numbers",
        problems,
        "a network that diverged gives such values: train it with a smaller learning rate, then score again",
    )


def check_labels(labels: pd.DataFrame, lengths: Mapping[str, int]) -> None:
    """Refuse label sets that do not label every frame of every test video once, in order.

    Args:
        labels: rows of label_set, video, frame, abnormal.
        lengths: test video -> frames.
    """
    for name, rows in rows_by(labels, "label_set").items():
        _same_videos(f"label set {name}", rows["video"], "the video table", lengths, MEND_LABELS)
        problems = []
        for video, part in rows_by(rows, "video").items():
            frame = part["frame"].to_numpy()
            if len(frame) != lengths[video]:
                problems.append(f"video {video}: found {len(frame)} labels, expected {lengths[video]}, one a frame")
            elif not np.array_equal(frame, np.arange(len(frame))):
                problems.append(f"video {video}: the labelled frames are not 0 to {len(frame) - 1} in order")
        _refuse(f"label set {name} does not fit the videos", problems, MEND_LABELS)


def check_classes(abnormal: Bool[np.ndarray, " N"], label_set: str) -> None:
    """Refuse judged frames of one class: then no curve exists, or a class was lost on the way."""
    if abnormal.all() or not abnormal.any():
        raise VigilError(
            f"label set {label_set}: all {len(abnormal)} judged frames are "
            f"{'abnormal' if abnormal.all() else 'normal'}, expected normal and abnormal ones: "
            f"{MEND_LABELS}, or remove the labels to get score curves alone"
        )


def _same_videos(left: str, found: Iterable[str], right: str, expected: Iterable[str], mend: str) -> None:
    found, expected = dict.fromkeys(found), dict.fromkeys(expected)
    problems = [f"test video {video}: in {right}, not in {left}" for video in expected if video not in found]
    problems += [f"test video {video}: in {left}, not in {right}" for video in found if video not in expected]
    _refuse(f"{left} and {right} name different test videos", problems, mend)


def _refuse(what: str, problems: list[str], mend: str) -> None:
    if problems:
        rest = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise VigilError("\n  ".join([f"{what}:", *problems[:SHOWN], *rest, mend]))
