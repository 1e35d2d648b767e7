"""The stage `evaluate` on a small made-up scores table of MNAD: what it writes, and what it refuses."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

from stages import evaluate
from stages.io.maps import SIDE, packed
from tests.conftest import set_params

LENGTHS = {"test/2": 12, "test/10": 9, "test/11": 8}
"""Videos in natural order; the last is normal throughout."""
CERTAIN = {"low": 1.0, "high": 1.0}


def rows(video: str, length: int, psnr: float) -> pd.DataFrame:
    """Frames 4 to the last. On odd frames the network errs, by 10 dB and a distance of 2."""
    frame = np.arange(4, length, dtype=np.int32)
    odd = frame % 2
    table = pd.DataFrame({"video": video, "split": video.split("/")[0], "frame": frame})
    for suffix in ("_reset", "_carried"):
        table[f"psnr{suffix}"] = psnr - 10.0 * odd
        table[f"feature_distance{suffix}"] = 1.0 + 2.0 * odd
    return table


def labels(name: str, shift: int = 0) -> pd.DataFrame:
    """Odd frames are abnormal from frame 3 on, but for test/11."""
    parts = [
        pd.DataFrame({"label_set": name, "video": video, "frame": np.arange(length, dtype=np.int32)})
        for video, length in LENGTHS.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    table["abnormal"] = ((table["frame"] + shift) % 2 == 1) & (table["frame"] > 2) & (table["video"] != "test/11")
    return table


@pytest.fixture
def made(tmp_path, monkeypatch) -> Path:
    """A folder with params.yaml and data/ as `score` leaves them. Even frames score alike in all videos."""
    shutil.copy("params.yaml", tmp_path)
    set_params(tmp_path, method="mnad", dataset="demo", seed=3, protocol="honest")
    set_params(tmp_path, evaluate__smooth=0.0, evaluate__quantile=0.5, mnad__fuse__alpha=0.5)
    monkeypatch.chdir(tmp_path)
    Path("data/scores").mkdir(parents=True)
    training = rows("train/1", 8, 30.0)
    training[["psnr_carried", "feature_distance_carried"]] = np.nan
    calm = rows("test/11", 8, 30.0).assign(psnr_reset=30.0, psnr_carried=30.0, feature_distance_reset=1.0)
    calm["feature_distance_carried"] = 1.0
    scores = pd.concat([training, rows("test/2", 12, 30.0), rows("test/10", 9, 30.0), calm], ignore_index=True)
    scores.to_parquet("data/scores/mnad.parquet")
    cost = {
        "method": "mnad",
        "seed": 3,
        "device": "CPU",
        "parameters": 7,
        "gmac": 0.123456789,
        "frames_per_second": 2.0,
    }
    Path("data/scores/mnad.json").write_text(json.dumps(cost))
    videos = pd.DataFrame({"video": ["train/1", *LENGTHS], "split": ["train", "test", "test", "test"]})
    videos["frames"] = np.array([8, *LENGTHS.values()], np.int32)
    videos["fps"] = np.float32(2.0)
    videos["height"], videos["width"] = 32, 64
    videos["hash"] = videos["video"]
    videos.to_parquet("data/videos.parquet")
    labels("made").to_parquet("data/labels.parquet")
    Path("data/dataset.json").write_text(json.dumps({"name": "demo", "title": "Made plaza"}))
    return tmp_path


def edit(name: str, change) -> None:
    """Rewrite data/<name>.parquet as `change` returns it."""
    path = f"data/{name}.parquet"
    change(pd.read_parquet(path)).to_parquet(path)


def metrics() -> dict:
    return json.loads(Path("metrics/metrics.json").read_text())


def contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path("metrics").rglob("*")) if path.is_file()}


def test_metrics_by_hand(made):
    evaluate.main()
    found = metrics()
    assert list(found) == [
        "method", "dataset", "seed", "data", "honest", "paper", "ladder", "alarms", "labels", "cost", "note",
    ]  # fmt: skip
    assert (found["method"], found["dataset"], found["seed"]) == ("mnad", "demo", 3)
    assert found["note"] == "made data, not a benchmark"
    assert found["cost"] == {"device": "CPU", "parameters": 7, "gmac": 0.123457, "frames_per_second": 2.0}

    # paper: the scored frames 4.. only, of which odd means abnormal but in test/11, whose constant scores are 0, so
    # that all its frames lie with the even ones below the abnormal ones, whatever videos are drawn
    assert found["paper"] == {
        "auc_micro": 1.0, "auc_micro_interval": CERTAIN, "auc_macro": 1.0, "macro_videos": 2, "macro_skipped": 1,
        "macro_rules": {"skip": 1.0, "pad": 1.0, "one": 1.0, "zero": pytest.approx(2 / 3, abs=1e-6)},
        "ap": 1.0, "ap_interval": CERTAIN, "eer": 0.0, "frames": 17, "abnormal": 6,
    }  # fmt: skip

    # honest: all frames, 0 to 3 like 4: frame 3 is abnormal in two videos, yet scored as normal. So 6 abnormal frames
    # lie above all 21 normal ones and 2 lie level with them: AUC = (6 + 2 / 2) / 8; in test/2 of 5 abnormal frames 1
    # is level, in test/10 of 3
    honest = found["honest"]
    assert (honest["frames"], honest["abnormal"]) == (29, 8)
    assert honest["auc_micro"] == (6 + 1) / 8
    assert honest["auc_macro"] == pytest.approx(((4 + 0.5) / 5 + (2 + 0.5) / 3) / 2, abs=1e-6)
    # 6 of 8 found without false alarm, the rest all at once: fpr = 1 - tpr where fpr = (1 - fpr) / 4, at 1 / 5
    assert honest["eer"] == 0.2
    assert honest["ap"] == pytest.approx(6 / 8 + 2 / 8 * 8 / 29, abs=1e-6)

    # the figures of one video alone lie at the ends of what may be drawn
    assert honest["auc_micro_interval"]["low"] == pytest.approx((2 + 0.5) / 3, abs=1e-6)
    assert honest["auc_micro"] < honest["auc_micro_interval"]["high"]
    assert honest["ap_interval"]["low"] < honest["ap"] < honest["ap_interval"]["high"]

    # without frame 3 and its kind the rest is told apart; the other rungs change nothing more
    assert found["ladder"] == {
        "honest": 7 / 8, "scored frames alone": 1.0, "min-max of each video": 1.0, "memory carried over": 1.0,
    }  # fmt: skip

    lines = "".join(f"{row.video},{row.frame},{int(row.abnormal)}\n" for row in labels("made").itertuples())
    expected = hashlib.sha256(lines.encode()).hexdigest()[:12]
    assert found["labels"] == {"set": "made", "hash": expected, "frames": 29, "abnormal": 8}


def test_alarms_by_hand(made):
    evaluate.main()
    # the training video's 8 frames score -1 but for frames 5 and 7, which score 1: so does every frame that is found
    assert metrics()["alarms"] == {
        "quantile": 0.5, "threshold": -1.0, "f1": pytest.approx(2 * 6 / (6 + 8), abs=1e-6), "precision": 1.0,
        "recall": 6 / 8, "alarms": 6, "false_alarms": 0, "false_alarms_per_hour": 0.0,
    }  # fmt: skip
    edit("labels", lambda table: table.assign(abnormal=table["abnormal"] & (table["video"] != "test/2")))
    evaluate.main()
    # of the 6 alarms, one frame each, the 4 in test/2 are now in vain: in 29 frames at 2 a second
    found = metrics()["alarms"]
    assert (found["precision"], found["alarms"], found["false_alarms"]) == (pytest.approx(2 / 6, abs=1e-6), 6, 4)
    assert found["false_alarms_per_hour"] == pytest.approx(4 / 14.5 * 3600, abs=1e-6)


def test_without_frames_a_second_the_metrics_say_why_a_figure_is_missing(made):
    edit("videos", lambda table: table.assign(fps=np.nan))
    evaluate.main()
    found = metrics()["alarms"]
    assert found["false_alarms_per_hour"] is None
    assert found["reason"] == "frames a second unknown: test/2 and 2 more"


def test_a_method_without_training_scores_has_no_threshold(made):
    set_params(made, method="s3r")
    parts = [
        pd.DataFrame({"video": video, "split": "test", "frame": 0, "score": [0.5], "checkpoint": checkpoint})
        for checkpoint in ("chosen", "25", "last")
        for video in LENGTHS
    ]
    pd.concat(parts, ignore_index=True).to_parquet("data/scores/s3r.parquet")
    Path("data/scores/s3r.json").write_text(Path("data/scores/mnad.json").read_text())
    edit("videos", lambda table: table.assign(weak_split=table["split"]))
    evaluate.main()
    found = metrics()["alarms"]
    assert found == {
        "threshold": None, "reason": "it takes scores of normal training frames, and there are none",
    }  # fmt: skip


def test_regions_by_hand(made):
    """STATE's objects in two test videos, one of them with pixel truth: a square of 10 pixels in its frames 4 to 7."""
    set_params(made, method="state", state__fuse__raw=1.0, state__fuse__flow=1.0)
    shown = [  # video, frame, x1, raw
        ("test/2", 4, 10.0, 5.0),  # found
        ("test/2", 5, 30.0, 4.0),  # beside it
        ("test/2", 6, 10.0, 3.0),  # found
        ("test/10", 0, 30.0, 9.0),  # nobody knows
        ("train/1", 0, 10.0, 0.0),
        ("train/1", 1, 10.0, 1.0),
    ]
    objects = pd.DataFrame(shown, columns=["video", "frame", "x1", "raw"]).astype({"frame": np.int32})
    objects = objects.assign(split=objects["video"].str.split("/").str[0], y1=10.0, x2=objects["x1"] + 10, y2=20.0)
    objects.assign(flow=objects["raw"]).to_parquet("data/scores/state.parquet")
    Path("data/scores/state.json").write_text(Path("data/scores/mnad.json").read_text())
    evaluate.main()
    assert "regions" not in metrics()

    mask = np.zeros((12, 30, 50), bool)
    mask[4:8, 10:20, 10:20] = True
    Path("data/masks/test").mkdir(parents=True)
    np.savez_compressed("data/masks/test/2.npz", mask=np.packbits(mask, axis=-1), shape=np.array(mask.shape))
    evaluate.main()
    # a quarter of the regions before the false positive, in one of 12 frames; then one half; the track at once
    assert metrics()["regions"] == {
        "rbdc": pytest.approx(1 / 12 * 1 / 4 + 11 / 12 * 1 / 2, abs=1e-6), "tbdc": 1.0, "of": "boxes",
        "videos": 1, "frames": 12, "regions": 4, "tracks": 1,
    }  # fmt: skip


