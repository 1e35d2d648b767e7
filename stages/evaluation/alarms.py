"""When would it ring? A threshold from normal training frames, and what it finds and what it rings for in vain.

No label of a test video touches the threshold. The training frames are those that the model has learnt from, which it
knows better than any other normal frame: expect more false alarms than the quantile promises.

Shapes: N frames of all videos, A runs of them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from stages.evaluation.fusion import fuse_table
from stages.evaluation.tables import rows_by
from stages.recipes import Fusion

HOUR = 3600  # seconds


def threshold(
    scores: pd.DataFrame, fusion: Fusion, sigma: float, lengths: Mapping[str, int], quantile: float
) -> float | None:
    """The quantile of the fused score of the training frames, fused as the test frames are: see `fuse_table`.

    Frames without an object have the lowest score of the training objects. A training video without any object has
    no rows, hence no say.

    Args:
        scores: as `fuse_table` takes them.
        fusion: of the honest protocol.
        sigma: of the smoothing along each video, in frames; 0 for none.
        lengths: training video -> frames; more than those that were scored do no harm.
        quantile: of the frames, 0..1, that lie below.

    Returns:
        None where no training frame is scored; the statistics of an imported model are of no frames.
    """
    train = scores.loc[scores["split"] == "train"]
    scored = {video: lengths[video] for video in rows_by(train, "video") if video in lengths}
    if not scored:
        return None
    fused = fuse_table(pd.concat([train, train.assign(split="test")]), fusion, sigma, scored)
    return float(np.quantile(fused["score"], quantile))


def worth(frames: pd.DataFrame, bar: float | None, quantile: float, fps: Mapping[str, float]) -> dict[str, Any]:
    """The threshold and what it is worth, as `at_threshold` says; without labels, how often it is passed.

    Args:
        frames: video, frame, score and, where there are labels, abnormal of the judged frames, in order.
        bar: the threshold; None where there is none.
        quantile: that it is.
        fps: video -> frames a second, NaN where unknown.
    """
    if bar is None:
        return {"threshold": None, "reason": "it takes scores of normal training frames, and there are none"}
    if "abnormal" in frames:
        found = at_threshold(frames, bar, fps)
    else:
        found = {"alarms": len(runs(frames, frames["score"].to_numpy() > bar)[0])}
    return {"quantile": quantile, "threshold": bar} | found


def at_threshold(frames: pd.DataFrame, threshold: float, fps: Mapping[str, float]) -> dict[str, Any]:
    """What a threshold is worth: frames found, and alarms in vain.

    Args:
        frames: video, frame, score and abnormal of the judged frames, in order.
        threshold: frames with a higher score are alarmed.
        fps: video -> frames a second, NaN where unknown.

    Returns:
        f1, precision, recall: of frames, abnormal the positive class; a precision without any alarmed frame, and a
            recall without any abnormal one, are None.
        alarms: how many runs of alarmed consecutive frames of a video there are.
        false_alarms: how many of them touch no abnormal frame.
        false_alarms_per_hour: of judged video; None where a video's frames a second are unknown.
        reason: of that None, else absent.
    """
    alarmed, abnormal = frames["score"].to_numpy() > threshold, frames["abnormal"].to_numpy(bool)
    found = int(np.sum(alarmed & abnormal))
    starts, stops = runs(frames, alarmed)
    touched = np.cumsum(np.append(0, abnormal))
    false = int(np.sum(touched[stops] == touched[starts]))
    counts = frames.groupby("video", sort=False).size()
    unknown = [str(video) for video in counts.index if not fps[str(video)] > 0]
    result = {
        "f1": _share(2 * found, int(alarmed.sum() + abnormal.sum())),
        "precision": _share(found, int(alarmed.sum())),
        "recall": _share(found, int(abnormal.sum())),
        "alarms": len(starts),
        "false_alarms": false,
    }
    if unknown:
        return result | {"false_alarms_per_hour": None, "reason": f"frames a second unknown: {_some(unknown)}"}
    hours = float(np.sum([count / fps[str(video)] for video, count in counts.items()])) / HOUR
    return result | {"false_alarms_per_hour": false / hours}


def runs(frames: pd.DataFrame, flag: Bool[np.ndarray, " N"]) -> tuple[Int[np.ndarray, " A"], Int[np.ndarray, " A"]]:
    """First row, and the one behind the last, of each run of flagged consecutive frames of one video."""
    frame, video = frames["frame"].to_numpy(), pd.factorize(frames["video"])[0]
    follows = np.append(False, (np.diff(frame) == 1) & (np.diff(video) == 0))
    goes_on = follows & np.append(False, flag[:-1])
    starts = np.flatnonzero(flag & ~goes_on)
    ends = np.flatnonzero(flag & ~np.append((goes_on & flag)[1:], False))
    return starts, ends + 1


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _some(videos: list[str]) -> str:
    return videos[0] + (f" and {len(videos) - 1} more" if videos[1:] else "")
