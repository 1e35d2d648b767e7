"""I3D features: data/frames, data/videos.parquet or data/raw/<dataset>/features -> data/features, data/features.json.

`<video>_i3d.npy`, float32 (T snippets, N crops, 2048): a video is cut into snippets of 16 frames, each frame is resized
and cropped ten times, and I3D looks at each crop of a snippet. What is published for a data set can be taken instead.

Shapes: B snippets at a time, N crops of each, H, W pixels of a resized frame, S of a crop.
"""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor

from stages import params
from stages.command import VigilError, command
from stages.device import device, device_name, devices, own_device
from stages.io.checkpoints import load_arrays, load_authors_file
from stages.io.features import (
    CHANNELS,
    SNIPPET,
    SUFFIX,
    check_length,
    match_files,
    read_features,
    snippet_count,
)
from stages.io.files import file_hash, replacing
from stages.io.frames import FrameStore
from stages.io.weights import PRETRAINED, load_state, state_dict, weights_file
from stages.networks.i3d import I3D, from_caffe2, initialise
from stages.videos import DATA, FRAMES, per_video, prefetched, read_videos

FOLDER = DATA / "features"
CONVERTED = "i3d_r50_kinetics.pth"  # the copy of the weights of i3d that is in circulation as a PyTorch file
# of 8-bit pixels: what is subtracted, then what is divided by
NORMALISE = {"caffe": (114.75, 57.375), "unit": (127.5, 127.5)}
# where a crop lies: as a part of the room below and to the right of it
CORNERS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
CENTRE = (0.5, 0.5)
ORDERS = {"centre_last": (*CORNERS, CENTRE), "centre_third": (*CORNERS[:2], CENTRE, *CORNERS[2:])}


@command
def main() -> str:
    """Extract or import the features of all videos."""
    settings = params.load()
    recipe = settings.recipe("features")
    videos = read_videos()
    lengths = {video: int(frames) for video, frames in zip(videos.video, videos.frames, strict=True)}
    counts = {video: snippet_count(frames, recipe.snippets) for video, frames in lengths.items()}
    sizes = {video: 4 * CHANNELS * recipe.crops * count for video, count in counts.items()}
    if recipe.source == "imported":
        folder = DATA / "raw" / settings.dataset / "features"
        files = published_files(list(lengths), folder)
        done = per_video(
            import_video,
            {video: [lengths[video], file_hash(file)] for video, file in files.items()},
            FOLDER,
            SUFFIX,
            {video: (file.absolute(), lengths[video], recipe) for video, file in files.items()},
            identity=recipe.model_dump(include={"source", "crops", "snippets"}),
            workers=settings.workers,
            desc="features",
            sizes=sizes,
        )
        origin, description = folder, {"source": "imported", "snippets": recipe.snippets}
    else:
        if (videos.height == 0).any():
            raise VigilError(
                f"data set {settings.dataset} has features alone, without frames to make others of: write "
                "`features.source: imported`"
            )
        check(recipe, lengths)
        weights = settings.seed if recipe.weights == "random" else pretrained_file(recipe.network).absolute()
        made_by = {
            **recipe.model_dump(exclude={"batch"}),
            "weights": f"random, seed {weights}"
            if isinstance(weights, int)
            else f"{weights.name}, SHA-256 {file_hash(weights)}",
        }
        names = tuple(devices(settings.device))
        done = per_video(
            extract_video,
            dict(zip(videos.video, videos.hash, strict=True)),
            FOLDER,
            SUFFIX,
            {video: (FRAMES.absolute(), weights, recipe, names) for video in lengths},
            identity=[made_by, torch.device(names[0]).type],
            workers=len(names),
            desc="features",
            sizes=sizes,
        )
        origin, description = FRAMES, {**made_by, "device": device_name(device(settings.device))}
    with replacing(FOLDER.with_suffix(".json")) as path:
        path.write_text(json.dumps({**description, "videos": done}, indent=2) + "\n")
    return f"{origin} ({len(done)} videos) -> {FOLDER} ({sum(counts.values())} snippets of {recipe.crops} crops)"


def check(recipe: Any, lengths: dict[str, int]) -> None:
    """Raise VigilError for crops larger than the frames, and for videos without a snippet."""
    if recipe.crop > recipe.short_side:
        raise VigilError(
            f"a crop of {recipe.crop} pixels does not fit into frames of {recipe.short_side}: make "
            "`features.crop` smaller or `features.short_side` larger"
        )
    short = [video for video, frames in lengths.items() if not snippet_count(frames, recipe.snippets)]
    if short:
        raise VigilError(
            f"{len(short)} videos are shorter than a snippet of {SNIPPET} frames, the first is {short[0]}: write "
            "`features.snippets: ceil`"
        )


def published_files(videos: list[str], folder: Path) -> dict[str, Path]:
    """Each video's published file. Raises VigilError where the folder or some files are missing."""
    if not folder.is_dir():
        raise VigilError(
            f"{folder} not found: put the published features there, <video>{SUFFIX} in subfolders or not, or write "
            "`features.source: own`"
        )
    found, problems = match_files(videos, folder)
    if problems:
        more = f"\n  and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise VigilError(
            f"{folder} lacks features of {len(problems)} of {len(videos)} videos:\n  "
            + "\n  ".join(problems[:5])
            + more
        )
    return found


