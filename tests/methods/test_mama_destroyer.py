"""MAMA's Destroyer against the authors' numbers, and what its noise, loss and training promise."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import fit, params
from stages.clips import Clips
from stages.io.frames import open_pixels
from stages.io.models import Model, load_model, save_model
from stages.methods import mama_destroyer as mama
from stages.methods import mama_generator
from stages.run import Run
from stages.videos import FRAMES, read_videos
from tests.conftest import set_params
from tests.golden import assert_golden, filled, golden, needs_golden, published_keys

CPU = torch.device("cpu")
SIZE = 64


@needs_golden
def test_network_and_gradients():
    network = filled(mama.Network(), "mama-destroyer")
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == published_keys("mama-destroyer")
    assert sum(parameter.numel() for parameter in network.parameters()) == 7_701_827
    file = golden("mama-destroyer")
    x = torch.tensor(file.input("x"))
    with torch.no_grad():
        found = {"output": network(x)}
    # in double precision: in single, the gradients differ by more than is allowed between versions of PyTorch
    network.double()(x.double()).square().mean().backward()
    found["grad_norms"] = np.array([parameter.grad.norm().item() for parameter in network.parameters()])
    assert_golden(file, found)


@needs_golden
def test_patches_similarity_and_loss():
    file = golden("mama-destroyer-loss")
    prediction, scene, output, noise, alpha = (
        torch.tensor(file.input(name)) for name in ("A", "GT", "G", "noise", "patch_alpha")
    )
    target = 0.7 * prediction + 0.3 * scene
    share = alpha.view(2, 1, 8, 8).repeat_interleave(32, 2).repeat_interleave(32, 3) ** 3
    noisy = (1 - share) * target + share * noise
    of_patches = mama.similarity(mama.patches(noisy).flatten(0, 1), mama.patches(target).flatten(0, 1))
    whole = mama.similarity(noisy, target)
    found = {
        "patches_A": mama.patches(prediction),
        "N": noisy,
        "ssim_per_patch": of_patches.view(2, 64),
        "diff_ld4": mama.gate(noisy, target),
        "loss_ld4": mama.losses(output, prediction, noisy, target, -1.0).sum()[None],
        "ssim_per_image": whole,
        "ssim_whole": whole.mean()[None],
        "ssim_loss_util": 1 - whole.mean()[None],
        "ssim_whole_01": mama.similarity((noisy + 1) / 2, (target + 1) / 2).mean()[None],
        "sse": mama_generator.frame_errors(noisy, target).mean()[None],
    }
    assert_golden(file, found)


def random_frames(clips: int, seed: int = 0, size: int = SIZE) -> torch.Tensor:
    return torch.rand(clips, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_initial_weights():
    torch.manual_seed(0)
    network = mama.Network(16)
    assert network.down3.mpconv[1].conv[0].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert network.up1.up.weight.std().item() == pytest.approx(0.02, rel=0.05)
    norm = network.down3.mpconv[1].conv[1]
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.01)
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert not norm.bias.any()


def test_similarity_by_hand():
    """Constant images: the structure is 1, the luminance is (2 a b + c) / (a^2 + b^2 + c)."""
    dark, light = torch.full((1, 3, 32, 32), 0.2), torch.full((1, 3, 32, 32), 0.6)
    c = 0.01**2
    assert mama.similarity(dark, light).item() == pytest.approx((0.24 + c) / (0.4 + c), abs=1e-5)
    c = 0.02**2  # the range is 2 where the first image is below -0.5
    assert mama.similarity(-light, -dark).item() == pytest.approx((0.24 + c) / (0.4 + c), abs=1e-5)
    frames = random_frames(2)
    assert mama.similarity(frames, frames).tolist() == pytest.approx([1, 1], abs=1e-6)


def test_the_gaussian_means_are_those_of_a_window_of_11():
    rows = mama.smoothing(32, CPU)
    assert rows.shape == (22, 32)
    assert torch.allclose(rows.sum(1), torch.ones(22))
    assert [(row != 0).nonzero().squeeze(1).tolist() for row in rows] == [list(range(i, i + 11)) for i in range(22)]
    assert (rows[0, 4] / rows[0, 5]).item() == pytest.approx(np.exp(-1 / (2 * 1.5**2)), rel=1e-5)


def test_every_patch_has_a_range_and_a_similarity_of_its_own():
    first, second = random_frames(2, 0), random_frames(2, 1)
    first[0, :, :32, :32] = first[0, :, :32, :32].abs()
    parts = [mama.patches(frames) for frames in (first, second)]
    alone = [mama.similarity(parts[0][b : b + 1, p], parts[1][b : b + 1, p]).item() for b in range(2) for p in range(4)]
    assert np.allclose(mama.similarity(*(part.flatten(0, 1) for part in parts)), alone, atol=1e-6)


def test_loss_by_hand():
    """Two of four patches are as the frame is, two are not at all."""
    target = random_frames(1) / 2
    noisy = target.clone()
    noisy[..., 32:] *= -1
    assert mama.gate(noisy, target)[0].tolist() == pytest.approx([0, 1, 0, 1], abs=1e-5)
    prediction, output = torch.full_like(target, 0.5), torch.zeros_like(target)
    assert mama.losses(output, prediction, noisy, target, -1.0).item() == pytest.approx(2 * 0.25 + 2 * 1, rel=1e-4)
    best = prediction.clone()
    best[..., 32:] = -1
    assert mama.losses(best, prediction, noisy, target, -1.0).item() == pytest.approx(0, abs=1e-4)


def test_a_little_dissimilarity_is_four_times_destroyed():
    target = random_frames(1) / 2
    noisy = target + 0.1 * random_frames(1, 1)
    found = mama.similarity(*(mama.patches(frames)[0] for frames in (noisy, target)))
    assert found.max() < 0.99
    assert found.min() > 0.76
    assert torch.allclose(mama.gate(noisy, target)[0], 4 * (1 - found), atol=1e-6)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_what_is_dropped(seed):
    frames = torch.ones(3, 3, 128, 128)
    dropped = mama.drop(frames, np.random.default_rng(seed))
    of_patches, of_channels = (round(0.05 + 0.45 * u, 2) for u in np.random.default_rng(seed).random(2))
    assert 0.05 <= min(of_patches, of_channels) <= max(of_patches, of_channels) <= 0.5
    values = mama.patches(dropped)
    assert torch.equal(values.amin((3, 4)), values.amax((3, 4)))  # a channel of a patch, or nothing
    factors = values[..., 0, 0]
    chosen = (factors != 1).any(2)
    assert torch.equal(chosen, (factors == 0).any(2) | (factors > 1).any(2))
    survivors = factors[(factors != 0) & (factors != 1)]
    assert torch.allclose(survivors, torch.tensor(1 / (1 - of_channels), dtype=torch.float32))
    # a patch is chosen, or not, in all frames: none has an untouched channel beside a touched one
    places = chosen.any(0)
    assert (factors[:, places] != 1).all()
    assert (factors[:, ~places] == 1).all()


def test_how_much_is_dropped():
    """Over many draws: a patch with probability 0.275 on average, a channel of it with 0.275."""
    frames = torch.ones(2, 3, 256, 256)
    factors = torch.stack(
        [mama.patches(mama.drop(frames, np.random.default_rng(seed)))[..., 0, 0] for seed in range(400)]
    )
    touched = factors != 1
    assert touched.float().mean().item() == pytest.approx(0.275, abs=0.02)
    assert (factors[touched] == 0).float().mean().item() == pytest.approx(0.275, abs=0.03)
    # channels and frames are drawn one by one
    assert not torch.equal(factors[:, 0] == 0, factors[:, 1] == 0)
    assert not torch.equal(factors[..., 0] == 0, factors[..., 1] == 0)
    assert factors.max() <= 2


def write_generator(seed: int = 0) -> mama_generator.Network:
    """A generator's model, as its fit leaves it; its network."""
    recipe = params.load().recipe("mama").generator
    torch.manual_seed(seed)
    network = mama_generator.Network(recipe.width)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    description = {"method": "mama", "recipe": recipe.model_dump(), "origin": "trained"}
    save_model("models/mama-generator", Model(network.state_dict(), {}), description)
    return network.eval()


