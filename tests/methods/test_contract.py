"""What every method promises: `fit` and `score` work on any prepared data set, repeatably, and survive a kill."""

from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import torch

from stages import fit, params, score, training
from stages.io.models import load_model
from tests.conftest import set_params, write_objects

OF_OBJECTS = ["state"]  # methods whose scores have a row an object
TRAINED = [name for name in params.methods() if hasattr(import_module(f"stages.methods.{name}"), "fit")]


@pytest.fixture
def small(prepared):
    """The prepared data set with every network small; the architecture is the full one."""
    for method in TRAINED:
        set_params(
            prepared,
            **({} if method in OF_OBJECTS else {f"{method}__fit__size": 32}),
            **{
                f"{method}__fit__width": 2,
                f"{method}__fit__epochs": 2,
                f"{method}__fit__batch": 3,
            },
        )
    for i, video in enumerate(("train/1", "train/2", "test/1", "test/2")):
        write_objects(video, 28, seed=i)
    return prepared


@pytest.mark.parametrize("method", params.methods())
def test_scores_keep_the_contract(small, method):
    if method in TRAINED:
        fit.main(method)
    score.main(method)
    scores = pd.read_parquet(f"data/scores/{method}.parquet")
    assert list(scores.columns[:3]) == ["video", "split", "frame"]
    assert scores.duplicated(["video", "frame"]).any() == (method in OF_OBJECTS)
    assert set(scores.video) == {"train/1", "train/2", "test/1", "test/2"}
    assert scores.groupby("video").frame.max().eq(13).all()
    for protocol in ("paper", "honest"):
        recipe = params.load().recipe(method)
        columns = list(params.recipe_module(method).fusion(protocol, recipe.fuse).weights)
        assert np.isfinite(scores.loc[scores.split == "test", columns]).to_numpy().all()
    honest = list(params.recipe_module(method).fusion("honest", recipe.fuse).weights)
    assert np.isfinite(scores[honest]).to_numpy().all()
    assert not list((small / "data/scratch").glob("fit-*")) + list((small / "data/scratch").glob("score-*"))


@pytest.mark.parametrize("method", TRAINED)
def test_same_seed_same_model_another_seed_another(small, method):
    models = []
    for seed in (0, 0, 1):
        set_params(small, seed=seed)
        fit.main(method)
        models.append(load_model(f"models/{method}")[0])
    same, again, other = models
    assert all(torch.equal(same.network[key], again.network[key]) for key in same.network)
    assert any(not torch.equal(same.network[key], other.network[key]) for key in same.network)


@pytest.mark.parametrize("method", TRAINED)
def test_a_killed_training_ends_with_the_same_weights(small, method, monkeypatch):
    fit.main(method)
    whole, _ = load_model(f"models/{method}")

    class Killed(BaseException):
        pass

    def killed_after_one(*args):
        for i, epoch in enumerate(training.resumable_epochs(*args)):
            if i == 1:
                raise Killed
            yield epoch

    function = import_module(f"stages.methods.{method}").fit
    module = getattr(function, "func", function).__module__
    with monkeypatch.context() as patch:
        patch.setattr(import_module(module), "resumable_epochs", killed_after_one)
        (small / f"models/{method}/model.json").unlink()
        with pytest.raises(Killed):
            fit.main(method)
    assert not (small / f"models/{method}/model.json").exists()
    started = []
    monkeypatch.setattr(
        import_module(module),
        "resumable_epochs",
        lambda *args: (started.append(epoch) or epoch for epoch in training.resumable_epochs(*args)),
    )
    fit.main(method)
    assert started == [1]
    resumed, _ = load_model(f"models/{method}")
    assert all(torch.equal(whole.network[key], resumed.network[key]) for key in whole.network)
    assert all(torch.equal(whole.state[key], resumed.state[key]) for key in whole.state)
    assert whole.curve.equals(resumed.curve)


def test_training_lowers_the_loss(small):
    set_params(small, mnad__fit__epochs=8, mnad__fit__width=4)
    fit.main("mnad")
    curve = pd.read_csv("models/mnad/loss.csv")
    assert list(curve.epoch) == list(range(8))
    assert curve.prediction.iloc[-1] < curve.prediction.iloc[0] / 2


def test_untrained_network_can_be_scored(small):
    set_params(small, mnad__fit__epochs=0)
    fit.main("mnad")
    score.main("mnad")
    assert pd.read_parquet("data/scores/mnad.parquet").psnr_reset.notna().all()


def test_carried_memory_differs_from_reset_only_after_the_first_video(small):
    set_params(small, mnad__score__gamma=1.0)
    fit.main("mnad")
    score.main("mnad")
    scores = pd.read_parquet("data/scores/mnad.parquet")
    first, second = (scores[scores.video == name] for name in ("test/1", "test/2"))
    assert np.allclose(first.psnr_carried, first.psnr_reset, atol=1e-4)
    assert not np.allclose(second.feature_distance_carried, second.feature_distance_reset, rtol=1e-4)


def test_gamma_zero_never_updates_the_memory(small):
    set_params(small, mnad__score__gamma=0.0)
    fit.main("mnad")
    score.main("mnad")
    test = pd.read_parquet("data/scores/mnad.parquet").query("split == 'test'")
    assert np.allclose(test.psnr_carried, test.psnr_reset, atol=1e-4)


def test_pixel_loss_does_not_reach_the_global_encoder_of_lgn_net():
    from stages.methods import lgn_net, memory

    network = lgn_net.Network(width=2)
    frame, _ = network(torch.rand(1, 12, 32, 32), memory.initial_items(4, 16))
    frame.square().mean().backward()
    assert all(p.grad is None for p in network.encoder.parameters())
    assert all(p.grad is not None for p in network.pred.parameters())


def test_too_few_frames_and_unstable_training_are_clear_errors(small, capsys):
    set_params(small, mnad__fit__batch=500)
    with pytest.raises(SystemExit, match="20 clips of 5 frames, less than one batch of 500"):
        fit.main("mnad")
    set_params(small, mnad__fit__batch=3, mnad__fit__learning_rate=1e30)
    with pytest.raises(SystemExit, match=r"the loss became .*: lower fit.learning_rate"):
        fit.main("mnad")


def test_model_of_another_method_is_refused(small):
    fit.main("mnad")
    (small / "models/mnad").rename(small / "models/mnad_recon")
    with pytest.raises(SystemExit, match="holds a model of mnad: run fit-mnad_recon again"):
        score.main("mnad_recon")
    with pytest.raises(SystemExit, match="holds no readable model"):
        score.main("mnad")


def test_gpu_that_is_not_there_is_a_clear_error(small):
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    set_params(small, device="cuda")
    with pytest.raises(SystemExit, match="finds no CUDA device"):
        fit.main("mnad")


def test_frame_difference_by_hand():
    from stages.methods.frame_difference import differences

    pixels = np.zeros((3, 8, 8, 1), np.uint8)
    pixels[1, 4, 4] = 255  # one pixel lights up, then goes out
    mean, peak = differences(pixels, 1)
    assert np.allclose(mean, 1 / 64)
    assert np.allclose(peak, 1)
    assert np.allclose(differences(pixels, 2)[1], 1 / 4)