def test_error_maps_are_detections_too(made):
    """The cell in row 5, column 10 glows in frames 4 to 7 of test/2: pixels 5 to 6 down and 20 to 22 across."""

    def with_maps(table: pd.DataFrame) -> pd.DataFrame:
        maps = np.zeros((len(table), SIDE, SIDE))
        maps[(table["video"] == "test/2") & (table["frame"] < 8), 5, 10] = 1
        return table.assign(map=packed(maps))

    edit("scores/mnad", with_maps)
    mask = np.zeros((12, 32, 64), bool)
    mask[4:8, 5:6, 20:22] = True
    Path("data/masks/test").mkdir(parents=True)
    np.savez_compressed("data/masks/test/2.npz", mask=np.packbits(mask, axis=-1), shape=np.array(mask.shape))
    evaluate.main()
    found = metrics()["regions"]
    assert (found["rbdc"], found["tbdc"], found["of"]) == (1.0, 1.0, "error maps")
    regions = pd.read_parquet("metrics/tables/regions.parquet")
    assert regions[["video", "frame", "x1", "y1", "x2", "y2", "score"]].iloc[0].tolist() == [
        "test/2",
        5,
        20,
        5,
        22,
        6,
        1,
    ]
    shown = pd.read_parquet("metrics/tables/shown.parquet")
    scored = shown["frame"] > 3
    assert {len(one) for one in shown.loc[scored, "map"]} == {2 * SIDE * SIDE}
    assert shown.loc[~scored, "map"].isna().all()