@pytest.fixture
def small(prepared):
    """The prepared data set with a small generator, and a small recipe."""
    set_params(
        prepared,
        mama__generator__size=SIZE,
        mama__generator__width=2,
        **{
            f"mama__destroyer__{key}": value
            for key, value in dict(width=2, batch=2, iterations=5, validate_every=2, learning_rate=0.001).items()
        },
    )
    write_generator()
    return prepared


def fitted() -> Model:
    fit.main("mama", "destroyer")
    return load_model("models/mama-destroyer")[0]


def destroyed_now(model: Model) -> np.ndarray:
    """The test videos' errors by a model."""
    generator, network = write_generator(), mama.Network(2)
    network.load_state_dict(model.network)
    pixels = open_pixels(read_videos().query("split == 'test'"), FRAMES, SIZE, 1)
    clips = Clips(pixels, 5)
    with torch.no_grad():
        batch = clips.read(clips.starts, CPU)
        frames = network.eval()(generator.predict(batch[:, :4].flatten(1, 2)))
    return ((frames - batch[:, 4]) / 2).square().mean((1, 2, 3)).numpy()


def test_model_curve_and_history(small):
    set_params(small, mama__destroyer__held_out=0.0)
    model = fitted()
    assert set(model.network) == set(mama.Network(2).state_dict())
    curve = pd.read_csv("models/mama-destroyer/loss.csv")
    assert list(curve.columns) == ["epoch", "iterations", "loss", "held_out"]
    assert list(curve.iterations) == [2, 4, 5]
    assert curve.held_out.isna().all()
    history = model.history
    assert list(history.columns) == ["checkpoint", "video", "split", "frame", "destroyed"]
    assert history.dtypes.astype(str).tolist()[3:] == ["int32", "float64"]
    assert list(history.checkpoint.unique()) == ["2", "4", "5"]
    last = history[history.checkpoint == "5"]
    assert set(last.split) == {"test"}
    for video in ("test/1", "test/2"):
        assert last[last.video == video].frame.tolist() == list(range(4, 14))
    assert np.allclose(last.destroyed, destroyed_now(model), rtol=1e-3)  # predictions are kept in half precision
    assert not list((small / "data/scratch").glob("fit-*"))


