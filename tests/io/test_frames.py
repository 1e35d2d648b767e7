import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.io import frames as store_module
from stages.io.frames import FrameStore, ImageError, image_form, open_pixels, pixels, write_store


def encoded(array: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, array)[1].tobytes()


def noise(count: int, shape: tuple, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 64, 65, 130])
def test_bytes_come_back_as_they_were(tmp_path, count):
    images = [encoded(array, ".jpg") for array in noise(count, (9, 11, 3))]
    stored = write_store(tmp_path / "a/b.arrow", iter(images), fps=25.0, source="here")
    store = FrameStore(tmp_path / "a/b.arrow")
    assert (stored.frames, stored.height, stored.width, stored.grey) == (count, 9, 11, False)
    assert (len(store), store.height, store.width, store.fps, store.source) == (count, 9, 11, 25.0, "here")
    for index in {0, count // 2, count - 1}:
        assert bytes(store.encoded(index)) == images[index]
        assert (store[index] == cv2.imdecode(np.frombuffer(images[index], np.uint8), cv2.IMREAD_COLOR)).all()
    for index in (-1, count):
        with pytest.raises(IndexError):
            store.encoded(index)


def test_reading_copies_nothing(tmp_path):
    write_store(tmp_path / "a.arrow", [encoded(noise(1, (200, 200))[0])] * 3, fps=np.nan, source="")
    store = FrameStore(tmp_path / "a.arrow")
    before = pa.total_allocated_bytes()
    views = [store.encoded(index) for index in range(3)]
    assert pa.total_allocated_bytes() == before
    assert all(view.readonly for view in views)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5))
@settings(max_examples=20)
def test_grey_only_where_all_are(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("grey")
    images = [encoded(np.full((4, 5) if value > 20 else (4, 5, 3), value, np.uint8)) for value in values]
    stored = write_store(folder / "a.arrow", images, fps=np.nan, source="")
    store = FrameStore(folder / "a.arrow")
    assert stored.grey == store.grey == (min(values) > 20)
    assert [int(store[i][0, 0, 0]) for i in range(len(store))] == values
    assert all(store[i].shape == (4, 5, 3) for i in range(len(store)))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif"])
def test_a_grey_frame_has_three_equal_channels_or_one(tmp_path, suffix):
    array = noise(1, (16, 24))[0]
    image = encoded(array, suffix)
    write_store(tmp_path / "a.arrow", [image], fps=np.nan, source="")
    store = FrameStore(tmp_path / "a.arrow")
    (tmp_path / f"a{suffix}").write_bytes(image)
    assert store.grey
    assert (store[0] == cv2.imread(str(tmp_path / f"a{suffix}"))).all()
    assert (store.read(0, grey=True)[..., None] == store[0]).all()


def test_files_are_the_same_every_time(tmp_path):
    images = [encoded(array) for array in noise(70, (8, 8, 3))]
    one = write_store(tmp_path / "1.arrow", images, fps=np.nan, source="s")
    two = write_store(tmp_path / "2.arrow", images, fps=np.nan, source="s")
    assert one == two
    assert (tmp_path / "1.arrow").read_bytes() == (tmp_path / "2.arrow").read_bytes()
    assert write_store(tmp_path / "3.arrow", images[::-1], fps=np.nan, source="s").hash != one.hash


def test_writing_fails_as_a_whole(tmp_path):
    small, large = encoded(noise(1, (8, 8))[0]), encoded(noise(1, (8, 9))[0])
    for images, message in (
        ([], "no frames"),
        ([small, large], "frame 1 is 9x8 pixels, the first is 8x8"),
        ([small, b"text"], "not an image"),
    ):
        with pytest.raises(ImageError, match=message):
            write_store(tmp_path / "a.arrow", images, fps=np.nan, source="")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", [0.3, 0.9, 0.99])
@pytest.mark.parametrize(
    "form", [("jpeg", {}), ("jpeg", {"progressive": True}), ("png", {}), ("bmp", {}), ("tiff", {})]
)
def test_a_truncated_image_is_found(part, form):
    buffer = io.BytesIO()
    Image.fromarray(noise(1, (64, 96, 3))[0]).save(buffer, form[0], **form[1])
    whole = buffer.getvalue()
    assert image_form(whole, whole=True) == (64, 96, False)
    with pytest.raises(ImageError):
        image_form(whole[: int(len(whole) * part)], whole=True)


def test_an_oriented_photograph_has_the_size_it_is_decoded_to():
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(1, (10, 20, 3))[0]).save(buffer, "jpeg", exif=exif)
    decoded = cv2.imdecode(np.frombuffer(buffer.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    assert image_form(buffer.getvalue())[:2] == decoded.shape[:2] == (20, 10)


def test_a_store_travels_to_threads_and_processes(tmp_path):
    images = [encoded(array) for array in noise(20, (8, 8, 3))]
    write_store(tmp_path / "a.arrow", images, fps=np.nan, source="")
    store = FrameStore(tmp_path / "a.arrow")
    again = pickle.loads(pickle.dumps(store))
    assert (again[7] == store[7]).all()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda index: bytes(store.encoded(index)), range(20))) == images


@pytest.mark.parametrize("shape", [(12, 20), (12, 20, 3)])
def test_pixels_are_the_frames_resized_in_eight_bits(tmp_path, shape):
    images = noise(5, shape)
    stored = write_store(tmp_path / "a.arrow", map(encoded, images), fps=np.nan, source="")
    found = pixels(tmp_path / "a.arrow", 8, stored.hash, tmp_path / "scratch")
    expected = np.stack([cv2.resize(image, (8, 8)) for image in images]).reshape(found.shape)
    assert found.shape == (5, 8, 8, 1 if len(shape) == 2 else 3)
    assert (found == expected).all()
    assert not found.flags.writeable


def test_pixels_are_made_once(tmp_path, monkeypatch):
    rows = []
    for name, seed in (("test/1", 1), ("test/2", 2), ("train/1", 1)):
        images = map(encoded, noise(3, (8, 8, 3), seed))
        stored = write_store(tmp_path / f"frames/{name}.arrow", images, fps=np.nan, source="")
        rows.append({"video": name, "hash": stored.hash})
    videos = pd.DataFrame(rows)
    first = open_pixels(videos, tmp_path / "frames", 4, 2, tmp_path / "scratch")
    assert list(first) == ["test/1", "test/2", "train/1"]
    assert (first["test/1"] == first["train/1"]).all()
    assert len(list((tmp_path / "scratch/pixels/4").iterdir())) == 2
    monkeypatch.setattr(store_module, "FrameStore", None)  # nothing is decoded any more
    again = open_pixels(videos, tmp_path / "frames", 4, 1, tmp_path / "scratch")
    assert all((again[name] == first[name]).all() for name in first)
