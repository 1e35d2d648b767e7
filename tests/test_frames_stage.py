import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from av.error import FFmpegError

from stages import dataset, dictionary, features, frames, videos
from stages.command import VigilError
from stages.datasets.common import Video
from stages.io.files import file_hash
from stages.io.frames import FrameStore, ImageError
from tests.conftest import set_params
from tests.datasets import raw

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with params.yaml and data/raw; call it to choose the data set."""
    text = Path("params.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    Path("data/raw").mkdir(parents=True)

    def choose(name, partial=False):
        lines = [f"dataset: {name}" if line.startswith("dataset:") else line for line in text.splitlines()]
        changed = "\n".join(lines).replace("partial: false", f"partial: {str(partial).lower()}")
        Path("params.yaml").write_text(changed.replace("workers: 0", "workers: 1"))
        return Path("data/raw") / name

    return choose


@pytest.fixture
def own(place):
    """One's own data: a video file, a grey and a coloured folder, and labels."""
    root = place("own")
    raw.video(root / "train/door.mkv", 9)
    raw.images(root / "test/10", 4)
    for index, color in enumerate([(1, 2, 3), (4, 5, 6), (7, 8, 9)]):
        (root / "test/2").mkdir(exist_ok=True)
        cv2.imwrite(str(root / f"test/2/{index}.jpg"), np.full((12, 16, 3), color, np.uint8))
    (root / "labels.csv").write_text("video,start,end\n10,2,3\n")
    return root


def test_tables_stores_and_empty_masks(own):
    frames.main()
    videos = pd.read_parquet("data/videos.parquet")
    assert list(videos.video) == ["test/2", "test/10", "train/door"]
    assert list(videos.split) == ["test", "test", "train"]
    assert list(videos.frames) == [3, 4, 9]
    assert list(videos.grey) == [False, True, False]
    assert list(videos.height) == [12, 12, 32]
    assert list(videos.source) == ["test/2", "test/10", "train/door.mkv"]
    assert videos.fps.isna().tolist() == [True, True, False]
    assert videos.fps[2] == 25
    assert videos.weak_abnormal.isna().all()
    assert [str(videos[column].dtype) for column in ("frames", "fps", "grey")] == ["int32", "float32", "bool"]
    labels = pd.read_parquet("data/labels.parquet")
    assert list(labels.columns) == ["label_set", "video", "frame", "abnormal"]
    assert set(labels.label_set) == {"own"}
    assert list(labels.video) == ["test/2"] * 3 + ["test/10"] * 4
    assert list(labels.abnormal) == [False] * 5 + [True] * 2
    assert list(Path("data/masks").iterdir()) == []
    store = FrameStore("data/frames/test/2.arrow")
    assert [bytes(store.encoded(i)) for i in range(3)] == [(own / f"test/2/{i}.jpg").read_bytes() for i in range(3)]


def test_a_video_file_is_decoded_without_loss(own):
    written = raw.video(own / "train/door.mkv", 9)
    frames.main()
    store = FrameStore("data/frames/train/door.arrow")
    assert (np.stack([store[index] for index in range(9)]) == written).all()


def test_without_labels_the_table_is_empty_and_typed(own):
    (own / "labels.csv").unlink()
    frames.main()
    labels = pd.read_parquet("data/labels.parquet")
    assert len(labels) == 0
    assert labels.dtypes.astype(str).tolist() == ["str", "str", "int32", "bool"]


def test_twice_the_same_bytes(own):
    frames.main()
    kept = {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()}
    shutil.rmtree("data/frames")
    frames.main()
    assert kept == {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()}


