"""The dictionary: S3R's own construction to the number, atoms that are features, the authors' files."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from stages import dictionary
from stages.command import VigilError
from stages.dictionary import learn_atoms, learn_codes, normal_videos, online_dictionary, read_codes, slots
from stages.io.features import segments
from tests.conftest import set_params
from tests.golden import _tools, golden, needs_golden

RECIPE = SimpleNamespace(nonzeros=2, seed=42, rounds=5)


def close(found, file, name, atol):
    """Golden numbers of these arrays are stored whole or at some indices, whatever their size."""
    stored, found = file.values[name], np.ascontiguousarray(found).ravel()
    chosen = found if len(stored) == len(found) else found[_tools().sample_index(len(found))]
    return np.allclose(chosen, stored, rtol=0, atol=atol)


@needs_golden
@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        ("features", ("saved_dictionary", "components")),
        ("features_2048", ("saved_dictionary_2048_niter100", "components_2048_niter100")),
    ],
)
def test_codes_are_those_of_the_original(inputs, names):
    file = golden("s3r-dictionary")
    videos = file.input(inputs).astype(np.float64)
    size = slots(len(videos), 90.0, 2)
    assert size == {"features": file.meta["n_slots"], "features_2048": file.meta["n_slots_2048"]}[inputs]
    found, said = learn_codes(videos[:, None], size, RECIPE)
    patterns = online_dictionary(np.ascontiguousarray(videos.T), size, 42)
    assert close(patterns, file, names[1], 1e-6)
    assert close(found, file, names[0], 1e-6)
    assert (np.count_nonzero(found, axis=0) == 2).all()
    assert said["never_used"] == []
    error = np.linalg.norm(videos.T - found.T @ patterns)
    assert np.isclose(said["relative_error"], error / np.linalg.norm(videos))
    if inputs == "features":
        assert np.isclose(error, file.values["reconstruction_error"][0], atol=1e-6)


def test_numbers_of_slots_are_the_published_ones():
    assert slots(175, 90.0, 2) == 158  # 157.5
    assert slots(800, 50.0, 2) == 400
    assert slots(5, 90.0, 2) == 4  # 4.5, to the even number
    assert slots(6, 90.0, 2) == 5
    with pytest.raises(VigilError, match="50 percent of 2 normal training videos are 1 slots, fewer than the 2"):
        slots(2, 50.0, 2)


def test_normal_videos_are_those_of_the_weak_split_or_all():
    table = pd.DataFrame(
        {
            "video": ["a", "b", "c", "d", "e"],
            "split": ["train", "train", "test", "", "train"],
            "weak_split": ["train", "", "test", "train", "train"],
            "weak_abnormal": pd.array([False, None, False, True, False], "boolean"),
        }
    )
    assert normal_videos(table) == ["a", "e"]
    assert normal_videos(table.assign(weak_split="")) == ["a", "b", "e"]
    with pytest.raises(VigilError, match="no normal training videos"):
        normal_videos(table.query("video == 'd'"))


def test_atoms_are_features_that_explain_the_samples():
    rng = np.random.default_rng(0)
    atoms = np.abs(rng.normal(size=(6, 60)))
    parts = np.zeros((6, 32, 6))
    for row in parts.reshape(-1, 6):
        row[rng.choice(6, 2, replace=False)] = rng.uniform(1, 3, 2)
    features = parts @ atoms
    found, said = learn_atoms(features, 6, SimpleNamespace(nonzeros=2, seed=0, rounds=30))
    samples = features.reshape(-1, 60)
    assert np.allclose(np.linalg.norm(found, axis=1), np.linalg.norm(samples, axis=1).mean())
    assert (found.sum(1) > 0).all()
    mean = samples.mean(0)
    plain = np.linalg.norm(samples - np.outer(samples @ mean / (mean @ mean), mean)) / np.linalg.norm(samples)
    assert said["relative_error"] < 0.5 * plain  # of one atom, the mean
    assert said["never_used"] == []


def test_atoms_need_samples():
    with pytest.raises(VigilError, match="5 atoms, but only 0 segments"):
        learn_atoms(np.zeros((2, 32, 8)), 5, RECIPE)


@pytest.fixture
def stage(prepared):
    """Six normal and two abnormal training videos of a weak split, with features."""
    videos = pd.read_parquet("data/videos.parquet").iloc[[0]]
    names = [f"train/{i}" for i in range(6)] + ["weak/0", "weak/1"]
    pd.concat(
        [
            videos.assign(video=name, weak_split="train", weak_abnormal=name.startswith("weak"), split="train")
            for name in names
        ]
    ).to_parquet("data/videos.parquet")
    rng = np.random.default_rng(0)
    for i, name in enumerate(names):
        path = Path(f"data/features/{name}_i3d.npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.abs(rng.normal(size=(2 + i, 10, 2048))).astype(np.float32))
    Path("data/features.json").write_text(json.dumps({"network": "i3d", "weights": "random, seed 0", "videos": {}}))
    return prepared


@pytest.mark.parametrize("kind", ["codes", "atoms"])
def test_stage_learns_from_normal_videos_only(stage, kind):
    set_params(stage, dictionary__kind=kind, dictionary__rounds=2)
    dictionary.main()
    found = np.load("data/dictionary.npy")
    said = json.loads(Path("data/dictionary.json").read_text())
    assert (found.shape, found.dtype) == ((5, 2048), np.float64)
    assert (said["kind"], said["slots"], said["videos"], said["nonzeros"]) == (kind, 5, 6, 2)
    assert (said["percentile"], said["seed"]) == (90, 42)
    assert set(said["libraries"]) == {"numpy", "scikit-learn"}
    assert said["features"] == {"network": "i3d", "weights": "random, seed 0"}
    assert 0 < said["relative_error"] < 1
    features = np.stack(
        [segments(np.load(f"data/features/train/{i}_i3d.npy"), 32).astype(float).mean(0) for i in range(6)]
    )
    learn = learn_codes if kind == "codes" else learn_atoms
    assert np.allclose(found, learn(features, 5, SimpleNamespace(nonzeros=2, seed=42, rounds=2))[0], atol=1e-5)
    set_params(stage, dictionary__seed=1)
    dictionary.main()
    assert not np.allclose(np.load("data/dictionary.npy"), found, atol=1e-3)


def test_features_without_a_manifest_are_refused(stage):
    Path("data/features.json").unlink()
    with pytest.raises(SystemExit, match=r"data/features\.json not found: run `dvc repro stages/dvc\.yaml:features`"):
        dictionary.main()


def test_a_missing_feature_file_is_named(stage):
    Path("data/features/train/3_i3d.npy").unlink()
    with pytest.raises(SystemExit, match=r"data/features/train/3_i3d.npy not found"):
        dictionary.main()


def test_the_authors_file_is_taken(stage):
    set_params(stage, dictionary__kind="imported")
    with pytest.raises(SystemExit, match=r"data/raw/demo/dictionary.npy not found"):
        dictionary.main()
    codes = np.zeros((158, 2048))
    codes[np.arange(2048) % 157, np.arange(2048)] = 0.5
    codes[157, :1000] = -1
    Path("data/raw/demo").mkdir(parents=True)
    np.save("data/raw/demo/dictionary.npy", codes)
    dictionary.main()
    assert np.array_equal(np.load("data/dictionary.npy"), codes)
    said = json.loads(Path("data/dictionary.json").read_text())
    assert (said["kind"], said["slots"], said["never_used"]) == ("imported", 158, [])


DENSE = np.ones((3, 2048))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (DENSE.T, r"found shape \(2048, 3\), expected \(slots, 2048\): it is transposed"),
        (np.ones((3, 100)), r"found shape \(3, 100\), expected \(slots, 2048\)$"),
        (DENSE, "up to 3 non-zeros in a channel, expected 2"),
        (np.zeros((3, 2048)), "up to 0 non-zeros"),
        (np.where(np.arange(3)[:, None] == 1, np.inf, 0 * DENSE), "NaN or infinite"),
        (np.array([None, {}], object), "no array of numbers"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, array, message):
    np.save(tmp_path / "dictionary.npy", array)
    with pytest.raises(VigilError, match=message):
        read_codes(tmp_path / "dictionary.npy", 2)
