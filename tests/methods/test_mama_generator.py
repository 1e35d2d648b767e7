"""MAMA's generator against the authors' numbers, and what its inputs, losses and training promise."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from stages import fit
from stages.clips import Clips
from stages.command import VigilError
from stages.io.flow import FLOW, full_size
from stages.io.frames import open_pixels
from stages.io.models import load_model
from stages.io.segments import CLASSES, SEGMENTS
from stages.methods import mama_generator as mama
from stages.run import Run
from stages.videos import FRAMES, read_videos
from tests.conftest import set_params, write_motion_and_labels
from tests.golden import assert_golden, filled, golden, needs_golden, published_keys

CPU = torch.device("cpu")
SIZE = 32
VIDEOS = ("train/1", "train/2", "test/1", "test/2")


@needs_golden
@pytest.mark.parametrize(
    ("name", "network", "parameters"),
    [
        ("mama-generator", mama.Network, 36_076_611),
        ("mama-destroyer-stage-generator", mama.Network, 36_076_611),
        ("mama-pixel-discriminator", mama.Discriminator, 6_831_489),
    ],
)
def test_names_and_shapes_are_the_published_ones(name, network, parameters):
    built = network()
    assert {key: tuple(value.shape) for key, value in built.state_dict().items()} == published_keys(name)
    assert sum(parameter.numel() for parameter in built.parameters()) == parameters


@needs_golden
def test_networks_losses_gradients_and_components():
    file = golden("mama-generator")
    network = filled(mama.Network(), "mama-generator")
    discriminator = filled(mama.Discriminator(), "mama-pixel-discriminator")
    frames, motion, labels, target = (torch.tensor(file.input(k)) for k in ("frames", "motions", "labels", "target"))
    output = network(frames, motion, labels)
    judged = discriminator(output.frame)
    terms = mama.losses(output, target, judged, axis=-1)
    loss = torch.tensor([1, 1, 0.05, 1, 1]) @ terms
    loss.backward()
    found = {
        "output": output.frame,
        "frame_feature": output.frames,
        "motion_feature": output.motion,
        "ftom_feature": output.to_motion,
        "label_feature": output.label,
        "ftol_feature": output.to_label,
        "D_of_output": judged,
        "G_grad_norms": np.array([parameter.grad.norm().item() for parameter in network.parameters()]),
        "loss_generator_total": loss[None],
    }
    losses = ("intensity", "gradient", "adversarial", "triplet_motion", "triplet_label")
    found |= {f"loss_{name}": term[None] for name, term in zip(losses, terms, strict=True)}
    scores = mama.components(output, target, axis=-1)
    found |= {f"score_{name}": scores[:, i] for i, name in enumerate(("sim_motion", "sim_label", "sse"))}
    # in double precision: in single, convolution's gradients differ by more than is allowed between machines
    discriminator.double().zero_grad()
    real, predicted = discriminator.net(torch.cat([target, output.frame.detach()]).double()).chunk(2)
    loss = mama.discriminator_loss(real, predicted)
    loss.backward()
    found |= {
        "D_of_target": real,
        "loss_discriminator": loss[None],
        "D_grad_norms": np.array([parameter.grad.norm().item() for parameter in discriminator.parameters()]),
    }
    assert_golden(file, found)


@needs_golden
@torch.inference_mode()
def test_discriminator():
    file = golden("mama-pixel-discriminator")
    discriminator = filled(mama.Discriminator(), "mama-pixel-discriminator")
    assert_golden(file, {"output": discriminator(torch.tensor(file.input("x")))})


def random_batch(clips: int, seed: int = 0) -> mama.Batch:
    generator = torch.Generator().manual_seed(seed)
    channels = (12, 6, 4 * CLASSES, 3)
    return mama.Batch(*(torch.rand(clips, n, SIZE, SIZE, generator=generator) * 2 - 1 for n in channels))


def small_network(width: int = 2) -> mama.Network:
    """A small network whose batch norms have seen something."""
    torch.manual_seed(0)
    network = mama.Network(width)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
        network(*random_batch(4)[:3])
    return network.eval()


def test_prediction_needs_neither_flow_nor_labels():
    network, batch = small_network(), random_batch(2)
    frame = network(*batch[:3]).frame
    for name, parameter in network.named_parameters():
        if name.split(".")[0].endswith(("_y", "_z")):
            parameter.data.fill_(torch.nan)
    assert torch.equal(network.predict(batch.frames), frame)
    assert frame.abs().max() <= 1
    assert network(*batch[:3]).motion.isnan().all()


def test_features_are_normalised_over_the_channels():
    output = small_network()(*random_batch(2)[:3])
    for feature in output[1:]:
        assert feature.shape == (2, 16, SIZE // 8, SIZE // 8)
        assert torch.allclose(feature.norm(dim=1), torch.ones(2, SIZE // 8, SIZE // 8), atol=1e-5)


@pytest.mark.parametrize("axis", [-1, 1])
def test_a_clip_is_scored_alike_in_any_batch(axis):
    network, batch = small_network(), random_batch(3)
    with torch.no_grad():
        whole = mama.components(network(*batch[:3]), batch.target, axis)
        parts = [mama.Batch(*(tensor[i : i + 1] for tensor in batch)) for i in range(3)]
        alone = torch.cat([mama.components(network(*part[:3]), part.target, axis) for part in parts])
    assert torch.allclose(whole, alone, rtol=1e-4)
    assert whole.unique(dim=0).shape == (3, 3)


def test_initial_weights():
    torch.manual_seed(0)
    network, discriminator = mama.Network(8), mama.Discriminator(8)
    assert network.fusion_conv.conv[0].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert network.se.fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not network.outc.bias.any()
    assert not network.se.fc2.bias.any()
    assert network.up1.up.weight.abs().max() <= (32 * 4) ** -0.5  # PyTorch's own
    assert discriminator.net[6].weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_triplet_by_hand():
    """Anchor 1 and 0 in two channels, on a map of 1 x 2 pixels."""
    anchor = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    other = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    root = 2**0.5  # both pixels differ by 1 in both channels, so both distances are this
    assert mama.triplet(anchor, anchor, other, -1).item() == 0
    assert mama.triplet(anchor, other, anchor, -1).item() == pytest.approx(0.2 + root, abs=1e-5)
    assert mama.triplet(anchor, other, anchor, 1).item() == pytest.approx(0.2 + root, abs=1e-5)
    assert mama.triplet(anchor, other, other, 1).item() == pytest.approx(0.2)
    half = anchor.clone()
    half[..., 1] = other[..., 1]  # one of the two pixels differs
    assert mama.triplet(anchor, half, anchor, -1).item() == pytest.approx(0.2 + 1, abs=1e-5)
    assert mama.triplet(anchor, half, anchor, 1).item() == pytest.approx(0.2 + root / 2, abs=1e-5)


def test_losses_by_hand():
    features = torch.zeros(1, 4, 2, 2)
    frame, target = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    target[0, 0, 3, 3] = 0.8  # in the corner, where outside is 0: four differences
    output = mama.Output(frame, *[features] * 5)
    terms = mama.losses(output, target, torch.full((1, 1, 5, 5), 0.5), axis=1)
    expected = [0.8**2 / 48, 4 * 0.8 / 48, 0.5**2 / 2, 0.2, 0.2]
    assert torch.allclose(terms, torch.tensor(expected))
    # what counts is how large a difference is, not in which direction
    assert mama.losses(output._replace(frame=-target), target, terms, 1)[1].item() == 0
    assert mama.frame_errors(frame, target).item() == pytest.approx(0.4**2 / 48)
    assert mama.discriminator_loss(torch.tensor([0.5, 1.0]), torch.tensor([0.2])).item() == pytest.approx(0.0825)


def clips_of(*frames: int) -> Clips:
    return Clips({str(i): np.zeros((n, 1, 1, 1), np.uint8) for i, n in enumerate(frames)}, 5)


def test_a_pass_has_a_clip_of_every_video_and_no_clip_comes_twice_before_all_came():
    clips = clips_of(6, 4, 7, 5)  # 2, 0, 3 and 1 clips
    passes = list(mama.sampled(clips, 0, range(12), 3))
    assert all(sorted(index[:, 0]) == [0, 2, 3] for index in passes)
    assert len({tuple(index[:, 0]) for index in passes}) > 1
    starts = {video: [index[index[:, 0] == video, 1].item() for index in passes] for video in (0, 2, 3)}
    for video, count in ((0, 2), (2, 3), (3, 1)):
        rounds = [starts[video][i : i + count] for i in range(0, 12, count)]
        assert all(sorted(part) == list(range(count)) for part in rounds)
    assert len({tuple(starts[2][i : i + 3]) for i in range(0, 12, 3)}) > 1


def test_batches_are_functions_of_seed_and_step():
    clips = clips_of(30, 40, 50)
    whole = list(mama.sampled(clips, 3, range(9), 4))
    assert all(index.shape == (4, 2) for index in whole)
    assert np.array_equal(whole[5:8], list(mama.sampled(clips, 3, range(5, 8), 4)))
    assert not np.array_equal(whole, list(mama.sampled(clips, 4, range(9), 4)))
    flat = np.concatenate(whole)
    assert np.array_equal(flat, np.concatenate(list(mama.sampled(clips, 3, range(18), 2))))
    with pytest.raises(VigilError, match="no training video has 5 frames"):
        next(mama.sampled(clips_of(4, 3), 0, range(1), 1))


def test_intervals():
    recipe = SimpleNamespace(iterations=7, validate_every=3)
    assert mama.intervals(recipe) == [range(0, 3), range(3, 6), range(6, 7)]


@pytest.fixture
def small(prepared):
    """The prepared data set with flow and labels, and a small network."""
    for i, video in enumerate(VIDEOS):
        write_motion_and_labels(video, seed=i)
    generator = dict(size=SIZE, width=2, batch=2, iterations=5, validate_every=2, learning_rate=0.001)
    set_params(prepared, **{f"mama__generator__{key}": value for key, value in generator.items()})
    return prepared


@pytest.mark.parametrize("reduce", [1, 4])
def test_inputs_belong_to_their_clips(small, reduce):
    rng = np.random.default_rng(0)
    videos = {video: rng.integers(0, 256, (14, SIZE, SIZE, 3), dtype=np.uint8) for video in ("train/1", "test/2")}
    for i, video in enumerate(videos):
        write_motion_and_labels(video, reduce=reduce, seed=i)
    inputs = mama.read_inputs(videos)
    batch = inputs.read(np.array([[0, 0], [1, 9]]), CPU)
    assert [tuple(part.shape) for part in batch] == [(2, n, SIZE, SIZE) for n in (12, 6, 4 * CLASSES, 3)]
    pixels = torch.tensor(videos["test/2"]).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert torch.allclose(batch.frames[1].unflatten(0, (4, 3)), pixels[9:13])
    assert torch.allclose(batch.target[1], pixels[13])
    flow = full_size(np.load(FLOW / "mama/test/2.npy"), reduce)
    assert torch.allclose(batch.motion[1].unflatten(0, (3, 2)), flow[9:12] / 255, atol=1e-7)
    labels = torch.tensor(np.load(SEGMENTS / "test/2.npy"), dtype=torch.float32)
    large = F.interpolate(labels, (SIZE, SIZE), mode="bilinear", align_corners=False)
    assert torch.allclose(batch.labels[1].unflatten(0, (4, CLASSES)), large[9:13], atol=1e-5)
    assert torch.equal(torch.cat([part.frames for part in inputs.in_order(3, CPU)])[19], batch.frames[1])


def test_flow_and_labels_that_do_not_fit_are_clear_errors(small):
    videos = {"train/1": np.zeros((14, SIZE, SIZE, 1), np.uint8)}
    write_motion_and_labels("train/1", frames=13)
    with pytest.raises(VigilError, match=r"flow/mama/train/1.npy: found 13 frames, the video has 14: .*:flow-mama"):
        mama.read_inputs(videos)
    write_motion_and_labels("train/1", size=64)
    message = r"found 64 x 64 pixels, mama.generator.size is 32: set flow.mama.height and .width to 32"
    with pytest.raises(VigilError, match=message):
        mama.read_inputs(videos)
    write_motion_and_labels("train/1")
    np.save(SEGMENTS / "train/1.npy", np.zeros((14, CLASSES, 8, 8), np.float16))
    with pytest.raises(VigilError, match=r"segments/train/1.npy: found 64 x 64 .*: set segments.size to 32"):
        mama.read_inputs(videos)
    (FLOW / "mama/train/1.npy").unlink()
    with pytest.raises(SystemExit, match=r"train/1.npy not found: run `dvc repro stages/dvc.yaml:flow-mama` first"):
        fit.main("mama", "generator")


def fitted() -> mama.Model:
    fit.main("mama", "generator")
    return load_model("models/mama-generator")[0]


def components_now(model, width: int = 2) -> np.ndarray:
    """The test videos' components by a model."""
    network = mama.Network(width)
    network.load_state_dict(model.network)
    rows = []
    pixels = open_pixels(read_videos().query("split == 'test'"), FRAMES, SIZE, 1)
    with torch.no_grad():
        for batch in mama.read_inputs(pixels).in_order(1, CPU):
            rows.append(mama.components(network.eval()(*batch[:3]), batch.target, -1))
    return torch.cat(rows).numpy()