def test_tables_by_hand(made):
    evaluate.main()
    frames = pd.read_parquet("metrics/tables/frames.parquet")
    assert list(frames) == ["video", "frame", "honest", "paper", "alarm", "abnormal"]
    assert frames.groupby("video", sort=False).size().to_dict() == LENGTHS
    np.testing.assert_allclose(frames["honest"][:12], [-1, -1, -1, -1, -1, 1, -1, 1, -1, 1, -1, 1])
    np.testing.assert_allclose(frames["paper"][:6], [np.nan] * 4 + [-0.5, 0.5])
    assert list(frames["alarm"]) == list(frames["honest"] > 0)
    assert list(frames["abnormal"]) == list(labels("made")["abnormal"])
    shown = pd.read_parquet("metrics/tables/shown.parquet")
    misses = shown.loc[shown["kind"] == "miss"]
    assert misses[["video", "frame", "start", "stop"]].to_numpy().tolist() == [
        ["test/2", 3, 3, 4],
        ["test/10", 3, 3, 4],
    ]
    videos = pd.read_csv("metrics/tables/videos.csv").set_index(["protocol", "video"])
    assert videos.loc[("honest", "test/2"), "auc"] == (4 + 0.5) / 5
    assert np.isnan(videos.loc[("paper", "test/11"), "auc"])
    assert (metrics()["data"]["videos"], metrics()["data"]["frames"]) == (3, 29)


