"""Optical flow: data/frames, data/videos.parquet -> data/flow/<recipe>, data/flow/<recipe>.json, and a picture.

    python -m stages.flow state|mama

Frame i has the flow from frame i to i + 1, the last frame that of the pair before. STATE gives frame 0 the flow from
frame 0 to itself (`first: self`). A video of one frame has that too. Stored are pixels of the recipe's resolution, not
rescaled to the source's, x to the right, y down; see `stages.io.flow`. metrics/previews/flow-<recipe>.png shows some.

B pairs, H, W height and width of the recipe, h = H / reduce, w = W / reduce. Frames are uint8, blue first. A `recipe`
is a `stages.recipes.flow.Flow` without the word `published`.
"""

import argparse
import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float16, Float32, UInt8
from torch import Tensor, nn
from torchvision.models import optical_flow

from stages import params
from stages.command import VigilError, command
from stages.device import device, device_name, devices, own_device
from stages.io.files import file_hash, replacing
from stages.io.flow import FLOW, full_size, read_flow
from stages.io.frames import FrameStore
from stages.io.weights import load_weights, weights_file
from stages.networks.flownet2 import UNIT, FlowNet2, FlowNetSD, enlarged, normalised
from stages.preview import draw_preview, flow_colours, shown_frames
from stages.videos import FRAMES, one_class_videos, per_video, prefetched

MULTIPLE = {"dis": 1, "flownet2": 64, "flownet2_sd": 64, "raft_large": 8, "raft_small": 8}
"""Pixels that height and width are a multiple of."""
LEAST = {"raft_large": 128, "raft_small": 128}
"""Pixels; below, RAFT's correlation pyramid has no top."""
LARGEST = float(np.finfo(np.float16).max)
Image = UInt8[np.ndarray, "H W 3"]


@command
def main(name: str) -> str:
    """Compute the flow of all training and test videos by the recipe `name`."""
    settings = params.load()
    recipe = getattr(settings.recipe("flow"), name)
    check_size(name, recipe)
    weights = None if recipe.network == "dis" else file_hash(weights_file(recipe.network))
    names = ("cpu",) if recipe.network == "dis" else tuple(devices(settings.device))
    videos = one_class_videos()
    chosen = recipe.model_dump(exclude={"batch"})
    start = "(0, 0)" if recipe.first == "self" else "(0, 1)"
    description = {
        "recipe": name,
        **chosen,
        "pairs": f"frame 0: {start}; frame i: (i, i + 1); last frame: the pair before",
        "unit": f"pixels of {recipe.width}x{recipe.height}; x to the right, y down",
        "weights_sha256": weights,
        "device": device_name(torch.device(names[0])),
        "torch": torch.__version__,
        "opencv": cv2.__version__,
    }
    frames = FRAMES.absolute()
    frame_bytes = 4 * recipe.height * recipe.width // recipe.reduce**2
    records = per_video(
        write_flow,
        dict(zip(videos.video, videos.hash, strict=True)),
        FLOW / name,
        ".npy",
        {video: (frames / f"{video}.arrow", recipe, names) for video in videos.video},
        identity=[chosen, weights, torch.device(names[0]).type],
        workers=settings.workers if recipe.network == "dis" else len(names),
        desc=f"flow {name}",
        sizes=dict(zip(videos.video, videos.frames.astype(int) * frame_bytes, strict=True)),
    )
    with replacing(FLOW / f"{name}.json") as path:
        path.write_text(json.dumps({**description, "videos": records}, indent=2) + "\n")
    show(name, recipe, videos)
    total = int(videos.frames.sum())
    return f"{len(videos)} videos of {settings.dataset} -> {total} frames in {FLOW / name} ({recipe.network})"


