"""Detectors: mmdet's own configuration and pipeline give the same; frames go in and boxes come out as documented."""

import re
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet101
from torchvision.models.detection import FasterRCNN

from stages.command import VigilError
from stages.io.weights import load_state
from stages.networks import detectors
from stages.networks.detectors import CLASSES, cascade_rcnn, detect, faster_rcnn


def noise(count: int, height: int, width: int) -> list[np.ndarray]:
    frames = np.random.default_rng(0).integers(0, 256, (count, height // 8, width // 8, 3), dtype=np.uint8)
    return [cv2.resize(frame, (width, height), interpolation=cv2.INTER_CUBIC) for frame in frames]


@pytest.fixture(scope="module")
def small():
    """Cascade R-CNN on ResNet-50 whose random heads are sure enough to detect something."""
    torch.manual_seed(0)
    network = cascade_rcnn(50)
    for head in network.roi_head.bbox_head:
        nn.init.normal_(head.fc_cls.weight, std=0.5)
    return network


@pytest.fixture
def little(monkeypatch):
    """Frames are resized to fit into 160 x 96 instead of 1333 x 800 pixels."""
    monkeypatch.setattr(detectors, "SCALE", (160, 96))


def test_detections_are_those_of_mmdets_own_configuration(small, little):
    with warnings.catch_warnings(action="ignore"):
        import mmdet
        from mmdet.datasets.transforms import PackDetInputs, Resize
        from mmdet.registry import MODELS
        from mmengine.config import Config
        from mmengine.registry import DefaultScope

    folder = Path(mmdet.__file__).parent / ".mim/configs/cascade_rcnn"
    config = Config.fromfile(folder / "cascade-rcnn_r50_fpn_1x_coco.py").model
    config.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope("mmdet"):
        theirs = MODELS.build(config).eval()
    theirs.load_state_dict(small.state_dict())

    for frame in noise(2, 72, 104):
        shown = {"img": frame, "img_shape": frame.shape[:2], "ori_shape": frame.shape[:2], "img_id": 0, "img_path": ""}
        data = PackDetInputs()(Resize(scale=(160, 96), keep_ratio=True)(shown))
        with torch.inference_mode():
            expected = theirs.test_step({"inputs": [data["inputs"]], "data_samples": [data["data_samples"]]})
        expected = expected[0].pred_instances
        found = detect(small, [frame])[0]
        assert len(found.boxes) == 100
        assert (found.boxes == expected.bboxes.numpy()).all()
        assert (found.scores == expected.scores.numpy()).all()
        assert found.classes == [CLASSES[label] for label in expected.labels]


def test_published_resizing():
    """As mmdet fits an image into 1333 x 800 pixels."""

    class Recorder(nn.Module):
        def test_step(self, data):
            seen.append((data["inputs"][0].shape, data["data_samples"][0].metainfo))
            return []

    seen = []
    for height, width in [(240, 360), (360, 640), (480, 856), (856, 480)]:
        detect(Recorder(), [np.zeros((height, width, 3), np.uint8)])
    assert [tuple(shape) for shape, _ in seen] == [(3, 800, 1200), (3, 750, 1333), (3, 747, 1333), (3, 1333, 747)]
    assert seen[1][1]["scale_factor"] == (1333 / 640, 750 / 360)


def test_boxes_are_in_the_frame_and_sorted(small, little):
    frames = noise(2, 64, 96)
    found = detect(small, frames)
    assert len(found) == 2
    for boxes, scores, classes in found:
        assert boxes.dtype == scores.dtype == np.float32
        assert len(boxes) == len(scores) == len(classes) > 0
        assert (boxes >= 0).all()
        assert (boxes <= [96, 64, 96, 64]).all()
        assert boxes[:, 2].max() > 90
        assert (np.diff(scores) <= 0).all()
        assert (scores > 0.05).all()
        assert {*classes} <= {*CLASSES}
    alone = detect(small, frames[1:])[0]
    assert np.abs(alone.scores - found[1].scores).max() < 1e-3


def test_nothing_is_found_by_unsure_heads(little):
    torch.manual_seed(0)
    found = detect(cascade_rcnn(18), noise(1, 64, 96))[0]  # random weights: every class about as likely as any
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == (0,)
    assert found.classes == []


def test_classes_are_cocos():
    with warnings.catch_warnings(action="ignore"):
        from mmdet.evaluation import coco_classes
    assert [name.replace(" ", "_") for name in CLASSES] == coco_classes()
    assert len(CLASSES) == 80


def test_parameters_have_the_published_names():
    """mmdet 2 and 3: torchvision's ResNet-101, FPN, region proposals, three heads of 80 classes and background."""
    shapes = {key: tuple(value.shape) for key, value in cascade_rcnn().state_dict().items()}
    resnet = {
        f"backbone.{key}": tuple(value.shape) for key, value in resnet101().state_dict().items() if key[:2] != "fc"
    }
    convolutions = {f"neck.{part}_convs.{i}.conv" for part in ("lateral", "fpn") for i in range(4)}
    heads = {
        "rpn_head.rpn_conv": (256, 256, 3, 3),
        "rpn_head.rpn_cls": (3, 256, 1, 1),
        "rpn_head.rpn_reg": (12, 256, 1, 1),
    }
    for stage in range(3):
        head = f"roi_head.bbox_head.{stage}"
        heads |= {f"{head}.shared_fcs.0": (1024, 12544), f"{head}.shared_fcs.1": (1024, 1024)}
        heads |= {f"{head}.fc_cls": (81, 1024), f"{head}.fc_reg": (4, 1024)}
    assert resnet.items() <= shapes.items()
    assert {f"{name}.weight": shape for name, shape in heads.items()}.items() <= shapes.items()
    layers = {re.sub(r"\.(weight|bias)$", "", key) for key in shapes.keys() - resnet.keys()}
    assert layers == convolutions | heads.keys()


def test_a_file_of_mmdet_1_is_refused(small):
    own = small.state_dict()
    load_state(small, own, Path("second.pth"))
    first = {key.replace("roi_head.bbox_head", "bbox_head"): value for key, value in own.items()}
    with pytest.raises(VigilError, match=r"first\.pth: roi_head\.bbox_head\.0\.\S+: found missing"):
        load_state(small, first, Path("first.pth"))


def test_faster_rcnn_is_given_red_first_from_0_to_1():
    class Recorder(FasterRCNN):
        def __init__(self):
            nn.Module.__init__(self)
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            seen.extend(images)
            return [{"boxes": torch.ones(1, 4), "scores": torch.ones(1), "labels": torch.tensor([90])} for _ in images]

    seen = []
    frame = np.zeros((4, 6, 3), np.uint8)
    frame[1, 2] = (255, 51, 0)  # blue, green, red
    found = detect(Recorder(), [frame, frame])
    assert len(found) == len(seen) == 2
    assert seen[0].shape == (3, 4, 6)
    assert torch.allclose(seen[0][:, 1, 2], torch.tensor([0.0, 0.2, 1.0]))
    assert found[0].classes == ["toothbrush"]  # the last of COCO's 90 numbers


def test_faster_rcnn_detects():
    torch.manual_seed(0)
    network = faster_rcnn()
    network.transform.min_size, network.transform.max_size = (96,), 160
    nn.init.normal_(network.roi_heads.box_predictor.cls_score.weight, std=1.0)
    boxes, scores, classes = detect(network, noise(1, 64, 96))[0]
    assert boxes.shape == (len(scores), 4)
    assert len(classes) == len(scores) > 0
    assert (boxes <= [96, 64, 96, 64]).all()
    assert (np.diff(scores) <= 0).all()