def test_recipe_is_resolved(made):
    evaluate.main()
    recipe = YAML(typ="safe", pure=True).load(Path("metrics/recipe.yaml").read_text())
    assert (recipe["dataset"], recipe["seed"]) == ("demo", 3)
    assert recipe["mnad"]["fuse"] == {"alpha": 0.5}
    assert "published" not in Path("metrics/recipe.yaml").read_text()


def test_plots_hold_the_curves(made):
    evaluate.main()
    scores = pd.read_csv("metrics/plots/scores.csv")
    assert list(scores) == ["video", "frame", "index", "score", "abnormal"]
    assert list(scores["video"].unique()) == list(LENGTHS)
    assert list(scores["index"]) == list(range(29))
    pd.testing.assert_series_equal(scores["abnormal"] == 1, labels("made")["abnormal"])
    # training: psnr 25 +- 5, distance 2 +- 1, so an even frame has -0.5 * 1 + 0.5 * -1, an odd one the opposite
    np.testing.assert_allclose(scores["score"][:12], [-1, -1, -1, -1, -1, 1, -1, 1, -1, 1, -1, 1])

    paper = pd.read_csv("metrics/plots/roc_paper.csv")
    assert list(paper) == ["label_set", "fpr", "tpr"]
    assert (0, 1) in set(zip(paper["fpr"], paper["tpr"], strict=True))
    for name in ("roc", "scores"):
        with Image.open(f"metrics/plots/{name}.png") as picture:
            assert picture.width > 400


def test_the_chosen_protocol_is_drawn(made):
    set_params(made, protocol="paper")
    evaluate.main()
    scores = pd.read_csv("metrics/plots/scores.csv")
    assert len(scores) == 17
    assert set(scores["score"]) == {-0.5, 0.5, 0}


def test_a_second_run_writes_the_same_bytes(made):
    evaluate.main()
    before = contents()
    evaluate.main()
    assert contents() == before


def test_several_label_sets_are_never_mixed(made):
    both = pd.concat([labels("one"), labels("other", shift=1)], ignore_index=True)
    both.to_parquet("data/labels.parquet")
    evaluate.main()
    found = metrics()
    assert list(found["honest"]) == list(found["paper"]) == list(found["labels"]) == ["one", "other"]
    assert found["paper"]["one"]["auc_micro"] == 1
    assert found["paper"]["other"]["auc_micro"] < 0.5
    assert found["labels"]["one"]["hash"] != found["labels"]["other"]["hash"]
    scores = pd.read_csv("metrics/plots/scores.csv")
    assert list(scores)[-2:] == ["abnormal_one", "abnormal_other"]
    assert scores["abnormal_one"].sum() == 8
    assert set(pd.read_csv("metrics/plots/roc_honest.csv")["label_set"]) == {"one", "other"}