def test_the_checkpoint_with_the_lowest_held_out_loss_is_kept(small, monkeypatch):
    losses, seen = iter([0.3, 0.1, 0.1]), []
    monkeypatch.setattr(
        mama, "held_out_loss", lambda network, predictions, *others: seen.append(predictions) or next(losses)
    )
    model = fitted()
    assert pd.read_csv("models/mama-destroyer/loss.csv").held_out.tolist() == [0.3, 0.1, 0.1]
    assert [len(predictions) for predictions in seen] == [10] * 3  # one of the two training videos
    history, found = model.history.groupby("checkpoint").destroyed, destroyed_now(model)
    assert np.allclose(history.get_group("4"), found, rtol=1e-3)
    assert not np.allclose(history.get_group("5"), found, rtol=1e-3)


def test_held_out_loss_is_the_same_each_time(small, monkeypatch):
    """With a rate of almost nothing and no batch norm to move, three validations find the same."""
    monkeypatch.setattr(mama, "HELD_OUT_CLIPS", 4)
    plain, counts = mama.held_out_loss, []
    monkeypatch.setattr(mama, "held_out_loss", lambda *args: counts.append(len(args[1])) or plain(*args))
    set_params(small, mama__destroyer__learning_rate=1e-12)
    fitted()
    found = pd.read_csv("models/mama-destroyer/loss.csv").held_out
    assert counts == [4] * 3
    assert found.nunique() == 1
    assert 0 < found[0] < 4 * 4


def test_a_step_is_that_of_the_textbook(small):
    recipe = SimpleNamespace(batch=2, background=-0.5)
    run = Run(read_videos(), CPU, seed=1, workers=1, train_frames=0, scratch=small)
    pixels = np.random.default_rng(0).integers(0, 256, (14, SIZE, SIZE, 3), dtype=np.uint8)
    clips = Clips({"train/1": pixels, "train/2": pixels[::-1]}, 5)
    generator = write_generator()
    before = {key: tensor.clone() for key, tensor in generator.state_dict().items()}
    results, means = [], []
    for textbook in (False, True):
        torch.manual_seed(0)
        network = mama.Network(2)
        optimiser = torch.optim.SGD(network.parameters(), 0.01)
        if textbook:
            total = 0.0
            for step, index in zip((2, 3), mama_generator.sampled(clips, 1, range(2, 4), 2), strict=True):
                batch = clips.read(index, CPU)
                prediction = generator.predict(batch[:, :4].flatten(1, 2)).detach()
                noisy = mama.drop(prediction, np.random.default_rng((1, step, mama.TRAINING)))
                output, target = network(noisy), batch[:, 4]
                loss = torch.zeros(())
                for b in range(2):
                    for row in (0, 32):
                        for column in (0, 32):
                            o, a, n, y = (
                                frames[b : b + 1, :, row : row + 32, column : column + 32]
                                for frames in (output, prediction, noisy, target)
                            )
                            d = min(4 * (1 - mama.similarity(n, y).item()), 1)
                            loss = loss + d * (o + 0.5).square().mean() + (1 - d) * (o - a).square().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += loss.item() / 2 / 2
            means.append(total)
        else:
            means.append(mama.train(run, recipe, clips, range(2, 4), generator, network, optimiser))
        results.append(network.state_dict())
    assert means[0] == pytest.approx(means[1], rel=1e-4)
    assert all(torch.allclose(results[0][key], results[1][key], atol=1e-5) for key in results[0])
    assert all(torch.equal(before[key], tensor) for key, tensor in generator.state_dict().items())


