"""Published weights of the extractors: where they are offered, whether a file is the right one, loading it strictly.

The files lie in models/pretrained/. Nothing is downloaded unasked: a stage that needs a file that is not there stops
and gives the command, `python -m stages.weights NAME`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stages.command import VigilError
from stages.io.checkpoints import load_authors_file
from stages.io.files import file_hash

PRETRAINED = Path("models/pretrained")


@dataclass(frozen=True)
class Weights:
    """One published file.

    Attributes:
        title: network, and what it was trained on.
        file: its name in models/pretrained/.
        address: where its makers offer it.
        megabytes: its size in units of 10^6 bytes, at least.
        sha256: how the hash of its content begins, where its makers give that; otherwise the names and shapes of all
            parameters are the check.
        licence: of the weights, as far as their makers state one.
    """

    title: str
    file: str
    address: str
    megabytes: float
    sha256: str
    licence: str


DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
TORCH = "https://download.pytorch.org/models/"
NONLOCAL = "https://dl.fbaipublicfiles.com/video-nonlocal/"
WEIGHTS = {
    "cascade_rcnn": Weights(
        "Cascade R-CNN R-101-FPN 1x, COCO (mmdetection)",
        "cascade_rcnn_r101_fpn_1x_coco_20200317-0b6a2fbf.pth",
        "https://download.openmmlab.com/mmdetection/v2.0/cascade_rcnn/cascade_rcnn_r101_fpn_1x_coco/"
        "cascade_rcnn_r101_fpn_1x_coco_20200317-0b6a2fbf.pth",
        354.0,
        "0b6a2fbf",
        "Apache-2.0",
    ),
    "deeplabv3": Weights(
        "DeepLabv3 ResNet-101, COCO with the labels of Pascal VOC (torchvision)",
        "deeplabv3_resnet101_coco-586e9e4e.pth",
        TORCH + "deeplabv3_resnet101_coco-586e9e4e.pth",
        244.5,
        "586e9e4e",
        "BSD-3-Clause (torchvision)",
    ),
    "faster_rcnn": Weights(
        "Faster R-CNN ResNet-50 FPN v2, COCO (torchvision)",
        "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth",
        TORCH + "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth",
        175.2,
        "dd69338a",
        "BSD-3-Clause (torchvision)",
    ),
    "flownet2": Weights(
        "FlowNet2, converted from the Caffe model (NVIDIA)",
        "FlowNet2_checkpoint.pth.tar",
        DRIVE + "1LLYdnObBYzs7rDYYUCGscuC2nwO7y85I",
        650.0,
        "",
        "research only, see the licence beside the Caffe models",
    ),
    "flownet2_sd": Weights(
        "FlowNet2-SD, converted from the Caffe model (NVIDIA)",
        "FlowNet2-SD_checkpoint.pth.tar",
        DRIVE + "1QiT0bxXF04qLWc3ml0kPPlwmHwp24r75",
        181.5,
        "",
        "research only, see the licence beside the Caffe models",
    ),
    "i3d": Weights(
        "I3D ResNet-50, Kinetics-400 (video-nonlocal-net, Caffe2)",
        "i3d_baseline_32x2_IN_pretrain_400k.pkl",
        NONLOCAL + "i3d_baseline_32x2_IN_pretrain_400k.pkl",
        112.3,
        "",
        "Apache-2.0 (video-nonlocal-net)",
    ),
    "i3d_nonlocal": Weights(
        "I3D ResNet-50 with non-local blocks, Kinetics-400 (video-nonlocal-net, Caffe2)",
        "i3d_nonlocal_32x2_IN_pretrain_400k.pkl",
        NONLOCAL + "i3d_nonlocal_32x2_IN_pretrain_400k.pkl",
        141.7,
        "",
        "Apache-2.0 (video-nonlocal-net)",
    ),
    "raft_large": Weights(
        "RAFT large, C+T+S+K+H (torchvision)",
        "raft_large_C_T_SKHT_V2-ff5fadd5.pth",
        TORCH + "raft_large_C_T_SKHT_V2-ff5fadd5.pth",
        21.1,
        "ff5fadd5",
        "BSD-3-Clause (torchvision)",
    ),
    "raft_small": Weights(
        "RAFT small, C+T (torchvision)",
        "raft_small_C_T_V2-01064c6d.pth",
        TORCH + "raft_small_C_T_V2-01064c6d.pth",
        4.0,
        "01064c6d",
        "BSD-3-Clause (torchvision)",
    ),
}


def weights_file(name: str) -> Path:
    """The path of a published file that is there and whole.

    Raises VigilError with what is wrong and the command that downloads it.
    """
    path = PRETRAINED / WEIGHTS[name].file
    if not path.is_file():
        weights = WEIGHTS[name]
        raise VigilError(
            f"{path} not found ({weights.title}, {weights.megabytes:.0f} MB): run\n"
            f"    python -m stages.weights {name}\n"
            f"or put the file there yourself, from {weights.address}"
        )
    check_file(path, name)
    return path


def check_file(path: Path, name: str) -> None:
    """Raise VigilError where a file is clearly not the published one: a web page, cut off, or of another hash."""
    weights = WEIGHTS[name]
    with open(path, "rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        raise VigilError(
            f"{path} is a web page: the server answered with a page instead of the file (a quota, or a question to "
            f"the reader); download it in a browser from {weights.address}"
        )
    if weights.sha256:
        found = file_hash(path)
        if not found.startswith(weights.sha256):
            raise VigilError(
                f"{path}: its SHA-256 begins with {found[: len(weights.sha256)]}, expected {weights.sha256} "
                f"({weights.title}): delete it and run `python -m stages.weights {name}`"
            )


def load_weights(network: nn.Module, name: str) -> None:
    """Load a published file into a network of the published architecture; raises VigilError as `load_state` does."""
    path = weights_file(name)
    load_state(network, state_dict(load_authors_file(path)), path)


def load_state(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load tensors into a network: every parameter's name and shape has to match.

    Batch counters, which older files do not have, may be missing.

    Args:
        network: of the published architecture.
        state: parameter name -> tensor.
        path: the file that they are from, for the message.

    Raises VigilError at the first parameter that is missing, unknown or of another shape.
    """
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    for key in [*expected, *state]:
        found = tuple(state[key].shape) if key in state else "missing"
        wanted = expected.get(key, "no such parameter")
        if found != wanted and not (key.endswith("num_batches_tracked") and key not in state):
            raise VigilError(f"{path}: {key}: found {found}, expected {wanted}; is it another network's file?")
    network.load_state_dict(state, strict=False)


def state_dict(loaded: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint: what it holds under `state_dict`, or the whole of it."""
    return loaded["state_dict"] if isinstance(loaded, dict) and "state_dict" in loaded else loaded