def test_without_labels_there_are_counts_and_score_curves(made):
    evaluate.main()
    edit("labels", lambda table: table.iloc[:0])
    set_params(made, dataset="mine")
    evaluate.main()
    found = metrics()
    assert found["honest"] == {"frames": 29}
    assert found["paper"] == {"frames": 17}
    assert "labels" not in found
    assert list(pd.read_parquet("metrics/tables/frames.parquet")) == ["video", "frame", "honest", "paper", "alarm"]
    assert found["alarms"] == {"quantile": 0.5, "threshold": -1.0, "alarms": 6}
    assert found["note"] == "no labels: score curves and counts, no AUC"
    assert {path.name for path in Path("metrics/plots").iterdir()} == {"scores.csv", "scores.png"}
    assert list(pd.read_csv("metrics/plots/scores.csv")) == ["video", "frame", "index", "score"]


def test_extractors_without_published_weights_are_said(made):
    set_params(made, method="state")
    found = pd.DataFrame({"video": [*LENGTHS, "train/1", "train/1"], "frame": 3, "raw": np.arange(5.0), "flow": 1.0})
    found = found.assign(split=found["video"].str.split("/").str[0], x1=1.0, y1=1.0, x2=2.0, y2=2.0)
    found.to_parquet("data/scores/state.parquet")
    cost = {"device": "CPU", "rests_on": {"flow.state.network": "flownet2", "boxes.source": "motion"}}
    Path("data/scores/state.json").write_text(json.dumps(cost))
    evaluate.main()
    assert metrics()["note"] == "made data, not a benchmark; without published weights (boxes: motion)"
    assert metrics()["cost"] == cost


def test_smoothing_and_partial_data_are_said(made):
    set_params(made, evaluate__smooth=2.0, dataset="ped2")
    Path("data/dataset.json").write_text(json.dumps({"partial": True}))
    evaluate.main()
    assert "videos of the data set may be missing" in metrics()["note"]
    assert "smoothed over past and future frames, sigma 2" in metrics()["note"]
    assert metrics()["paper"]["auc_micro"] < 1


def refused() -> str:
    with pytest.raises(SystemExit) as stop:
        evaluate.main()
    assert not Path("metrics").exists()
    return str(stop.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("labels", lambda t: t.drop(index=11), "video test/2: found 11 labels, expected 12"),
        ("labels", lambda t: t[t.video != "test/10"], "test video test/10: in the video table, not in label set made"),
        ("labels", lambda t: t.assign(abnormal=False), "label set made: all 29 judged frames are normal"),
        ("labels", lambda t: t.assign(abnormal=True), "label set made: all 29 judged frames are abnormal"),
        ("videos", lambda t: t.replace({"frames": 9}, 10), "video test/10: found 9 labels, expected 10"),
        ("videos", lambda t: t[t.split == "train"], "the data set has no test videos"),
        ("scores/mnad", lambda t: t[t.video != "test/2"], "test video test/2: in the video table, not in the scores"),
        ("scores/mnad", lambda t: t.drop(columns="psnr_reset"), "the scores have no component psnr_reset, only"),
        ("scores/mnad", lambda t: t[t.split == "test"], "the scores have no training frames"),
        (
            "scores/mnad",
            lambda t: t.replace({"psnr_reset": 20.0}, np.nan),
            "psnr_reset is nan at video train/1, frame 5",
        ),
        ("scores/mnad", lambda t: t.replace({"psnr_carried": 20.0}, np.inf), "psnr_carried is inf at video test/2"),
    ],
)
def test_refusals(made, name, change, message):
    edit(name, change)
    assert message in refused()


def test_labels_of_one_class_among_the_scored_frames_are_refused(made):
    edit("labels", lambda table: table.assign(abnormal=table["frame"] < 4))
    assert "label set made: all 17 judged frames are normal" in refused()


@pytest.mark.parametrize("name", ["scores/mnad.parquet", "scores/mnad.json", "labels.parquet", "dataset.json"])
def test_a_missing_input_is_named(made, name):
    Path("data", name).unlink()
    assert refused() == f"stages.evaluate: data/{name} not found: `dvc repro` makes it"