def test_all_bad_files_are_named_together(own, capsys):
    whole = (own / "test/2/1.jpg").read_bytes()
    (own / "test/2/1.jpg").write_bytes(whole[: len(whole) - 40])
    (own / "test/2/2.jpg").write_bytes(b"text")
    raw.image(own / "test/10/001.png", shape=(12, 17))
    video = (own / "train/door.mkv").read_bytes()
    (own / "train/door.mkv").write_bytes(video[: len(video) // 2])
    (own / "train/empty.mp4").write_bytes(b"")
    with pytest.raises(SystemExit) as caught:
        frames.main()
    message = str(caught.value)
    assert "5 problem(s)" in message
    for expected in ("test/2/1.jpg: ", "test/2/2.jpg: not an image", "test/10/001.png: 17x12 pixels, the video's first",
                     "train/door.mkv: ", "train/empty.mp4: "):  # fmt: skip
        assert expected in message
    assert not Path("data/videos.parquet").exists()
    assert not Path("data/frames").exists()


def test_only_twenty_bad_files_are_listed(own):
    for index in range(30):
        (own / f"test/10/{index:03d}.png").write_bytes(b"text")
    with pytest.raises(SystemExit) as caught:
        frames.main()
    assert str(caught.value).count("not an image") == 20
    assert "30 problem(s)" in str(caught.value)
    assert "and 10 more" in str(caught.value)


@pytest.mark.parametrize(("suffix", "part"), [("avi", 0.4), ("avi", 0.99), ("mkv", 0.4), ("mkv", 0.9)])
def test_a_truncated_video_is_found(tmp_path, suffix, part):
    path = tmp_path / f"a.{suffix}"
    raw.video(path, 50)
    assert len(list(frames.decoded(path))) == 50
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises((ImageError, FFmpegError)):
        list(frames.decoded(path))


def test_a_turned_video_is_upright(tmp_path):
    path = tmp_path / "a.mp4"
    raw.video(path, 3, "mpeg4", "yuv420p")
    identity, turned = (np.array(m, ">i4").tobytes() for m in (
        [65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30], [0, 65536, 0, -65536, 0, 0, 32 * 65536, 0, 1 << 30],
    ))  # fmt: skip
    content = path.read_bytes()
    track = content.index(identity, content.index(b"tkhd"))
    path.write_bytes(content[:track] + turned + content[track + len(turned) :])
    found = [cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR) for image in frames.decoded(path)]
    capture = cv2.VideoCapture(str(path))
    expected = capture.read()[1]
    assert found[0].shape == expected.shape == (48, 32, 3)
    assert np.abs(found[0].astype(int) - expected).mean() < 3


def test_finished_videos_are_kept_after_a_kill_unless_they_changed(own, monkeypatch):
    (own / "test/10/003.png").write_bytes(b"text")
    with pytest.raises(SystemExit):
        frames.main()
    raw.image(own / "test/10/003.png")
    raw.video(own / "train/door.mkv", 8)  # another one than before
    written = []
    original = frames.write_store
    monkeypatch.setattr(
        frames, "write_store", lambda *a, source, **k: written.append(source) or original(*a, source=source, **k)
    )
    frames.main()
    assert sorted(written) == ["test/10", "train/door.mkv"]
    assert list(pd.read_parquet("data/videos.parquet").frames) == [3, 4, 8]


def test_an_added_video_is_read_alone(own, monkeypatch):
    frames.main()
    raw.images(own / "test/3", 2)
    written = []
    original = frames.write_store
    monkeypatch.setattr(
        frames, "write_store", lambda *a, source, **k: written.append(source) or original(*a, source=source, **k)
    )
    frames.main()
    assert written == ["test/3"]
    assert list(pd.read_parquet("data/videos.parquet").video) == ["test/2", "test/3", "test/10", "train/door"]
    assert len(FrameStore("data/frames/test/2.arrow")) == 3


def test_wrong_labels_stop_before_the_frames_are_read(own, monkeypatch):
    (own / "labels.csv").write_text("video,start,end\n10,2,4\n")
    monkeypatch.setattr(frames, "write_frames", None)
    with pytest.raises(SystemExit, match="frames 2 to 4 of test/10"):
        frames.main()


def test_masks_are_packed_and_compared_with_the_frames(place):
    root = place("ped2", partial=True)
    raw.images(root / "training/frames/01", 2)
    raw.images(root / "testing/frames/01", 3)
    raw.masks(root / "testing/masks/01", [0, 1, 0])
    frames.main()
    with np.load("data/masks/test/01.npz") as file:
        assert file["shape"].tolist() == [3, 12, 16]
        assert file["mask"].shape == (3, 12, 2)
        mask = np.unpackbits(file["mask"], axis=-1, count=16).astype(bool)
    assert np.argwhere(mask).tolist() == [[1, 3, 5]]
    for path in (root / "testing/masks/01").iterdir():
        raw.image(path, 0, shape=(12, 15))
    raw.image(root / "testing/masks/01/001.png", 1, shape=(12, 15))
    with pytest.raises(SystemExit, match=r"masks of test/01 are \(3, 12, 15\)"):
        frames.main()


def test_a_full_disk_is_foreseen(own, monkeypatch):
    monkeypatch.setattr(videos.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(SystemExit, match="frames: needs about"):
        frames.main()


def test_the_first_stage_looks_and_writes_the_card(own, place, capsys):
    dataset.main()
    card = json.loads(Path("data/dataset.json").read_text())
    assert (card["name"], card["layout"], card["partial"]) == ("own", "folder", False)
    assert card["title"] == "own"
    place("demo")
    dataset.main()
    card = json.loads(Path("data/dataset.json").read_text())
    assert card["layout"] == "demo"
    assert card["title"] != "demo"
    place("ped2")
    with pytest.raises(SystemExit, match=r"data/raw/ped2 does not exist[\s\S]*svcl.ucsd.edu"):
        dataset.main()
    dataset.describe("avenue")
    assert "testing_label_mask" in capsys.readouterr().out


def test_a_part_of_a_benchmark_needs_consent(place):
    root = place("ped2")
    raw.images(root / "training/frames/01", 2)
    raw.images(root / "testing/frames/01", 3)
    with pytest.raises(SystemExit, match=r"found 1 train videos, expected 16; set `frames.partial: true`"):
        dataset.main()
    place("ped2", partial=True)
    dataset.main()


def test_space_for_videos_is_estimated(tmp_path):
    raw.video(tmp_path / "a.avi", 50)
    assert frames.estimated_size(Video("train/a", "train", tmp_path / "a.avi")) == int(50 * 48 * 32 * 1.3)
    (tmp_path / "b.avi").write_bytes(b"x")
    assert frames.estimated_size(Video("train/b", "train", tmp_path / "b.avi")) == 0


def test_a_data_set_of_features_alone(place):
    root = place("shanghaitech")
    raw.shanghaitech_features(root)
    dataset.main()
    frames.main()
    table = pd.read_parquet("data/videos.parquet").set_index("video")
    assert len(table) == 437
    assert set(table.split) == {""}
    assert table.groupby("weak_split").frames.sum().to_dict() == {"test": 142912, "train": 238 * 32}
    assert table.weak_abnormal.sum() == 63 + 44
    assert (table[["height", "width"]] == 0).to_numpy().all()
    assert table.fps.isna().all()
    assert table.source["test/02_0001"] == "features/test/02_0001_i3d.npy"
    assert table.hash["test/02_0001"] == file_hash(root / "features/test/02_0001_i3d.npy")
    labels = pd.read_parquet("data/labels.parquet")
    assert set(labels.label_set) == {"shanghaitech-s3r"}
    assert (len(labels), labels.abnormal.sum()) == (142912, 8028)
    lengths = labels.groupby("video").size()
    assert (lengths == table.frames[lengths.index]).all()
    assert list(Path("data/frames").rglob("*")) == list(Path("data/masks").rglob("*")) == []
    with pytest.raises(VigilError, match="features alone only weakly supervised methods work, `method: s3r`"):
        videos.one_class_videos()
    with pytest.raises(SystemExit, match=r"without frames to make others of: write `features.source: imported`"):
        features.main()
    set_params(Path(), features__source="imported", features__crops=1)
    features.main()
    assert np.load("data/features/test/02_0001_i3d.npy").shape == (45, 1, 2048)
    assert len(dictionary.normal_videos(videos.read_videos())) == 175


def test_part_of_a_data_set_of_features_alone(place):
    root = place("shanghaitech")
    raw.shanghaitech_features(root)
    (root / "features/test/02_001_i3d.npy").unlink()
    with pytest.raises(SystemExit, match="1 of 437 videos have no features, first train/02_001"):
        dataset.main()
    place("shanghaitech", partial=True)
    dataset.main()
    frames.main()
    assert len(pd.read_parquet("data/videos.parquet")) == 436
    assert set(pd.read_parquet("data/labels.parquet").label_set) == {"shanghaitech"}
    raw.features(root / "features/test", {"02_002": 0})
    with pytest.raises(SystemExit, match=r"1 feature file\(s\) cannot be used:\n.*02_002_i3d.npy"):
        frames.main()


def test_weak_test_videos_from_the_training_folder_are_labelled(place):
    root = place("shanghaitech", partial=True)
    raw.shanghaitech_features(root)  # which do not count beside videos
    (root / "shanghaitech_ground_truth.testing.json").unlink()
    raw.video(root / "training/videos/02_001.avi", 3)
    raw.video(root / "training/videos/01_001.avi", 4)
    raw.images(root / "testing/frames/02_0001", 5)
    raw.images(root / "testing/frames/01_0001", 6)
    for name, count in (("02_0001", 5), ("01_0001", 6)):
        (root / "testing/test_frame_mask").mkdir(exist_ok=True)
        np.save(root / f"testing/test_frame_mask/{name}.npy", np.arange(count) >= 3)
    frames.main()
    labels = pd.read_parquet("data/labels.parquet")
    assert labels.groupby("video").size().to_dict() == {"test/01_0001": 6, "test/02_0001": 5, "train/02_001": 3}
    assert labels.groupby("video").abnormal.sum().to_dict() == {"test/01_0001": 3, "test/02_0001": 2, "train/02_001": 0}
    assert set(labels.label_set) == {"shanghaitech"}


@pytest.mark.skipif(not (SHARED / "ped2").exists(), reason="the real Ped2 is not here")
def test_ped2(place):
    root = place("ped2")
    root.symlink_to(SHARED / "ped2")
    frames.main()
    videos, labels = pd.read_parquet("data/videos.parquet"), pd.read_parquet("data/labels.parquet")
    assert videos.groupby("split").frames.agg(["count", "sum"]).to_numpy().tolist() == [[12, 2010], [16, 2550]]
    assert (len(labels), labels.abnormal.sum()) == (2010, 1648)
    assert videos.grey.all()
    store = FrameStore("data/frames/test/12.arrow")
    path = root / "testing/frames/12/100.jpg"
    assert bytes(store.encoded(100)) == path.read_bytes()
    assert (store[100] == cv2.imread(str(path))).all()


@pytest.mark.skipif(not (SHARED / "avenue").exists(), reason="the part of Avenue is not here")
def test_avenue(place):
    place("avenue", partial=True).symlink_to(SHARED / "avenue")
    frames.main()
    videos, labels = pd.read_parquet("data/videos.parquet"), pd.read_parquet("data/labels.parquet")
    assert dict(zip(videos.video, videos.frames, strict=True)) == {"test/08": 36, "test/21": 76, "train/12": 145}
    counts = labels.groupby(["label_set", "video"]).abnormal.sum()
    assert counts["avenue-hasan2016"].tolist() == [10, 53]
    assert counts["avenue-official-masks"].tolist() == [36, 53]
