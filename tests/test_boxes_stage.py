"""The boxes stage: every source's tables, what it keeps and in which order, and what it refuses."""

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks import box_recall
from stages import boxes as stage
from stages.boxes import SCHEMA, checked, chosen, main, moving_frames, published_boxes, published_files, write_boxes
from stages.command import VigilError
from stages.io.frames import FrameStore
from stages.motion import motion_map
from stages.networks.detectors import Detections
from stages.recipes.boxes import Detector, Motion, Recipe
from tests.conftest import moving_square, set_params
from tests.golden import SHARED, needs_ped2

VIDEOS = ["train/1", "train/2", "test/1", "test/2"]
MOTION = Motion(difference="saturate", blur=1, threshold=30, area=20, extend=0)
DETECTOR = Detector(score=0.5, area=100, cover=0.6, batch=1)


@pytest.fixture
def project(prepared):
    """The prepared data set with a recipe that suits it."""
    set_params(prepared, workers=1, device="cpu", boxes__motion=MOTION.model_dump())
    return prepared


def published_arrays(offset: int = 0) -> np.ndarray:
    """A split's two videos of 14 frames: frame i has i % 3 boxes."""
    arrays = np.empty(28 + offset, object)
    for i in range(len(arrays)):
        arrays[i] = np.array([[k, 1, k + 5.5, 9] for k in range(i % 3)], np.float64).reshape(-1, 4)
    return arrays


def write_published(project, name: str, arrays: np.ndarray) -> None:
    folder = project / "data/raw/demo/boxes"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / name, arrays, allow_pickle=True)


def test_motion_boxes_of_a_moving_square(project):
    main()
    table = pd.read_parquet("data/boxes")
    assert list(table.columns) == SCHEMA.names
    assert table.dtypes.astype(str).to_dict() | {"video": "", "class": "", "origin": ""} == {
        "video": "",
        "frame": "int32",
        **dict.fromkeys(["x1", "y1", "x2", "y2", "score"], "float32"),
        "class": "",
        "origin": "",
    }
    assert {*table.video} == {*VIDEOS}
    assert {*table.origin} == {"motion"}
    assert {*table.score} == {1.0}
    assert {*table["class"]} == {""}
    # the square lies in columns 10 to 20 of frame 4 and moves by 2: both its edges move, its inside looks still
    found = table.query("video == 'train/1' and frame == 4")[["x1", "y1", "x2", "y2"]].to_numpy()
    assert sorted(found.tolist()) == [[8, 10, 12, 20], [18, 10, 22, 20]]
    about = json.loads((project / "data/boxes.json").read_text())
    assert about["source"] == "motion"
    assert about["motion"] == MOTION.model_dump()
    assert "detector" not in about
    assert (about["videos"], about["frames"]) == (4, 56)
    assert about["boxes"] == {"motion": len(table)}
    assert about["frames_without_box"] == 0
    with Image.open("metrics/previews/boxes.png") as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert (abs(colours.astype(int) - stage.COLOURS["motion"][1]).sum(1) < 30).any()


def test_frames_without_motion_have_the_same_schema(project):
    set_params(project, boxes__motion__threshold=255)
    main()
    table = pd.read_parquet("data/boxes")
    assert len(table) == 0
    assert table.frame.dtype == np.int32
    assert table.x1.dtype == np.float32
    about = json.loads((project / "data/boxes.json").read_text())
    assert about["frames_without_box"] == 1
    assert about["boxes"] == {}


def test_videos_for_weak_supervision_have_no_boxes(project):
    videos = pd.read_parquet("data/videos.parquet")
    videos.loc[videos.video == "train/2", "split"] = ""
    videos.to_parquet("data/videos.parquet")
    main()
    assert {*pd.read_parquet("data/boxes").video} == {*VIDEOS} - {"train/2"}