def test_model_curve_and_history(small):
    set_params(small, mama__generator__held_out=0.0)
    model = fitted()
    assert set(model.network) == set(mama.Network(2).state_dict())
    curve = pd.read_csv("models/mama-generator/loss.csv")
    assert list(curve.iterations) == [2, 4, 5]
    assert list(curve.columns[2:]) == ["loss", *mama.TERMS, "discriminator", "held_out"]
    assert curve.held_out.isna().all()
    parts = curve.intensity + curve.gradient + 0.05 * curve.adversarial + curve.motion + curve.label
    assert np.allclose(curve.loss, parts, rtol=1e-4)
    history = model.history
    assert list(history.columns) == ["checkpoint", "video", "split", "frame", *mama.COMPONENTS]
    assert history.dtypes.astype(str).tolist()[3:] == ["int32", *["float64"] * 3]
    assert list(history.checkpoint.unique()) == ["2", "4", "5"]
    last = history[history.checkpoint == "5"]
    assert set(history.split) == {"test"}
    for video in ("test/1", "test/2"):
        assert last[last.video == video].frame.tolist() == list(range(4, 14))
    assert np.allclose(last[mama.COMPONENTS], components_now(model), rtol=1e-4)


def test_the_checkpoint_with_the_lowest_held_out_error_is_kept(small, monkeypatch):
    errors = iter([0.3, 0.1, 0.1])
    seen = []
    monkeypatch.setattr(mama, "held_out_error", lambda network, clips, device: seen.append(clips) or next(errors))
    model = fitted()
    assert model.curve.empty  # the curve is for the eye
    assert pd.read_csv("models/mama-generator/loss.csv").held_out.tolist() == [0.3, 0.1, 0.1]
    assert [len(clips) for clips in seen] == [10] * 3  # one of the two training videos
    history = model.history.groupby("checkpoint")
    found = components_now(model)
    assert np.allclose(history.get_group("4")[mama.COMPONENTS], found, rtol=1e-4)
    assert not np.allclose(history.get_group("5")[mama.COMPONENTS], found, rtol=1e-4)