def check_size(name: str, recipe: Any) -> None:
    """Raise VigilError where the network cannot take frames of the recipe's size."""
    multiple, least = max(MULTIPLE[recipe.network], recipe.reduce), LEAST.get(recipe.network, 0)
    size = {"height": recipe.height, "width": recipe.width}
    fitting = {key: max(least, -(-value // multiple) * multiple) for key, value in size.items()}
    if fitting != size:
        wanted = f"multiples of {multiple}" + (f", at least {least}" if least else "")
        raise VigilError(
            f"flow.{name}: {recipe.network} with reduce: {recipe.reduce} takes heights and widths that are {wanted}; "
            f"found {recipe.height} x {recipe.width}: write height: {fitting['height']} and width: {fitting['width']}"
        )


def write_flow(video: str, path: Path, store: Path, recipe: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Write a video's flow; each frame is decoded once, each pair computed once.

    Returns the number of frames, and the mean and the largest length in pixels.
    Raises VigilError where a value is not finite, or too large for float16.
    """
    cv2.setNumThreads(1)  # the processes are the parallelism
    frames, size = FrameStore(store), (recipe.width, recipe.height)
    images = prefetched((cv2.resize(frames[i], size) for i in range(len(frames))), ahead=2 * recipe.batch)
    shape = (len(frames), recipe.height // recipe.reduce, recipe.width // recipe.reduce, 2)
    total, largest = 0.0, 0.0
    # written as a stream, since a full disk under a writable memory map kills the process
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        for i, flow in enumerate(flows(images, recipe, own_device(names))):
            file.write(halved(flow, f"{video}: {recipe.network} gives a flow of frame {i}").data)
            length = np.linalg.norm(flow, axis=-1)
            total += float(length.mean())
            largest = max(largest, float(length.max()))
    return {"frames": len(frames), "mean": round(total / len(frames), 4), "largest": round(largest, 4)}


def flows(images: Iterable[Image], recipe: Any, where: str) -> Iterator[Float32[np.ndarray, "h w 2"]]:
    """The flow of every frame, computed in batches on the device that `where` names.

    With a batch of one a frame's flow is there as soon as the frame after it.
    """
    pairs, flow = paired(images, recipe.first), np.empty(0)
    while batch := list(islice(pairs, recipe.batch)):
        found = estimated([pair for pair in batch if pair], recipe, where)
        for pair in batch:
            flow = next(found) if pair else flow
            yield flow


def paired(images: Iterable[Image], first: str) -> Iterator[tuple[Image, Image] | None]:
    """The two frames that each frame's flow is computed from, as soon as they are there.

    Frame i has (i, i + 1), frame 0 with `first: self` (0, 0). The last frame has the pair before, for which stands None
    where that was given already.
    """
    before: Any = None
    followed: Any = pairwise(chain(images, [None]))
    for index, (image, following) in enumerate(followed):
        if index == 0 and (first == "self" or following is None):
            yield image, image
        elif following is not None:
            yield image, following
        else:
            yield (before, image) if index == 1 and first == "self" else None
        before = image


def estimated(pairs: Sequence[tuple[Image, Image]], recipe: Any, where: str) -> Iterator[Float32[np.ndarray, "h w 2"]]:
    """The flow of each pair."""
    if recipe.network == "dis":
        yield from (reduced(dis_flow(*pair), recipe.reduce) for pair in pairs)
    elif pairs:
        yield from network_flow(np.stack([np.stack(pair) for pair in pairs]), recipe, where)


def halved(flow: Float32[np.ndarray, "h w 2"], what: str) -> Float16[np.ndarray, "h w 2"]:
    """Flow as it is stored. Raises VigilError, beginning with `what`, for a value that float16 cannot hold."""
    if not (np.abs(flow) <= LARGEST).all():
        raise VigilError(
            f"{what} that is not finite, or longer than {LARGEST:.0f} pixels: its weights do not fit, or are damaged"
        )
    return flow.astype("<f2", order="C")


def dis_flow(one: UInt8[np.ndarray, "H W 3"], two: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "H W 2"]:
    """Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016, as OpenCV has it, on luminance.

    The medium preset, but down to the finest scale: measured by benchmarks/flow_error.py on the demo.
    """
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(0)
    return dis.calc(cv2.cvtColor(one, cv2.COLOR_BGR2GRAY), cv2.cvtColor(two, cv2.COLOR_BGR2GRAY), None)  # pyright: ignore


@torch.inference_mode()
def network_flow(pairs: UInt8[np.ndarray, "B 2 H W 3"], recipe: Any, where: str) -> Float32[np.ndarray, "B h w 2"]:
    """Flow by a network, each given the frames as its weights expect them.

    FlowNet2 gets blue first and 0..255 times `contrast`, as STATE and MAMA feed it. MAMA's frames, -1..1 times 255,
    are twice 0..255 but for a constant, which the network subtracts with the mean. RAFT gets red first, -1..1.
    """
    network = loaded(recipe.network, recipe.align_corners, where)
    images = torch.from_numpy(pairs).to(where).permute(0, 4, 1, 2, 3).float()  # (B, 3, 2, H, W)
    if recipe.network == "flownet2_sd":
        quarter = UNIT * network(normalised(images * recipe.contrast))[0]
        flow = quarter if recipe.reduce == 4 else enlarged(quarter, recipe.align_corners)
        return flow.permute(0, 2, 3, 1).cpu().numpy()
    if recipe.network == "flownet2":
        flow = network(images * recipe.contrast)
    else:
        rgb = images.flip(1) / 127.5 - 1
        flow = network(rgb[:, :, 0], rgb[:, :, 1])[-1]
    return reduced(flow.permute(0, 2, 3, 1).cpu().numpy(), recipe.reduce)


@functools.cache
def loaded(network: str, align_corners: bool, where: str) -> nn.Module:
    """A network with its published weights, on a device. Raises VigilError where they are missing or do not fit."""
    if network == "flownet2":
        built = FlowNet2(align_corners=align_corners)
    elif network == "flownet2_sd":
        built = FlowNetSD()
    else:
        built = getattr(optical_flow, network)(weights=None)
    load_weights(built, network)
    return built.eval().to(device(where)).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def reduced(flow: Float32[np.ndarray, "*B H W 2"], by: int) -> Float32[np.ndarray, "*B h w 2"]:
    """Mean over blocks of by x by pixels."""
    *lead, height, width, _ = flow.shape
    return flow.reshape(*lead, height // by, by, width // by, by, 2).mean((-4, -2)) if by > 1 else flow


def show(name: str, recipe: Any, videos: pd.DataFrame) -> None:
    """Draw the preview: of some videos a frame, its flow in colours, and the colours of all directions and lengths."""
    rows = []
    for video, frame, image in shown_frames(videos):
        flow = full_size(read_flow(name, video)[frame][None], recipe.reduce)[0]
        length = torch.linalg.vector_norm(flow, dim=0)
        scale = max(length.quantile(0.995).item(), 1e-3)  # a few wrong pixels would pale all others
        flow = flow * (scale / length.clamp(min=scale))
        shown = cv2.resize(flow_colours(flow, scale), image.shape[1::-1])
        panels = [image, shown, flow_colours(wheel(*image.shape[:2]) * scale, scale)]
        rows.append((f"{video}, frame {frame}; full colour: {scale:.1f} pixels a frame", panels))
    draw_preview(f"flow-{name}", f"{recipe.network}, {recipe.width}x{recipe.height}: direction as colour", rows)


def wheel(height: int, width: int) -> Float[Tensor, "2 H W"]:
    """All flows up to length 1, each at its own place in the largest circle; 0 outside."""
    radius = min(height, width) / 2
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    flow = torch.stack([x - width / 2, y - height / 2]) / radius
    return flow * (torch.linalg.vector_norm(flow, dim=0) <= 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compute optical flow.")
    parser.add_argument("recipe", choices=("state", "mama"))
    main(parser.parse_args().recipe)