@pytest.mark.parametrize("names", [("bboxes_{}.npy",), ("bboxes_{}_obj_det_with_motion.npy",)])
def test_published_boxes_come_back(project, names):
    set_params(project, boxes__source="imported")
    for split in ("train", "test"):
        write_published(project, names[0].format(split), published_arrays())
    main()
    table = pd.read_parquet("data/boxes")
    assert {*table.origin} == {"imported"}
    for number in (0, 1):
        video = table[table.video == f"train/{number + 1}"]
        for frame in range(14):
            found = video.loc[video.frame == frame, ["x1", "y1", "x2", "y2"]].to_numpy()
            assert (found == published_arrays()[14 * number + frame]).all()
            assert len(found) == (14 * number + frame) % 3
    about = json.loads((project / "data/boxes.json").read_text())
    assert about["boxes"] == {"imported": 54}
    assert about["frames_without_box"] == round(20 / 56, 4)
    assert "motion" not in about
    assert len(about["files"]) == 2


@pytest.mark.parametrize("offset", [-1, 1])
def test_published_boxes_of_other_videos_are_refused(project, offset):
    set_params(project, boxes__source="imported")
    write_published(project, "bboxes_train.npy", published_arrays(offset))
    write_published(project, "bboxes_test.npy", published_arrays())
    with pytest.raises(SystemExit, match=rf"holds {28 + offset} frames, the 2 train videos have 28 frames"):
        main()
    assert not (project / "data/boxes").exists()


def test_missing_published_boxes_are_named(project):
    set_params(project, boxes__source="imported")
    write_published(project, "bboxes_train.npy", published_arrays())
    with pytest.raises(SystemExit, match=r"demo/boxes: bboxes_test\.npy not found.*VEC_VAD.*boxes\.source: motion"):
        main()


class Evil:
    def __reduce__(self):
        return open, ("broken", "w")


def test_code_in_published_boxes_is_not_run(project):
    set_params(project, boxes__source="imported")
    write_published(project, "bboxes_train.npy", np.array([Evil()] * 28, object))
    write_published(project, "bboxes_test.npy", published_arrays())
    with pytest.raises(SystemExit, match=r"bboxes_train\.npy is refused"):
        main()
    assert not (project / "broken").exists()


def test_a_pickled_list_is_no_array(project):
    path = project / "bboxes_train.npy"
    np.save(path, published_arrays())
    content = path.read_bytes()
    header = content[: 10 + int.from_bytes(content[8:10], "little")]
    path.write_bytes(header + pickle.dumps({"boxes": 1}))
    with pytest.raises(VigilError, match="refused"):
        published_boxes({"train": path}, pd.read_parquet("data/videos.parquet"))


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (np.ones((2, 5)), r"shape \(2, 5\), expected numbers \(boxes, 4\)"),
        (np.ones(4), r"shape \(4,\)"),
        (np.array([["a", "b", "c", "d"]]), "expected numbers"),
        ([[0.0, 0, 5, 5], [3, 3, 3, 8]], r"here: \[3.0, 3.0, 3.0, 8.0\] is no box"),
        ([[0.0, 0, 49, 5]], "is no box x1, y1, x2, y2 in 48x40 pixels"),
        ([[0.0, 0, 5, 41]], "is no box"),
        ([[-0.5, 0, 5, 5]], "is no box"),
        ([[0.0, 0, np.nan, 5]], "is no box"),
    ],
)
def test_what_is_no_box_is_refused(boxes, message):
    with pytest.raises(VigilError, match=message):
        checked(boxes, "here", 40, 48)


def test_a_box_may_be_as_large_as_the_frame_and_a_frame_may_have_none():
    assert checked([[0.0, 0, 48, 40]], "here", 40, 48).tolist() == [[0, 0, 48, 40]]
    for nothing in ([], np.empty((0, 4)), np.empty((0, 5))):
        assert checked(nothing, "here", 40, 48).shape == (0, 4)


