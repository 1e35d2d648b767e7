"""Small things that tables of scores and labels need."""

import hashlib
from collections.abc import Iterable

import pandas as pd


def rows_by(table: pd.DataFrame, column: str) -> dict[str, pd.DataFrame]:
    """Split a table by the text in one column, parts in order of appearance."""
    return {str(name): rows for name, rows in table.groupby(column, sort=False)}


def with_truth(frames: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Rows of video and frame with the column `abnormal`; frames behind a video's last label have that label."""
    rows = frames.merge(truth[["video", "frame", "abnormal"]], how="left", on=["video", "frame"])
    return rows.assign(abnormal=rows["abnormal"].astype("boolean").ffill().astype(bool))


def label_hash(labels: pd.DataFrame) -> str:
    """Name a label set's content: first 12 hexadecimal digits of the SHA-256 of its lines "video,frame,0 or 1"."""
    lines = (
        f"{video},{frame},{abnormal:d}\n"
        for video, frame, abnormal in zip(labels["video"], labels["frame"], labels["abnormal"], strict=True)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]


def content_hash(hashes: Iterable[str]) -> str:
    """Name the content of some videos by their hashes: 12 hexadecimal digits of a SHA-256."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:12]
