"""What every method promises: `fit` and `score` work on any prepared data set, repeatably, and survive a kill."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from stages import fit, params, score, training
from stages.evaluation.fusion import of_checkpoint
from stages.io.maps import unpacked
from stages.io.models import load_model
from tests.conftest import set_params, write_motion_and_labels, write_objects

OF_OBJECTS = ["state"]  # methods whose scores have a row an object
OF_SNIPPETS = ["s3r"]  # a row a snippet
WITH_MAPS = ["frame_difference", "lgn_net", "mama", "mnad", "mnad_recon"]  # a map of errors a frame
TRAININGS = [(method, part) for method in params.methods() for part in params.trainings(method)]
SMALL = {
    "size": 32, "width": 2, "items": 4, "epochs": 2, "batch": 3,
    "iterations": 4, "validate_every": 2, "steps": 4, "test_every": 2, "test_after": 0, "held_out": 0.0,
}  # fmt: skip
"""Every network small, with two epochs or intervals of validation; the architecture is the full one."""


@pytest.fixture
def small(prepared, monkeypatch):
    """The prepared data set with all that methods need beside frames; one training video counts as abnormal for S3R."""
    for method, part in TRAININGS:
        known = params.recipe_module(method).Recipe.model_fields[part].annotation.model_fields
        changed = {key: value for key, value in SMALL.items() if key in known}
        if method in OF_SNIPPETS:
            changed |= {"width": 8, "batch": 1}
            monkeypatch.setattr(import_module(f"stages.methods.{method}"), "INTERVAL", 2)
        set_params(prepared, **{f"{method}__{part}__{key}": value for key, value in changed.items()})
    videos = pd.read_parquet("data/videos.parquet")
    videos["weak_split"], videos["weak_abnormal"] = videos.split, videos.video.isin(["train/2", "test/2"])
    videos.to_parquet("data/videos.parquet")
    rng = np.random.default_rng(0)
    for i, video in enumerate(videos.video):
        write_objects(video, 28, seed=i)
        write_motion_and_labels(video, seed=i)
        path = Path(f"data/features/{video}_i3d.npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rng.random((1, 2, 2048), np.float32))
    np.save("data/dictionary.npy", rng.random((4, 2048)))
    return prepared


def train(method: str, last: str | None = None) -> None:
    """Run a method's trainings in their order, up to and with `last`."""
    for part in params.trainings(method):
        fit.main(method, part)
        if part == last:
            return


def module_of(method: str, part: str):
    """The module whose `resumable_epochs` a training calls."""
    module = import_module(f"stages.methods.{method}" if part == "fit" else f"stages.methods.{method}_{part}")
    return import_module(getattr(module.fit, "func", module.fit).__module__)


@pytest.mark.parametrize("method", params.methods())
def test_scores_keep_the_contract(small, method):
    train(method)
    score.main(method)
    scores = pd.read_parquet(f"data/scores/{method}.parquet")
    rows = of_checkpoint(scores, "chosen")
    assert list(scores.columns[:3]) == ["video", "split", "frame"]
    assert rows.duplicated(["video", "frame"]).any() == (method in OF_OBJECTS)
    assert set(scores.video) - {"train/1", "train/2"} == {"test/1", "test/2"}
    assert scores.groupby("video").frame.max().eq(0 if method in OF_SNIPPETS else 13).all()
    for fusion in params.recipe_module(method).ladder(params.load().recipe(method).fuse).values():
        used = rows if fusion.normalise == "train_zscore" else rows[rows.split == "test"]
        assert np.isfinite(used[list(fusion.weights)]).to_numpy().all()
    if method in WITH_MAPS:
        where = unpacked(rows["map"])
        assert (where >= 0).all()
        assert 0 < where[(rows["video"] == "test/2").to_numpy()].max() <= 1
    assert not list((small / "data/scratch").glob("fit-*")) + list((small / "data/scratch").glob("score-*"))


@pytest.mark.parametrize(("method", "part"), TRAININGS)
def test_same_seed_same_model_another_seed_another(small, method, part):
    models = []
    for seed in (0, 0, 1):
        set_params(small, seed=seed)
        train(method, part)
        models.append(load_model(params.trainings(method)[part])[0])
    same, again, other = models
    assert all(torch.equal(same.network[key], again.network[key]) for key in same.network)
    assert any(not torch.equal(same.network[key], other.network[key]) for key in same.network)


@pytest.mark.parametrize(("method", "part"), TRAININGS)
def test_a_killed_training_ends_with_the_same_weights(small, method, part, monkeypatch):
    train(method, part)
    folder = params.trainings(method)[part]
    whole, _ = load_model(folder)

    class Killed(BaseException):
        pass

    def killed_after_one(*args):
        for i, epoch in enumerate(training.resumable_epochs(*args)):
            if i == 1:
                raise Killed
            yield epoch

    module = module_of(method, part)
    with monkeypatch.context() as patch:
        patch.setattr(module, "resumable_epochs", killed_after_one)
        (small / folder / "model.json").unlink()
        with pytest.raises(Killed):
            fit.main(method, part)
    assert not (small / folder / "model.json").exists()
    started = []
    monkeypatch.setattr(
        module,
        "resumable_epochs",
        lambda *args: (started.append(epoch) or epoch for epoch in training.resumable_epochs(*args)),
    )
    fit.main(method, part)
    assert started == [1]
    resumed, _ = load_model(folder)
    assert all(torch.equal(whole.network[key], resumed.network[key]) for key in whole.network)
    assert all(torch.equal(whole.state[key], resumed.state[key]) for key in whole.state)
    assert whole.curve.equals(resumed.curve)
    assert whole.history.equals(resumed.history)


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


@pytest.mark.parametrize("method", ["mnad", "mnad_recon"])
def test_the_map_is_that_of_the_memory_reset_and_means_the_psnr(small, method):
    set_params(small, **{f"{method}__score__gamma": 1.0})
    fit.main(method)
    score.main(method)
    rows = pd.read_parquet(f"data/scores/{method}.parquet")
    mean = np.square(unpacked(rows["map"]).astype(np.float64)).mean((1, 2))  # cells are pixels here: 32 x 32 of both
    assert np.allclose(-10 * np.log10(mean), rows["psnr_reset"], atol=0.01)


def test_the_map_of_frame_difference_shows_where_the_square_was_and_is(prepared):
    set_params(prepared, frame_difference__score__size=64)
    score.main("frame_difference")
    rows = pd.read_parquet("data/scores/frame_difference.parquet").query("video == 'test/2' and frame == 8")
    (where,) = unpacked(rows["map"]).astype(float)
    assert np.square(where).mean() == pytest.approx(rows["mean"].item(), rel=2e-3)
    rows_of_square, columns = np.nonzero(where > 0.2)
    assert (rows_of_square.min(), rows_of_square.max()) == (8, 15)  # pixels 10 to 19 of 40
    assert (columns.min(), columns.max()) == (7, 19)  # pixels 11 to 20, then 20 to 29, of 48


def test_frame_difference_by_hand():
    from stages.methods.frame_difference import differences

    pixels = np.zeros((3, 64, 64, 1), np.uint8)
    pixels[1, 4, 6] = 255  # one pixel lights up, then goes out
    first, *both = differences(pixels, 1)
    assert first is None
    for mean, peak, where in both:
        assert (mean, peak) == (1 / 64**2, 1)
        assert where[2, 3] == 0.5  # of 2 x 2 pixels one differs by 1
        assert np.count_nonzero(where) == 1
    assert [peak for _, peak, _ in list(differences(pixels, 2))[1:]] == [0.25, 0.25]
