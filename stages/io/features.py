"""Features in the layout that RTFM and S3R publish: `<video>_i3d.npy`, float32 (T snippets, N crops, C = 2048)."""

from collections import Counter
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from stages.command import VigilError

SNIPPET = 16  # frames
CHANNELS = 2048
SUFFIX = "_i3d.npy"


def snippet_count(frames: int, rule: str) -> int:
    """Snippets of a video. `ceil`: an incomplete last one counts, as in the published files; `floor`: it does not."""
    return -(-frames // SNIPPET) if rule == "ceil" else frames // SNIPPET


def feature_files(folder: Path) -> dict[str, Path]:
    """All feature files in a folder and its subfolders, by the video's name as in the video table.

    Raises VigilError for two files of one video, with and without `_i3d`.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.npy")):
        name = path.relative_to(folder).as_posix().removesuffix(".npy").removesuffix("_i3d")
        if name in found:
            raise VigilError(f"{found[name]} and {path} are both features of {name}: remove one")
        found[name] = path
    return found


def match_files(videos: list[str], folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Each video's feature file, and a sentence for each video that has none or several.

    A video's file may lie in any subfolder, as the published ones do, unless other videos have the same name in
    another folder.
    """
    files = feature_files(folder)
    named: dict[str, list[Path]] = {}
    for name, path in files.items():
        named.setdefault(name.rpartition("/")[2], []).append(path)
    same_name = Counter(video.rpartition("/")[2] for video in videos)
    found, problems = {}, []
    for video in videos:
        name = video.rpartition("/")[2]
        paths = [files[video]] if video in files else named.get(name, []) if same_name[name] == 1 else []
        if len(paths) == 1:
            found[video] = paths[0]
        elif paths:
            listed = ", ".join(path.relative_to(folder).as_posix() for path in paths)
            problems.append(f"{listed}: one of them has to be {video}{SUFFIX}")
        else:
            where = f"{video}{SUFFIX}" if same_name[name] > 1 else f"{name}{SUFFIX}, there or in a folder below"
            problems.append(f"{video}: expected {where}")
    return found, problems


def read_features(path: str | Path, crops: int | None = 10) -> Float32[np.ndarray, "T N 2048"]:
    """A feature file, checked for its form and for numbers that are none.

    `crops`: how many there have to be; None: any number. Raises VigilError with what was found and what to do.
    """
    path = Path(path)
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise VigilError(f"{path} not found: expected a feature file, (snippets, crops, {CHANNELS})") from None
    except (ValueError, EOFError) as error:
        raise VigilError(f"{path} is no array of numbers, or a damaged one: {error}: fetch it again") from None
    expected = f"(snippets, {crops or 'crops'}, {CHANNELS})"
    problem = f"{path}: found shape {found.shape}, expected {expected}"
    if found.ndim == 2 and found.shape[1] == CHANNELS:
        raise VigilError(
            f"{problem}: it has no axis of crops; if it is one crop, save it as (snippets, 1, {CHANNELS}) and write "
            "`features.crops: 1`"
        )
    if found.ndim != 3:
        raise VigilError(f"{problem}: is it another kind of file?")
    if found.shape[2] != CHANNELS:
        raise VigilError(f"{problem}: another network's features? This is for those of I3D on ResNet-50")
    if crops and found.shape[1] != crops:
        if found.shape[0] == crops > 1:
            raise VigilError(
                f"{problem}: the crops come first; save it as numpy.load(file).transpose(1, 0, 2), after a look at "
                "which axis is time"
            )
        raise VigilError(f"{problem}: {found.shape[1]} crops: write `features.crops` as they were extracted")
    if not len(found):
        raise VigilError(f"{problem}: no snippets")
    if not np.isfinite(found).all():
        wrong = np.flatnonzero(~np.isfinite(found).all((1, 2)))
        raise VigilError(
            f"{path}: NaN or infinite values in {len(wrong)} snippets, first in {wrong[0]}: fetch it again"
        )
    return found.astype(np.float32, copy=False)


def check_length(path: str | Path, snippets: int, frames: int, rule: str) -> None:
    """Raise VigilError where a file's number of snippets does not fit the video's frames."""
    expected = snippet_count(frames, rule)
    if snippets == expected:
        return
    other = "floor" if rule == "ceil" else "ceil"
    if snippets == snippet_count(frames, other):
        kept = {"ceil": "keeps", "floor": "drops"}
        raise VigilError(
            f"{path}: {snippets} snippets, but {frames} frames are {expected} by `features.snippets: {rule}`: its "
            f"extractor {kept[other]} the incomplete last snippet; write `features.snippets: {other}`"
        )
    raise VigilError(
        f"{path}: {snippets} snippets, but the video has {frames} frames, hence {expected}: they are of another video, "
        "or of one that was cut or decoded differently"
    )


def segments(features: Float32[np.ndarray, "T N C"], count: int = 32) -> Float32[np.ndarray, "N {count} C"]:
    """A video of any length as `count` segments, by linear interpolation in time between the snippets' centres.

    S3R's rule for training videos (its code; RTFM takes means of bins instead). Before the first and after the last
    centre the features stay constant.
    """
    places = np.clip((np.arange(count) + 0.5) * len(features) / count - 0.5, 0, len(features) - 1)
    before = places.astype(int)
    after = np.minimum(before + 1, len(features) - 1)
    part = (places - before).astype(np.float32)[:, None, None]
    return (features[before] * (1 - part) + features[after] * part).transpose(1, 0, 2)
