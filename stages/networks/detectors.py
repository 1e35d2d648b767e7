"""Object detectors: mmdet's Cascade R-CNN and torchvision's Faster R-CNN, both for COCO's 80 classes.

VEC and STATE took their boxes from Cascade R-CNN R-101-FPN of mmdetection 1.0rc0. The settings here are those of its
configuration `cascade_rcnn_r101_fpn_1x`; the code is mmdet 3.3, the weights are the file for mmdet 2 and 3,
`cascade_rcnn_r101_fpn_1x_coco_20200317-0b6a2fbf.pth`. The file for mmdet 1 does not fit: there the background is the
first of 81 classes, and a box is one pixel larger. Boxes therefore come close to the published ones, not exact.

N boxes; H, W pixels. Frames have 8 bits, blue first.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, FasterRCNN_ResNet50_FPN_V2_Weights, fasterrcnn_resnet50_fpn_v2

from stages.networks import mmcv_ops

CATEGORIES: list[str] = FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1.meta["categories"]  # by COCO's own numbers
CLASSES = [name for name in CATEGORIES if name not in ("__background__", "N/A")]  # the 80 that COCO labels
SCALE = (1333, 800)  # pixels, of the long and of the short side: what an image is resized to fit into
STAGES = ((0.1, 0.2), (0.05, 0.1), (0.033, 0.067))  # standard deviations of a box's centre and size, stage by stage


class Detections(NamedTuple):
    """What was found in one frame, highest score first."""

    boxes: Float32[np.ndarray, "N 4"]  # x1, y1, x2, y2 in pixels of the frame
    scores: Float32[np.ndarray, "N"]
    classes: list[str]


def cascade_rcnn(depth: int = 101) -> nn.Module:
    """Cascade R-CNN with FPN, in eval mode, with random weights; fetches nothing.

    "Cascade R-CNN: Delving into High Quality Object Detection", Cai, Vasconcelos, CVPR 2018. Proposals: the best
    1,000 of a level, NMS at 0.7, the best 1,000. Three stages with class-agnostic regression. Detections: score
    above 0.05, NMS within a class at 0.5, the best 100.

    Args:
        depth: of the ResNet: 18, 34, 50 or 101.
    """
    mmcv_ops.install()
    with warnings.catch_warnings(action="ignore"):  # PyTorch's, about what mmengine imports of it
        from mmdet.models.data_preprocessors import DetDataPreprocessor
        from mmdet.models.detectors import CascadeRCNN
        from mmengine.config import ConfigDict

    width = 64 if depth < 50 else 256
    return CascadeRCNN(
        data_preprocessor={
            "type": DetDataPreprocessor,
            "mean": [123.675, 116.28, 103.53],
            "std": [58.395, 57.12, 57.375],
            "bgr_to_rgb": True,
            "pad_size_divisor": 32,
        },
        backbone={"type": "ResNet", "depth": depth},
        neck={
            "type": "FPN",
            "in_channels": [width, 2 * width, 4 * width, 8 * width],
            "out_channels": 256,
            "num_outs": 5,
        },
        rpn_head={
            "type": "RPNHead",
            "in_channels": 256,
            "anchor_generator": {
                "type": "AnchorGenerator",
                "scales": [8],
                "ratios": [0.5, 1.0, 2.0],
                "strides": [4, 8, 16, 32, 64],
            },
        },
        roi_head={
            "type": "CascadeRoIHead",
            "num_stages": len(STAGES),
            "stage_loss_weights": [1, 0.5, 0.25],
            "bbox_roi_extractor": {
                "type": "SingleRoIExtractor",
                "roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0},
                "out_channels": 256,
                "featmap_strides": [4, 8, 16, 32],
            },
            "bbox_head": [
                {
                    "type": "Shared2FCBBoxHead",
                    "in_channels": 256,
                    "fc_out_channels": 1024,
                    "num_classes": len(CLASSES),
                    "bbox_coder": {"type": "DeltaXYWHBBoxCoder", "target_stds": [centre, centre, size, size]},
                    "reg_class_agnostic": True,
                }
                for centre, size in STAGES
            ],
        },
        test_cfg=ConfigDict(
            rpn={
                "nms_pre": 1000,
                "max_per_img": 1000,
                "nms": {"type": "nms", "iou_threshold": 0.7},
                "min_bbox_size": 0,
            },
            rcnn={"score_thr": 0.05, "nms": {"type": "nms", "iou_threshold": 0.5}, "max_per_img": 100},
        ),
    ).eval()


def faster_rcnn() -> FasterRCNN:
    """Faster R-CNN with ResNet-50 and FPN, in eval mode, with random weights; fetches nothing.

    "Benchmarking Detection Transfer Learning with Vision Transformers", Li et al., arXiv 2111.11429, whose recipe
    torchvision's second version follows.
    """
    return fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None).eval()


@torch.inference_mode()
def detect(network: nn.Module, frames: Sequence[UInt8[np.ndarray, "H W 3"]]) -> list[Detections]:
    """Find objects of all 80 classes in frames, on the network's device.

    Args:
        network: of `cascade_rcnn` or `faster_rcnn`.
        frames: of one size.
    """
    if isinstance(network, FasterRCNN):
        return _faster_rcnn(network, frames)
    return _cascade_rcnn(network, frames)


def _cascade_rcnn(network: Any, frames: Sequence[np.ndarray]) -> list[Detections]:
    from mmdet.structures import DetDataSample

    height, width = frames[0].shape[:2]
    scale = min(max(SCALE) / max(height, width), min(SCALE) / min(height, width))
    size = (int(width * scale + 0.5), int(height * scale + 0.5))
    form = {"ori_shape": (height, width), "img_shape": size[::-1], "scale_factor": (size[0] / width, size[1] / height)}
    images = [torch.from_numpy(cv2.resize(frame, size)).permute(2, 0, 1) for frame in frames]
    samples = network.test_step({"inputs": images, "data_samples": [DetDataSample(metainfo=form) for _ in frames]})
    found = [sample.pred_instances for sample in samples]
    return [_detections(objects.bboxes, objects.scores, objects.labels, CLASSES) for objects in found]


def _faster_rcnn(network: FasterRCNN, frames: Sequence[np.ndarray]) -> list[Detections]:
    device = next(network.parameters()).device
    images = [torch.from_numpy(frame[..., ::-1].copy()).to(device).permute(2, 0, 1) / 255 for frame in frames]
    return [
        _detections(objects["boxes"], objects["scores"], objects["labels"], CATEGORIES) for objects in network(images)
    ]


def _detections(boxes: Tensor, scores: Tensor, labels: Tensor, names: list[str]) -> Detections:
    return Detections(boxes.cpu().numpy(), scores.cpu().numpy(), [names[label] for label in labels.tolist()])
