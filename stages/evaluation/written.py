"""The tables that an evaluation leaves, which the report is made of.

metrics/tables/frames.parquet    video, frame; honest, paper: the score, NaN where the protocol does not judge the
                                 frame; alarm: whether the honest score passes the threshold; abnormal, or, with
                                 several label sets, abnormal_<set> of each. The paper's score is that of the first set
metrics/tables/shown.parquet     frames to be looked at, as `stages.evaluation.highlights.shown` gives them, with the
                                 error map `map` where the method has one
metrics/tables/regions.parquet   video, frame, x1, y1, x2, y2, score: what was detected in these frames
metrics/tables/videos.csv        protocol, label_set, video, frames, abnormal, auc: each video by itself
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from stages.evaluation.outcomes import Outcome
from stages.evaluation.regions import SIDES
from stages.evaluation.roc import video_aucs

PLACE = ["video", "frame"]


def write_tables(
    folder: Path,
    lengths: Mapping[str, int],
    by_protocol: Mapping[str, Mapping[str, Outcome]],
    bar: float | None,
    shown: pd.DataFrame,
    regions: pd.DataFrame | None,
    scores: pd.DataFrame,
) -> None:
    """Write the tables into a folder.

    Args:
        folder: that exists.
        lengths: test video -> frames.
        by_protocol: protocol -> label set, or "" without labels -> what it gave.
        bar: above which a frame is alarmed; None: none is.
        shown: the frames to be looked at.
        regions: what was detected in all test frames; None where the method does not say where.
        scores: the honest protocol's rows, with error maps perhaps.
    """
    frames = pd.concat([pd.DataFrame({"video": video, "frame": range(count)}) for video, count in lengths.items()])
    for protocol, by_set in by_protocol.items():
        own = next(iter(by_set.values())).frames.rename(columns={"score": protocol})
        frames = frames.merge(own[[*PLACE, protocol]], how="left", on=PLACE)
    frames["alarm"] = frames["honest"] > (np.inf if bar is None else bar)
    for name, one in by_protocol["honest"].items():
        if "abnormal" in one.frames:
            column = "abnormal" if len(by_protocol["honest"]) == 1 else f"abnormal_{name}"
            truth = one.frames.rename(columns={"abnormal": column})
            frames = frames.merge(truth[[*PLACE, column]], how="left", on=PLACE)
    frames.to_parquet(folder / "frames.parquet", index=False)

    if "map" in scores:
        shown = shown.merge(scores.loc[scores["split"] == "test", [*PLACE, "map"]], how="left", on=PLACE)
    else:
        shown = shown.assign(map=None)
    shown.to_parquet(folder / "shown.parquet", index=False)
    found = pd.DataFrame(columns=[*PLACE, *SIDES, "score"]) if regions is None else regions
    found.merge(shown[PLACE].drop_duplicates(), on=PLACE).to_parquet(folder / "regions.parquet", index=False)

    videos = [
        video_aucs(one.frames).assign(protocol=protocol, label_set=name)
        for protocol, by_set in by_protocol.items()
        for name, one in by_set.items()
        if "abnormal" in one.frames
    ]
    columns = ["protocol", "label_set", "video", "frames", "abnormal", "auc"]
    table = pd.concat(videos)[columns] if videos else pd.DataFrame(columns=columns)
    table.to_csv(folder / "videos.csv", index=False, float_format="%.6g")