@pytest.mark.parametrize("batch_norm", ["frozen", "trained"])
def test_batch_norm_is_frozen_after_the_first_validation(small, batch_norm):
    set_params(small, mama__destroyer__batch_norm=batch_norm, mama__destroyer__held_out=0.0)
    updates = fitted().network["inc.conv.conv.1.num_batches_tracked"].item()
    assert updates == (2 if batch_norm == "frozen" else 5)


def test_training_lowers_the_loss(small):
    changes = dict(iterations=60, validate_every=20, width=8, learning_rate=0.01, batch=4)
    set_params(small, **{f"mama__destroyer__{key}": value for key, value in changes.items()})
    fitted()
    curve = pd.read_csv("models/mama-destroyer/loss.csv")
    assert curve.loss.iloc[-1] < curve.loss.iloc[0] / 2
    assert curve.held_out.iloc[-1] < curve.held_out.iloc[0]


class Killed(BaseException):
    """What ends a process."""


@pytest.mark.parametrize("where", ["train", "recorded"])
def test_a_killed_training_ends_with_the_same_model(small, where, monkeypatch):
    whole = fitted()
    curve = pd.read_csv("models/mama-destroyer/loss.csv")
    plain, calls, predicted = getattr(mama, where), [], []

    def killed_in_the_second(*args):
        calls.append(args)
        if len(calls) == 2:
            raise Killed
        return plain(*args)

    with monkeypatch.context() as patch:
        patch.setattr(mama, where, killed_in_the_second)
        with pytest.raises(Killed):
            fit.main("mama", "destroyer")
    monkeypatch.setattr(mama, where, lambda *args: calls.append(args) or plain(*args))
    space = mama.check_space
    monkeypatch.setattr(mama, "check_space", lambda *args: predicted.append(args) or space(*args))
    resumed = fitted()
    assert len(calls) == 2 + 2  # of three, the first is not done again
    assert not predicted  # nor are the predictions
    assert all(torch.equal(whole.network[key], resumed.network[key]) for key in whole.network)
    assert whole.history.equals(resumed.history)
    assert curve.equals(pd.read_csv("models/mama-destroyer/loss.csv"))


def test_same_seed_same_model_another_seed_or_generator_another(small):
    first, again = fitted(), fitted()
    set_params(small, seed=1)
    other = fitted()
    set_params(small, seed=0)
    write_generator(seed=1)
    of_another = fitted()
    for key in ("outc.weight", "inc.conv.conv.0.weight"):
        assert torch.equal(first.network[key], again.network[key])
        assert not torch.equal(first.network[key], other.network[key])
        assert not torch.equal(first.network[key], of_another.network[key])


def test_errors_that_a_user_can_mend(small, monkeypatch):
    set_params(small, mama__destroyer__learning_rate=1e30)
    with pytest.raises(SystemExit, match=r"the loss became .*: lower mama.destroyer.learning_rate"):
        fit.main("mama", "destroyer")
    monkeypatch.setattr("stages.videos.shutil.disk_usage", lambda folder: SimpleNamespace(free=10))
    set_params(small, seed=5)
    with pytest.raises(SystemExit, match=r"what the generator predicts: needs about 0.0 GB"):
        fit.main("mama", "destroyer")
    (small / "models/mama-generator/network.safetensors").unlink()
    with pytest.raises(SystemExit, match="models/mama-generator holds no readable model"):
        fit.main("mama", "destroyer")