def import_video(video: str, path: Path, file: Path, frames: int, recipe: Any) -> dict[str, Any]:
    """Check one published file and copy it. A task of `per_video`."""
    features = read_features(file, recipe.crops)
    check_length(file, len(features), frames, recipe.snippets)
    np.save(path, features)
    return {"frames": frames, "snippets": len(features), "hash": file_hash(path)}


def extract_video(
    video: str, path: Path, frames: Path, weights: int | Path, recipe: Any, names: tuple[str, ...]
) -> dict[str, Any]:
    """Write one video's features. A task of `per_video`."""
    store = FrameStore(frames / f"{video}.arrow")
    features = extract(network(recipe.network, weights, own_device(names)), store, recipe)
    np.save(path, features)
    return {"frames": len(store), "snippets": len(features), "hash": file_hash(path)}


@functools.cache
def network(name: str, weights: int | Path, where: str) -> I3D:
    """I3D on a device, with random weights from a seed or with those of a file; once a process and device."""
    device(where)
    built = I3D(nonlocal_blocks=name == "i3d_nonlocal")
    if isinstance(weights, int):
        initialise(built, weights)
    else:
        load_state(built, read_state(weights, built), weights)
    return built.to(where).eval()


def pretrained_file(name: str) -> Path:
    """The published weights: the converted copy of i3d where it is there, else the original.

    Raises VigilError with the command that downloads it.
    """
    converted = PRETRAINED / CONVERTED
    return converted if name == "i3d" and converted.exists() else weights_file(name)


def read_state(path: Path, built: I3D) -> dict[str, Tensor]:
    """Published weights with this network's names. Raises VigilError for a file of another form.

    A `.pkl` is the original, Caffe2 blobs; any other file is the converted one, a dictionary of tensors.
    """
    if path.suffix != ".pkl":
        return state_dict(load_authors_file(path))
    content = load_arrays(path)
    if not isinstance(content, dict) or "blobs" not in content:
        raise VigilError(f"{path} holds no Caffe2 blobs: expected a dictionary with the key 'blobs'")
    return from_caffe2(content["blobs"], built.state_dict())


@torch.inference_mode()
def extract(i3d: I3D, store: FrameStore, recipe: Any) -> Float32[np.ndarray, "T N C"]:
    """A video's features, C = 32 widths of the network; the next snippets are read while it computes."""
    where = next(i3d.parameters()).device
    positions = ORDERS[recipe.order] if recipe.crops == 10 else (CENTRE,)
    parts = []
    for pixels in prefetched(read_snippets(store, recipe)):
        frames = normalised(torch.from_numpy(pixels).to(where), recipe.normalise)
        crops = cropped(frames, recipe.crop, positions, flips=recipe.crops == 10)
        parts.append(i3d.features(crops.flatten(0, 1)).unflatten(0, crops.shape[:2]).cpu())
    return torch.cat(parts).numpy()


def read_snippets(store: FrameStore, recipe: Any) -> Iterator[UInt8[np.ndarray, "B 16 H W 3"]]:
    """A video's snippets in order, resized, red first, up to `recipe.batch` at a time; each frame is decoded once.

    The last snippet, where it is kept and incomplete, is filled with copies of the last frame, as its labels are.
    """
    total = snippet_count(len(store), recipe.snippets)
    for first in range(0, total, recipe.batch):
        stop = min(first + recipe.batch, total) * SNIPPET
        frames = [
            resized(store[index][..., ::-1], recipe.short_side, recipe.resize)
            for index in range(first * SNIPPET, min(stop, len(store)))
        ]
        frames += frames[-1:] * (stop - first * SNIPPET - len(frames))
        yield np.stack(frames).reshape(-1, SNIPPET, *frames[0].shape)


def resized(image: UInt8[np.ndarray, "h w 3"], short_side: int, resize: str) -> UInt8[np.ndarray, "H W 3"]:
    """A frame whose shorter side has `short_side` pixels.

    `short_side`: keeps the proportions, bilinear with antialiasing, as the network was trained. `stretch`: the width is
    340/256 of the height whatever the proportions were, by Lanczos, as the extractor does that is copied most.
    """
    height, width = image.shape[:2]
    if resize == "stretch":
        size, how = (round(short_side * 340 / 256), short_side), Image.Resampling.LANCZOS
    else:
        # the longer side is cut off, not rounded, as in torchvision
        size = (short_side * width // min(height, width), short_side * height // min(height, width))
        how = Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, how))


def normalised(pixels: UInt8[Tensor, "B T H W 3"], how: str) -> Float32[Tensor, "B 3 T H W"]:
    """What the network sees of 8-bit pixels. `caffe`: as it was trained, -2..2.4. `unit`: -1..1."""
    mean, scale = NORMALISE[how]
    return pixels.permute(0, 4, 1, 2, 3).float().sub_(mean).div_(scale)


def cropped(
    frames: Float[Tensor, "B C T H W"], size: int, positions: tuple[tuple[float, float], ...], flips: bool
) -> Float[Tensor, "B N C T {size} {size}"]:
    """Square crops at the given positions, then, if `flips`, the same positions of the mirrored frames."""
    height, width = frames.shape[-2:]
    views = []
    for image in (frames, frames.flip(-1)) if flips else (frames,):
        for down, right in positions:
            top, left = round((height - size) * down), round((width - size) * right)
            views.append(image[..., top : top + size, left : left + size])
    return torch.stack(views, 1)


if __name__ == "__main__":
    main()