def test_held_out_error_is_the_mean_over_all_clips():
    network = small_network()
    pixels = np.random.default_rng(0).integers(0, 256, (24, SIZE, SIZE, 3), dtype=np.uint8)
    clips = Clips({"": pixels}, 5)
    frames = torch.tensor(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        errors = [
            (network.predict(frames[i : i + 4].flatten(0, 1)[None]) - frames[i + 4]).square().mean().item() / 4
            for i in range(20)
        ]
    assert mama.held_out_error(network, clips, CPU) == pytest.approx(np.mean(errors), rel=1e-5)


def test_a_step_of_the_generator_then_one_of_the_discriminator(small):
    """Against the textbook's way: both losses by themselves, nothing switched off, two optimisers."""
    recipe = SimpleNamespace(
        batch=2, triplet_axis="width", lambda_gradient=0.5, lambda_adversarial=3.0, lambda_triplet=2.0
    )
    run = Run(read_videos(), CPU, seed=1, workers=1, train_frames=0, scratch=small)
    pixels = np.random.default_rng(0).integers(0, 256, (14, SIZE, SIZE, 3), dtype=np.uint8)
    inputs = mama.read_inputs({"train/1": pixels, "train/2": pixels[::-1]})
    results = []
    for textbook in (False, True):
        torch.manual_seed(0)
        networks = mama.Network(2), mama.Discriminator(2)
        optimisers = [torch.optim.SGD(network.parameters(), 0.1) for network in networks]
        if not textbook:
            row = mama.train(run, recipe, inputs, range(2, 4), *networks, *optimisers)
            results.append([tensor.clone() for network in networks for tensor in network.state_dict().values()])
            continue
        generator, discriminator = networks
        sums = torch.zeros(6)
        for index in mama.sampled(inputs.clips, 1, range(2, 4), 2):
            batch = inputs.read(index, CPU)
            output = generator(*batch[:3])
            terms = mama.losses(output, batch.target, discriminator(output.frame), -1)
            generator.zero_grad()
            (torch.tensor([1, 0.5, 3, 2, 2]) @ terms).backward()
            optimisers[0].step()
            real, fake = discriminator(batch.target), discriminator(output.frame.detach())
            loss = (real - 1).square().mean() / 2 + fake.square().mean() / 2
            discriminator.zero_grad()
            loss.backward()
            optimisers[1].step()
            sums += torch.cat([terms, loss[None]]).detach() / 2
        results.append([tensor for network in networks for tensor in network.state_dict().values()])
        assert [row[name] for name in [*mama.TERMS, "discriminator"]] == pytest.approx(sums.tolist(), rel=1e-4)
        assert row["iterations"] == 4
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("held_out", [0.0, 0.5])
@pytest.mark.parametrize("batch_norm", ["frozen", "trained"])
def test_batch_norm_is_frozen_after_the_first_validation(small, batch_norm, held_out, monkeypatch):
    errors, plain = iter([3.0, 2.0, 1.0]), mama.held_out_error
    monkeypatch.setattr(mama, "held_out_error", lambda *args: 0 * plain(*args) + next(errors))
    set_params(small, mama__generator__batch_norm=batch_norm, mama__generator__held_out=held_out)
    updates = fitted().network["inc_x.conv.conv.1.num_batches_tracked"].item()
    assert updates == (2 if batch_norm == "frozen" else 5)  # the last checkpoint is the best


class Killed(BaseException):
    """What ends a process."""


@pytest.mark.parametrize("where", ["train", "recorded"])
def test_a_killed_training_ends_with_the_same_model(small, where, monkeypatch):
    whole = fitted()
    plain, calls = getattr(mama, where), []

    def killed_in_the_second(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise Killed
        return plain(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(mama, where, killed_in_the_second)
        with pytest.raises(Killed):
            fit.main("mama", "generator")
    monkeypatch.setattr(mama, where, lambda *args, **kwargs: calls.append(args) or plain(*args, **kwargs))
    curve = pd.read_csv("models/mama-generator/loss.csv")
    resumed = fitted()
    assert len(calls) == 2 + 2  # of three, the first is not done again
    assert all(torch.equal(whole.network[key], resumed.network[key]) for key in whole.network)
    assert whole.history.equals(resumed.history)
    assert curve.equals(pd.read_csv("models/mama-generator/loss.csv"))


def test_a_killed_training_begins_anew_with_other_flow(small, monkeypatch):
    plain, calls = mama.train, []

    def killed_in_the_second(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise Killed
        return plain(*args, **kwargs)

    monkeypatch.setattr(mama, "train", killed_in_the_second)
    with pytest.raises(Killed):
        fit.main("mama", "generator")
    write_motion_and_labels("train/1", seed=9)
    fitted()
    assert len(calls) == 2 + 3


def test_same_seed_same_model_another_seed_another(small):
    models = []
    for seed in (0, 0, 1):
        set_params(small, seed=seed)
        models.append(fitted())
    same, again, other = models
    assert all(torch.equal(same.network[key], again.network[key]) for key in same.network)
    assert any(not torch.equal(same.network[key], other.network[key]) for key in same.network)


def test_training_lowers_the_errors(small):
    set_params(small, mama__generator__width=8, mama__generator__iterations=60, mama__generator__validate_every=20)
    set_params(small, mama__generator__learning_rate=0.003)
    fitted()
    curve = pd.read_csv("models/mama-generator/loss.csv")
    for name in ("intensity", "motion", "label", "held_out"):
        assert curve[name].iloc[-1] < 0.7 * curve[name].iloc[0], name


def test_unstable_training_is_a_clear_error(small):
    set_params(small, mama__generator__learning_rate=1e30)
    with pytest.raises(SystemExit, match=r"after . iterations: lower mama.generator.learning_rate"):
        fit.main("mama", "generator")
