"""The weakly supervised split: lists of videos with a label each, and data sets of which there are features alone.

The features are `features/**/<video>_i3d.npy`, (T snippets of 16 frames, crops, 2048), as RTFM and S3R publish them.
Such a video has 16 T frames, of which nobody has the pixels.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from stages.command import VigilError
from stages.datasets.common import Video, load_npy
from stages.io.features import CHANNELS, SNIPPET, SUFFIX, feature_files, match_files

FEATURES = "features"
SHOWN = 5  # problems that an error message lists
LABELS = {"0": False, "normal": False, "1": True, "abnormal": True}


def read_list(plain: Path, table: Path, is_abnormal: Callable[[str], bool], published: int) -> dict[str, bool] | None:
    """Video name -> abnormal, from the one of two lists that is there; None where neither is.

    Args:
        plain: a name or a path a line; the makers' names say which videos are abnormal.
        table: columns `video-id` and `label`, S3R's list and a column more.
        is_abnormal: what a name in the plain list says.
        published: how many rows of S3R's list, its first ones, are abnormal; for the message alone.

    Raises VigilError where both are there, a name has two labels, or the table lacks a column or a label.
    """
    if plain.exists() and table.exists():
        raise VigilError(f"{plain} and {table} say the same thing; remove one")
    if table.exists():
        rows = read_table(table, published)
    elif plain.exists():
        names = [Path(line.strip()).stem for line in plain.read_text().splitlines() if line.strip()]
        rows = [(name, is_abnormal(name)) for name in names]
    else:
        return None
    labels = dict(rows)
    if twice := [name for name, abnormal in rows if labels[name] != abnormal]:
        raise VigilError(f"{table}: {twice[0]} is normal in one row and abnormal in another; fetch the list again")
    return labels


def read_table(path: Path, published: int) -> list[tuple[str, bool]]:
    """Video and whether it is abnormal, a row each. Raises VigilError for a missing column or an unknown label."""
    try:
        table = pd.read_csv(path, dtype=str, skipinitialspace=True, keep_default_na=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise VigilError(f"{path}: {error}; expected the columns video-id,label") from None
    if "video-id" not in table:
        raise VigilError(f"{path}: found the columns {','.join(table.columns)}; expected video-id,label")
    if "label" not in table:
        raise VigilError(
            f"{path} has no column `label`: add one, 1 for an abnormal video and 0 for a normal one. In the list as "
            f"S3R publishes it the first {published} rows are the abnormal ones"
        )
    rows = []
    for line, (name, label) in enumerate(zip(table["video-id"], table["label"], strict=True), 2):
        if label.strip().lower() not in LABELS or not name.strip():
            raise VigilError(
                f"{path}, line {line}: found video {name!r} with label {label!r}; expected a name, and 0, 1, normal or "
                "abnormal"
            )
        rows.append((name.strip(), LABELS[label.strip().lower()]))
    return rows


def find_features(root: Path, videos: Iterable[str]) -> dict[str, Path]:
    """Each video's feature file, as the features stage finds it; of a video that has none, a path where it could be.

    Raises VigilError where several files could be a video's.
    """
    folder = root / FEATURES
    there = Counter(name.rpartition("/")[2] for name in feature_files(folder))
    videos = list(videos)
    found, problems = match_files(videos, folder)
    native = {video: video.rpartition("/")[2] for video in videos}
    absent = [video for video in videos if video not in found]
    for video, problem in zip(absent, problems, strict=True):
        if there[native[video]]:
            raise VigilError(f"{folder}: {problem}")
    return {video: found.get(video, folder / f"{native[video]}{SUFFIX}") for video in videos}


def feature_frames(videos: list[Video]) -> dict[str, int]:
    """Frames of videos of which there are features alone: 16 a snippet, by the files' headers.

    Raises VigilError naming the files that are not features, or of no snippet.
    """
    frames, problems = {}, []
    for video in videos:
        assert isinstance(video.source, Path)
        try:
            shape = load_npy(video.source).shape
        except VigilError as error:
            problems.append(str(error))
            continue
        if len(shape) == 3 and shape[0] > 0 and shape[2] == CHANNELS:
            frames[video.name] = SNIPPET * shape[0]
        else:
            problems.append(f"{video.source}: found shape {shape}, expected (snippets, crops, {CHANNELS})")
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise VigilError("\n  ".join([f"{len(problems)} feature file(s) cannot be used:", *problems[:SHOWN], *more]))
    return frames