@needs_ped2
def test_vecs_arrays_of_ped2_fit_its_videos():
    root = SHARED / "data/ped2"
    clips = [
        {"video": f"{split}/{clip.name}", "split": split, "frames": len(list(clip.glob("*.jpg")))}
        for split in ("train", "test")
        for clip in sorted((root / f"{split}ing/frames").iterdir())
    ]
    videos = pd.DataFrame(clips).assign(height=240, width=360)
    found = published_boxes(published_files(root / "boxes", videos), videos)
    assert sum(len(boxes) for video in found if video.startswith("train") for boxes in found[video]) == 31089
    assert sum(len(boxes) for video in found if video.startswith("test") for boxes in found[video]) == 34715
    assert min(len(boxes) for frames in found.values() for boxes in frames) > 0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("source", "yolo", r"boxes\.source: found 'yolo'"),
        ("motion__blur", 4, r"boxes\.motion\.blur: found 4.*odd"),
        ("motion__difference", "add", r"boxes\.motion\.difference: found 'add'"),
        ("detector__score", 1.5, r"boxes\.detector\.score: found 1\.5"),
        ("detector__bach", 1, r"boxes\.detector\.bach: unknown key; did you mean 'batch'"),
    ],
)
def test_wrong_parameters_are_named(project, key, value, message):
    set_params(project, **{f"boxes__{key}": value})
    with pytest.raises(SystemExit, match=message):
        main()


def test_missing_weights_stop_the_stage_first(project):
    set_params(project, boxes__source="cascade_rcnn")
    with pytest.raises(SystemExit, match=r"cascade_rcnn_r101\S+ not found.*\n.*stages\.weights cascade_rcnn"):
        main()
    assert not (project / "data/scratch").exists()


def test_a_detectors_boxes_come_first_and_keep_motion_out(project, monkeypatch):
    """The detector finds the square's left half in colour frames, and things too small, covered or unsure."""
    batch_sizes = []

    def detect(network, frames):
        assert network == "network"
        batch_sizes.append(len(frames))
        found = []
        for frame in frames:
            x = float(np.flatnonzero(frame[15, :, 1] == 150)[0])
            square, covered, small, unsure = [x, 9, x + 5, 21], [x, 9, x + 3, 20], [40, 30, 41, 31], [0, 0, 40, 30]
            boxes = np.array([square, covered, small, unsure], np.float32)
            found.append(Detections(boxes, np.array([0.9, 0.8, 0.7, 0.5], np.float32), ["car", "cup", "dog", "cow"]))
        return found

    monkeypatch.setattr(stage, "detect", detect)
    monkeypatch.setattr(stage, "network", lambda source, where: "network")
    monkeypatch.setattr(stage, "weights_file", lambda name: project / "params.yaml")
    set_params(
        project,
        boxes__source="faster_rcnn",
        boxes__detector={"score": 0.5, "area": 9, "cover": 0.6, "batch": 4},
    )
    main()
    assert batch_sizes == [4, 4, 4, 2] * 4
    table = pd.read_parquet("data/boxes").query("video == 'train/1'")
    for frame, rows in table.groupby("frame"):
        first = rows.iloc[0]
        x = 2 + 2 * frame
        assert (first.x1, first.y1, first.x2, first.y2) == (x, 9, x + 5, 21)
        assert (first.origin, first["class"], first.score) == ("detector", "car", np.float32(0.9))
        assert {*rows.origin[1:]} == {"motion"}
        if 0 < frame < 13:  # the left edge's motion is outside the detector's box by two columns, the right one's whole
            assert sorted(rows[["x1", "x2"]].to_numpy()[1:].tolist()) == [[x - 2, x], [x + 8, x + 12]]
    about = json.loads((project / "data/boxes.json").read_text())
    assert about["detector"] == {"score": 0.5, "area": 9, "cover": 0.6}
    assert len(about["weights_sha256"]) == 64
    assert about["weights"].startswith("fasterrcnn")
    assert about["boxes"]["detector"] == 56


def test_which_detections_are_chosen():
    boxes = np.array([[0, 0, 20, 20], [30, 0, 39, 9], [30, 0, 38, 9], [60, 0, 80, 8]], np.float32)
    scores = np.array([0.6, 0.51, 0.9, 0.5], np.float32)
    found = chosen(Detections(boxes, scores, ["a", "b", "c", "d"]), DETECTOR)
    assert found.classes == ["b", "a"]  # c has 90 pixels, d is not above the score
    assert (found.boxes == boxes[[1, 0]]).all()
    assert (found.scores == scores[[1, 0]]).all()


