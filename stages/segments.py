"""What each pixel belongs to: data/frames, data/videos.parquet -> data/segments/<video>.npy, data/segments.json.

float16 (T frames, 21 classes, size/8, size/8): logits of DeepLabv3 for the classes of Pascal VOC, before they are
scaled up. Scaling them up bilinearly (align_corners=False) gives exactly the network's output, at a 64th of the space.
Also draws metrics/previews/segments.png.

`motion` needs no weights: where a frame differs from the one before it, something (a "person") is in front of the
background.
"""

import functools
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor, nn
from torchvision.models.segmentation import DeepLabV3_ResNet101_Weights, deeplabv3_resnet101

from stages import params
from stages.command import command
from stages.device import device, device_name, devices, own_device
from stages.io.files import file_hash, replacing
from stages.io.frames import SCRATCH, pixels
from stages.io.segments import SEGMENTS, STRIDE, read_segments
from stages.io.weights import WEIGHTS, load_weights, weights_file
from stages.preview import draw_preview, shown_frames
from stages.videos import FRAMES, one_class_videos, per_video, prefetched

CLASSES = DeepLabV3_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
BACKGROUND, PERSON = CLASSES.index("__background__"), CLASSES.index("person")
STILL, SPREAD, ABSENT = 2.0, 1.0, -10.0  # grey levels; logit of the classes that motion cannot tell


@command
def main() -> str:
    """Segment every frame of all training and test videos."""
    settings = params.load()
    recipe = settings.recipe("segments")
    weights = file_hash(weights_file("deeplabv3")) if recipe.network == "deeplabv3" else None
    names = tuple(devices(settings.device))
    videos = one_class_videos()
    hashes = dict(zip(videos.video, videos.hash, strict=True))
    frame_bytes = 2 * len(CLASSES) * (recipe.size // STRIDE) ** 2
    per_video(
        segment,
        hashes,
        SEGMENTS,
        ".npy",
        {video: (FRAMES.absolute(), SCRATCH.absolute(), key, recipe, names) for video, key in hashes.items()},
        identity=[recipe.model_dump(exclude={"batch"}), weights, torch.device(names[0]).type if weights else None],
        workers=len(names) if weights else settings.workers,
        desc="segments",
        sizes={video: frame_bytes * frames for video, frames in zip(videos.video, videos.frames.tolist(), strict=True)},
    )
    description = {
        "network": recipe.network,
        "weights": WEIGHTS["deeplabv3"].file if recipe.network == "deeplabv3" else "none: frame differences",
        "input": f"{recipe.size}x{recipe.size}, blue first, -1..1, as MAMA feeds it",
        "classes": CLASSES,
        "device": device_name(device(settings.device)),
    }
    with replacing(SEGMENTS.with_suffix(".json")) as path:
        path.write_text(json.dumps(description, indent=2) + "\n")
    draw_preview(
        "segments",
        f"{recipe.network}: each class but the background in a colour of its own",
        [
            (f"{video}, frame {frame}", [image, overlay(image, read_segments(video)[frame])])
            for video, frame, image in shown_frames(videos)
        ],
    )
    return f"{len(videos)} videos, {videos.frames.sum()} frames -> {SEGMENTS}"


def segment(video: str, path: Path, frames: Path, scratch: Path, key: str, recipe: Any, names: tuple[str, ...]) -> dict:
    """Write one video's logits. A task of `per_video`."""
    cv2.setNumThreads(1)  # the processes are the parallelism
    images = pixels(frames / f"{video}.arrow", recipe.size, key, scratch)
    side = recipe.size // STRIDE
    with open(path, "wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (len(images), len(CLASSES), side, side)}
        np.lib.format.write_array_header_1_0(file, header)
        batches = (np.array(images[start : start + recipe.batch]) for start in range(0, len(images), recipe.batch))
        for logits in segmented(prefetched(batches), recipe.network, own_device(names)):
            file.write(logits.tobytes())
    return {"frames": len(images)}


def segmented(
    batches: Iterable[UInt8[np.ndarray, "_ S S C"]], name: str, where: str
) -> Iterator[Float16[np.ndarray, "21 s s"]]:
    """Yield each frame's logits as they are stored, by the network `name` on the device that `where` names."""
    if name == "motion":
        for logits in motion_logits(chain.from_iterable(batches)):
            yield logits.astype(np.float16)
    else:
        for found in deeplab_logits(batches, network(where)):
            yield from found.half().cpu().numpy()


def motion_logits(images: Iterable[UInt8[np.ndarray, "S S C"]]) -> Iterator[Float[np.ndarray, "21 s s"]]:
    """Yield logits from the difference to the frame before: no frame after it is looked at; frame 0 is background.

    A cell of 8x8 pixels that differs by `STILL` grey levels on average is as likely background as person.
    """
    before = None
    for image in images:
        grey = image[..., 0] if image.shape[-1] == 1 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        now = cv2.GaussianBlur(grey, (5, 5), 0)
        difference = cv2.absdiff(now, now if before is None else before)
        side = len(image) // STRIDE
        cells = cv2.resize(difference.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
        logits = np.full((len(CLASSES), side, side), ABSENT, np.float32)
        logits[PERSON] = (cells - STILL) / SPREAD / 2
        logits[BACKGROUND] = -logits[PERSON]
        yield logits
        before = now


def deeplab_logits(
    batches: Iterable[UInt8[np.ndarray, "_ S S C"]], deeplab: nn.Module
) -> Iterator[Float[Tensor, "B 21 s s"]]:
    """Yield DeepLabv3's logits at an eighth of the resolution.

    The network sees what MAMA feeds it: blue first, -1..1, without ImageNet's normalisation (spec of the published
    checkpoints; a network that is fed differently gives other labels than they were trained with).
    """
    where = next(deeplab.parameters()).device
    backbone, classifier = deeplab.get_submodule("backbone"), deeplab.get_submodule("classifier")
    for images in batches:
        x = torch.from_numpy(images).to(where).permute(0, 3, 1, 2)
        x = x.expand(-1, 3, -1, -1).float() / 127.5 - 1
        with torch.inference_mode():
            yield classifier(backbone(x)["out"])


@functools.cache
def network(where: str) -> nn.Module:
    """DeepLabv3-ResNet101 with the published weights, on a device; once a process."""
    device(where)
    built = build()
    load_weights(built, "deeplabv3")
    return built.to(where).eval()


def build() -> nn.Module:
    """DeepLabv3-ResNet101 for 21 classes, with the auxiliary head that the published file has."""
    return deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=len(CLASSES), aux_loss=True)


def overlay(image: UInt8[np.ndarray, "H W 3"], logits: Float[np.ndarray, "21 s s"]) -> UInt8[np.ndarray, "H W 3"]:
    """A frame (red first) with everything that is not background tinted, one colour a class."""
    height, width = image.shape[:2]
    classes = cv2.resize(logits.astype(np.float32).transpose(1, 2, 0), (width, height)).argmax(-1)
    hues = (np.arange(len(CLASSES)) * 180 // len(CLASSES)).astype(np.uint8)
    palette = cv2.cvtColor(
        np.stack([hues, np.full_like(hues, 255), np.full_like(hues, 255)], -1)[None], cv2.COLOR_HSV2RGB
    )
    tinted = image // 2 + palette[0][classes] // 2
    return np.where((classes == BACKGROUND)[..., None], image, tinted)


if __name__ == "__main__":
    main()
