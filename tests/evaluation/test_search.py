"""What is chosen on test labels: weights and checkpoint, by hand and by the authors' numbers."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from stages.evaluation.fusion import fuse_table
from stages.evaluation.search import aucs, settle
from stages.evaluation.tables import with_truth
from stages.recipes import Fusion, mama
from tests.golden import assert_golden, golden, needs_golden

LENGTHS = {"test/1": 6, "test/2": 5}
BUMPS = {"motion": 0.1, "label": 0.05, "prediction": 0.006, "destroyed": 0.012}  # of the abnormal in the golden numbers
FUSE = mama.Fuse(motion=1.0, label=1.0, prediction=1.0, destroyed=1.0)


def table(**columns) -> pd.DataFrame:
    frames = [frame for length in LENGTHS.values() for frame in range(length)]
    return pd.DataFrame(
        {"video": np.repeat(list(LENGTHS), list(LENGTHS.values())), "split": "test", "frame": frames} | columns
    )


TRUTH = table(abnormal=np.array([0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 1]) == 1)
RIGHT = TRUTH["abnormal"] + 0.01 * np.arange(11)
WRONG = -RIGHT


def test_aucs_are_those_of_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    scores, abnormal = rng.integers(0, 6, (7, 40)).astype(float), rng.random(40) < 0.3
    assert np.allclose(aucs(scores, abnormal), [roc_auc_score(abnormal, row) for row in scores])


@pytest.mark.parametrize("normalise", ["video_zscore", "none"])
def test_the_best_weights_are_found_and_nothing_else_is_touched(normalise):
    scores = table(good=RIGHT, bad=WRONG)
    tried = ({"good": 0.0, "bad": 1.0}, {"good": 2.0, "bad": 1.0}, {"good": 3.0, "bad": 1.0})
    fusion = Fusion(tried[0], normalise, "scored", rescale=True, tried=tried)
    found, curve = settle(scores, fusion, 0.0, LENGTHS, TRUTH)
    assert found == replace(fusion, weights=tried[1], tried=())  # the first of two equals
    assert curve.empty


def test_the_best_checkpoint_is_found_among_the_complete_ones():
    rows = [
        table(value=WRONG, checkpoint="chosen"),
        table(value=0.5 * WRONG, checkpoint="100"),
        table(value=RIGHT, checkpoint="200"),
        table(value=np.nan, checkpoint="generator 100"),
    ]
    scores = pd.concat(rows, ignore_index=True)
    fusion = Fusion({"value": 1.0}, "none", "scored", checkpoint="best_on_test")
    found, curve = settle(scores, fusion, 0.0, LENGTHS, TRUTH)
    assert found.checkpoint == "200"
    assert list(curve.checkpoint) == ["chosen", "100", "200"]
    assert list(curve.auc) == [0.0, 0.0, 1.0]


def test_without_labels_the_model_and_the_weights_stay_as_they_are():
    scores = pd.concat([table(value=WRONG, checkpoint="chosen"), table(value=RIGHT, checkpoint="200")])
    fusion = Fusion({"value": 1.0}, "none", "scored", checkpoint="best_on_test", tried=({"value": 3.0},))
    found, curve = settle(scores, fusion, 0.0, LENGTHS, None)
    assert found == replace(fusion, checkpoint="chosen", tried=())
    assert curve.empty


@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_searching_scores_as_fusing_does(sigma):
    rng = np.random.default_rng(1)
    names = ["motion", "label", "prediction", "destroyed"]
    scores = table(**{name: rng.random(11) for name in names})
    fusion = mama.ladder(FUSE)["weights searched on test labels"]
    found, _ = settle(scores, fusion, sigma, LENGTHS, TRUTH)
    fused = [
        with_truth(fuse_table(scores, replace(fusion, weights=weights), sigma, LENGTHS), TRUTH)
        for weights in fusion.tried[::97]
    ]
    best = with_truth(fuse_table(scores, found, sigma, LENGTHS), TRUTH)
    highest = max(roc_auc_score(one.abnormal, one.score) for one in fused)
    assert roc_auc_score(best.abnormal, best.score) >= highest


def test_the_grid_is_the_authors_without_the_three_that_leave_the_prediction_out():
    three, four = mama.grid(with_destroyer=False), mama.grid(with_destroyer=True)
    assert len(three) == 1176
    assert len(four) == 4 * 1176
    assert all(sum(weights.values()) == pytest.approx(5) and min(weights.values()) > 0 for weights in three)


def test_a_weight_of_zero_takes_a_component_out_of_every_rung():
    ladder = mama.ladder(FUSE.model_copy(update={"destroyed": 0.0}))
    assert all("destroyed" not in weights for f in ladder.values() for weights in (f.weights, *f.tried))


@needs_golden
def test_mama_scores_and_searches_as_its_authors_do():
    file = golden("score-mama")
    videos = {f"v{i}": len(file.input(f"labels_{i}")) for i in range(3)}
    names = {"motion": "sim_motion", "label": "sim_label", "prediction": "sse_generator", "destroyed": "sse_destroyer"}
    scores, truth = (
        pd.concat(
            [
                pd.DataFrame({"video": video, "split": "test", "frame": np.arange(length)} | columns(i))
                for i, (video, length) in enumerate(videos.items())
            ],
            ignore_index=True,
        )
        for columns in (
            lambda i: {
                ours: file.input(f"{theirs}_{i}").astype(float) + BUMPS[ours] * file.input(f"labels_{i}")
                for ours, theirs in names.items()
            },
            lambda i: {"abnormal": file.input(f"labels_{i}") == 1},
        )
    )
    found = {}
    four = mama.ladder(FUSE)["weights searched on test labels"]
    three = mama.ladder(FUSE.model_copy(update={"destroyed": 0.0}))["weights searched on test labels"]
    for name, weights in (
        ("w111", {"motion": 1.0, "label": 1.0, "prediction": 1.0}),
        ("w0.3_2.2_2.5_d0.75", {"motion": 0.3, "label": 2.2, "prediction": 2.5, "destroyed": 0.75}),
    ):
        for suffix, sigma in (("", 0.0), ("_gaussian", 10.0)):
            fused = fuse_table(scores, replace(four, weights=weights), sigma, videos)
            for i, video in enumerate(videos):
                found[f"distance_{name}{suffix}_{i}"] = fused.score[fused.video == video].to_numpy()
    for sigma, suffix in ((0.0, ""), (10.0, "_gaussian")):
        for fusion, who in ((three, "generator"), (four, "autoencoder")):
            best, _ = settle(scores, fusion, sigma, videos, truth)
            fused = with_truth(fuse_table(scores, best, sigma, videos), truth)
            assert roc_auc_score(fused.abnormal, fused.score) == pytest.approx(
                file.values[f"best_destroyer_{who}{suffix}"][0]
            )
            assert list(best.weights.values()) == pytest.approx(file.values[f"best_destroyer_{who}{suffix}"][2:])
    assert_golden(file, found)