def test_the_ends_of_a_video_repeat_its_first_and_last_frame(prepared):
    store = FrameStore("data/frames/train/1.arrow")
    faint = MOTION.model_copy(update={"threshold": 6})  # the noise's differences lie on both sides of it
    ends = [store[0], *(store[i] for i in range(14)), store[13]]
    expected = [motion_map(*ends[i : i + 3], 6, "saturate") for i in range(14)]
    found = [moves for _, moves in moving_frames((store[i] for i in range(14)), faint)]
    assert (np.stack(found) == np.stack(expected)).all()
    assert 0.2 < np.mean(found[13] > 0) < 0.8


@pytest.mark.parametrize("colour", [True, False])
def test_every_frame_is_decoded_and_blurred_once(prepared, monkeypatch, colour):
    counts = {"read": 0, "blurred": 0}

    def counted(name, function):
        def count(*args):
            counts[name] += 1
            return function(*args)

        return count

    monkeypatch.setattr(FrameStore, "read", counted("read", FrameStore.read))
    monkeypatch.setattr(stage, "blurred", counted("blurred", stage.blurred))
    if colour:
        monkeypatch.setattr(stage, "detect", lambda network, frames: [stage.NOTHING] * len(frames))
        monkeypatch.setattr(stage, "network", lambda source, where: None)
    recipe = Recipe(source="faster_rcnn" if colour else "motion", detector=DETECTOR, motion=MOTION)
    counted_boxes = stage.find_boxes("train/1", Path("made.parquet"), Path("data/frames"), recipe, ("cpu",) * colour)
    assert counted_boxes["frames"] == 14
    assert counts == {"read": 14, "blurred": 14}


def test_a_frames_motion_is_known_with_the_frame_after_it():
    pulled = []
    frames = (pulled.append(i) or np.full((8, 8), 20 * i, np.uint8) for i in range(5))
    assert [len(pulled) for _ in moving_frames(frames, MOTION)] == [2, 3, 4, 5, 5]
    assert list(moving_frames(iter([]), MOTION)) == []


def test_a_video_of_one_frame_does_not_move(tmp_path):
    from stages.io.frames import write_store

    write_store(tmp_path / "a.arrow", moving_square(1, 2, 0), fps=25.0, source="a")
    [(frame, moves)] = moving_frames([FrameStore(tmp_path / "a.arrow")[0]], MOTION)
    assert frame.shape == (40, 48, 3)
    assert not moves.any()


def test_counts_of_a_written_video(tmp_path):
    one = Detections(np.ones((1, 4), np.float32), np.ones(1, np.float32), ["dog"])
    rows = [{"detector": one, "motion": stage.NOTHING}, {"detector": stage.NOTHING, "motion": stage.NOTHING}]
    counts = write_boxes("v", tmp_path / "v.parquet", rows)
    assert counts == {"frames": 2, "empty": 1, "detector": 1, "motion": 0, "imported": 0}
    assert pd.read_parquet(tmp_path / "v.parquet")["class"].tolist() == ["dog"]


def test_recall_by_hand():
    theirs = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [50, 50, 60, 60]])
    ours = np.array([[0, 0, 10, 5], [21, 0, 30, 12]])  # half of the first: met; 90 of 118 of the second
    assert box_recall.met(theirs, ours).tolist() == [True, True, False]
    assert box_recall.met(theirs, ours[1:]).tolist() == [False, True, False]
    assert box_recall.met(theirs, np.empty((0, 4))).tolist() == [False] * 3
    assert box_recall.met(np.empty((0, 4)), ours).shape == (0,)


def test_recall_of_published_by_themselves_is_one(project, capsys):
    set_params(project, boxes__source="imported", dataset="mine")
    for split in ("train", "test"):
        folder = project / "data/raw/mine/boxes"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"bboxes_{split}.npy", published_arrays(), allow_pickle=True)
    main()
    box_recall.main()
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last == ["all", "56", "54", "54", "1.000", "1.000"]
